-- How queues stand.
-- KEYS[1] shard prefix   ARGV queue names
-- Returns for each {state ("" is active), queued (parked ones included), standing in line, running, limited until ms (0: not), limits JSON or ""}
local reply = {}
for i, queue in ipairs(ARGV) do
  local kept = call('HMGET', P .. ':qc', '!' .. queue, queue)
  local numbers = call('HMGET', P .. ':qn', 'w:' .. queue, queue)
  reply[i] = {
    kept[1] or '', tonumber(numbers[1] or 0), call('ZCARD', P .. ':q:' .. queue), tonumber(numbers[2] or 0),
    call('ZSCORE', P .. ':gates', 'q:' .. queue) or '0', kept[2] or '',
  }
end
return reply
