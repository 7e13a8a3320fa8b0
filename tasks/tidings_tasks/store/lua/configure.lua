-- Set the limits of queues and the numbers of circuit breakers, as the settings have them; states (paused, draining) stay.
-- KEYS[1] shard prefix   ARGV {field, JSON or "" for none} pairs; a field is a queue's name, or "~" and a dependency's
--   a queue: {ml max length, mr max running, r ro rg: [count, per ms, burst] for all, each owner, each org}
--   a dependency: [failures, within ms, open ms]
-- Returns 1. Jobs that a limit keeps back are looked at again.
local PAGE = 1000

for i = 1, #ARGV, 2 do
  if not ARGV[i + 1] or ARGV[i + 1] ~= '' and not pcall(cjson.decode, ARGV[i + 1]) then
    return redis.error_reply('INVALID limits are no JSON')
  end
end
for i = 1, #ARGV, 2 do
  local field, text = ARGV[i], ARGV[i + 1]
  if text ~= (call('HGET', P .. ':qc', field) or '') then
    if text ~= '' then call('HSET', P .. ':qc', field, text) else call('HDEL', P .. ':qc', field) end
    if string.sub(field, 1, 1) ~= '~' then
      wakes[field] = true
      local from, gates = 0, nil
      repeat
        gates = call('ZRANGE', P .. ':gates', from, from + PAGE - 1)
        for _, gate in ipairs(gates) do
          if string.match(gate, '^[qog]:([^:]*)') == field then put_timed(P .. ':gates', gate, NOW) end
        end
        from = from + PAGE
      until #gates < PAGE
    end
  end
end
save_all()
return 1
