-- Read many jobs whole.
-- KEYS[1] shard prefix   ARGV ids
-- Returns for each its parts (see the prelude) or nil.
local reply = {}
for i, id in ipairs(ARGV) do reply[i] = parts(id) end
return reply
