-- A page of an owner's open jobs, newest first; what has ended is not walked over.
-- KEYS[1] shard prefix   ARGV owner scope, cursor (id of the last job of the page before, or ""), how many
-- Returns the parts of each job (see the prelude). A job that ended meanwhile may be among them, a deleted one is left out.
local from = ARGV[2] == '' and '+' or '(' .. ARGV[2]
local reply = {}
for _, id in ipairs(call('ZRANGE', P .. ':w:o:' .. ARGV[1], from, '-', 'BYLEX', 'REV', 'LIMIT', 0, ARGV[3])) do
  reply[#reply + 1] = parts(id) or nil
end
return reply
