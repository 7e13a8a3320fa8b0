-- A worker says that it lives, and adds the durations of the jobs it has completed since its last beat.
-- KEYS[1] prefix of the home shard, 0
-- ARGV  worker, run (a random name of this process), number of the beat, ttl_ms (0: the worker ends), info (JSON),
--       then for each job type: type, how many buckets follow, {bucket, how many more jobs}
-- Keys (all of the home shard):
--   :beats        zset  workers by the time of their last beat, ms; those that are silent for a minute go
--   :beat:<worker> hash run, number, info; expires after ttl_ms
--   :durs         zset  job types by the time of their last duration, ms; at most 1,000
--   :dur:<type>   hash  n how many, then bucket -> count; halved whenever n passes 1,000, so that it follows change
-- Returns nil. A beat of this run that was heard before changes nothing. Atomic.
local worker, run, number, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local SILENT_MS, ENDED_KEPT_MS, TYPES_MAX, JOBS_MAX, TYPE_KEPT_MS = 60000, 60000, 1000, 1000, 2592000000
local key = P .. ':beat:' .. worker
local seen = call('HMGET', key, 'run', 'number')
if seen[1] == run and tonumber(seen[2]) >= number then return false end

call('HSET', key, 'run', run, 'number', int(number))
if ttl_ms > 0 then
  call('HSET', key, 'info', ARGV[5])
  call('PEXPIRE', key, int(ttl_ms))
  call('ZADD', P .. ':beats', int(NOW), worker)
else
  -- The number is remembered for a repeat.
  call('HDEL', key, 'info')
  call('PEXPIRE', key, ENDED_KEPT_MS)
  call('ZREM', P .. ':beats', worker)
end
call('ZREMRANGEBYSCORE', P .. ':beats', '-inf', int(NOW - SILENT_MS))

local function halve(name)
  local fields, total = call('HGETALL', name), 0
  for i = 1, #fields, 2 do
    if fields[i] ~= 'n' then
      local half = math.floor(tonumber(fields[i + 1]) / 2)
      total = total + half
      if half > 0 then call('HSET', name, fields[i], int(half)) else call('HDEL', name, fields[i]) end
    end
  end
  call('HSET', name, 'n', int(total))
  return total
end

local at = 6
while at <= #ARGV do
  local kind, buckets = ARGV[at], tonumber(ARGV[at + 1])
  local name, added = P .. ':dur:' .. kind, 0
  for i = at + 2, at + 2 * buckets, 2 do
    call('HINCRBY', name, ARGV[i], ARGV[i + 1])
    added = added + tonumber(ARGV[i + 1])
  end
  local total = call('HINCRBY', name, 'n', int(added))
  while total > JOBS_MAX do total = halve(name) end
  call('PEXPIRE', name, TYPE_KEPT_MS)
  call('ZADD', P .. ':durs', int(NOW), kind)
  at = at + 2 + 2 * buckets
end
local excess = call('ZCARD', P .. ':durs') - TYPES_MAX
if excess > 0 then
  for _, kind in ipairs(call('ZRANGE', P .. ':durs', 0, excess - 1)) do call('DEL', P .. ':dur:' .. kind) end
  call('ZREMRANGEBYRANK', P .. ':durs', 0, excess - 1)
end
save_all()
return false
