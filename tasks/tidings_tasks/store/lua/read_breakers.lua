-- The circuit breakers that are not closed and untroubled.
-- KEYS[1] shard prefix   ARGV none
-- Returns {dependency, state, failures, open until ms, ...}
local reply, flat = {}, call('HGETALL', P .. ':br')
for i = 1, #flat, 2 do
  local breaker = cmsgpack.unpack(flat[i + 1])
  for _, value in ipairs({ flat[i], breaker.s, breaker.f, int(breaker.u) }) do reply[#reply + 1] = value end
end
return reply
