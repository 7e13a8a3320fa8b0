-- Which schedules are due.
-- KEYS[1] shard prefix   ARGV how many at most
-- Returns {now ms, ms until the next one after them is due (-1: none is), {name, version, due ms, ...}}, the longest due first.
local now = store_ms()
local names = call('ZRANGE', DUE, '-inf', int(now), 'BYSCORE', 'LIMIT', 0, ARGV[1])
local due = {}
for _, name in ipairs(names) do
  local v = call('HMGET', SCHEDULE .. name, 'v', 'nx')
  due[#due + 1], due[#due + 2], due[#due + 3] = name, v[1], v[2]
end
local coming = call('ZRANGE', DUE, '(' .. int(now), '(' .. int(NEVER), 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
return { int(now), coming[2] and int(coming[2] - now) or '-1', due }
