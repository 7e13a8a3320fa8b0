-- Run first on every new connection: fixes the installation's format and shard count, and notices a store with another history.
-- KEYS[1] shard prefix   ARGV format, shards, lease_ms, a fresh generation name
-- Returns {"ok", generation} or {"mismatch", field, found}.
-- A node that restarted or took over has another run id: a new generation begins, and no lease is reaped for one lease
-- period, since workers could not renew while the store was away. Atomic; repeating it changes nothing.
local P = KEYS[1]
local meta = P .. ':meta'
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local v = redis.call('HMGET', meta, 'format', 'shards', 'run', 'gen')
if not v[1] then
  redis.call('HSET', meta, 'format', ARGV[1], 'shards', ARGV[2])
else
  if v[1] ~= ARGV[1] then return { 'mismatch', 'format', v[1] } end
  if v[2] ~= ARGV[2] then return { 'mismatch', 'shards', v[2] } end
end
if v[3] == run and v[4] then return { 'ok', v[4] } end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local seen = tonumber(redis.call('GET', P .. ':clock') or 0)
redis.call('HSET', meta, 'run', run, 'gen', ARGV[4], 'reap', string.format('%.0f', math.max(now, seen) + (v[3] and ARGV[3] or 0)))
return { 'ok', ARGV[4] }
