-- Read one job whole.
-- KEYS[1] shard prefix   ARGV id
-- Returns its parts (see the prelude) or nil.
return parts(ARGV[1])
