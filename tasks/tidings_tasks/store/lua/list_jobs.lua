-- A page of an owner's jobs, newest first: the open and the ended ones, merged by id.
-- KEYS[1] shard prefix   ARGV owner scope, cursor (id of the last job of the page before, or ""), how many
-- Returns the parts of each job. A job deleted meanwhile is left out.
local from, limit = ARGV[2] == '' and '+' or '(' .. ARGV[2], tonumber(ARGV[3])
local function page(index) return call('ZRANGE', P .. index .. ARGV[1], from, '-', 'BYLEX', 'REV', 'LIMIT', 0, limit) end
local open, ended = page(':w:o:'), page(':o:')
local reply, i, k = {}, 1, 1
while i + k - 2 < limit and (open[i] or ended[k]) do
  local id
  if not ended[k] or open[i] and open[i] > ended[k] then
    id, i = open[i], i + 1
  else
    id, k = ended[k], k + 1
  end
  reply[#reply + 1] = parts(id) or nil
end
return reply
