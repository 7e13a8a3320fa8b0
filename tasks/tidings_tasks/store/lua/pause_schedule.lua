-- Pause a schedule, or let it go on. What is due while it is paused is passed over, and counts neither as skipped nor as missed.
-- KEYS[1] shard prefix   ARGV name, 1 (pause) | 0 (go on), with 0: due next (ms, or "": never)
-- Returns paused | active | gone.
local name, key = ARGV[1], SCHEDULE .. ARGV[1]
local v = call('HMGET', key, 'v', 'ps')
if not v[1] then return 'gone' end
if ARGV[2] == '1' then
  if not v[2] then
    call('HSET', key, 'ps', '1')
    put(DUE, name, NEVER)
  end
elseif v[2] then
  call('HDEL', key, 'ps')
  call('HSET', key, 'nx', ARGV[3])
  put(DUE, name, tonumber(ARGV[3]) or NEVER)
end
save_all()
return ARGV[2] == '1' and 'paused' or 'active'
