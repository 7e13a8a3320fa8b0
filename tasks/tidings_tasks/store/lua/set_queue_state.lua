-- Pause a queue, let it drain (no new jobs), or set it going again; at once for all workers and servers.
-- KEYS[1] shard prefix   ARGV queue, active | paused | draining
-- Returns 1
local field = '!' .. ARGV[1]
if ARGV[2] == 'active' then call('HDEL', P .. ':qc', field) else call('HSET', P .. ':qc', field, ARGV[2]) end
if ARGV[2] ~= 'paused' then wakes[ARGV[1]] = true end
save_all()
return 1
