-- An owner's jobs, counted by state.
-- KEYS[1] shard prefix   ARGV owner scope
-- Returns state, count, ...
return call('HGETALL', P .. ':n:' .. ARGV[1])
