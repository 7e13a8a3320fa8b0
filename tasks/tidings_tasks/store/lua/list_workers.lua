-- The workers that live: those whose last beat has not expired, the newest beats first.
-- KEYS[1] prefix of the home shard, 0   ARGV at most how many
-- Returns {worker, ms of its last beat, info (JSON), ...}
local reply = {}
local found = call('ZREVRANGE', P .. ':beats', 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
for i = 1, #found, 2 do
  local info = call('HGET', P .. ':beat:' .. found[i], 'info')
  if info then
    local size = #reply
    reply[size + 1], reply[size + 2], reply[size + 3] = found[i], found[i + 1], info
  end
end
return reply
