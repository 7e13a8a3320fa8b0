-- The groups of dead letters: those whose errors look the same.
-- KEYS[1] shard prefix   ARGV none
-- Returns for each {fingerprint:queue, what they have in common (JSON), how many, when the first and the last one died ms}
local reply, flat = {}, call('HGETALL', P .. ':dg')
for i = 1, #flat, 2 do
  local members = P .. ':dl:' .. flat[i]
  local first, last = call('ZRANGE', members, 0, 0, 'WITHSCORES'), call('ZRANGE', members, -1, -1, 'WITHSCORES')
  if first[2] then reply[#reply + 1] = { flat[i], flat[i + 1], call('ZCARD', members), first[2], last[2] } end
end
return reply
