-- Where the logs of many jobs stand, in one call.
-- KEYS[1] shard prefix   ARGV ids
-- Returns for each job {epoch, head, state} or nil.
local reply = {}
for i, id in ipairs(ARGV) do
  local v = call('HMGET', P .. ':j:' .. id, 'e', 'n', 's')
  reply[i] = v[1] and v or false
end
return reply
