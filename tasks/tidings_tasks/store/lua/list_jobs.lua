-- A page of an owner's jobs, newest first.
-- KEYS[1] shard prefix   ARGV owner scope, cursor (id of the last job of the page before, or ""), how many
-- Returns the parts of each job. A job deleted meanwhile is left out.
local reply = {}
local from = ARGV[2] == '' and '+' or '(' .. ARGV[2]
for _, id in ipairs(call('ZRANGE', P .. ':o:' .. ARGV[1], from, '-', 'BYLEX', 'REV', 'LIMIT', 0, tonumber(ARGV[3]))) do
  local job = parts(id)
  if job then reply[#reply + 1] = job end
end
return reply
