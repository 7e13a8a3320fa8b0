-- The duration histograms of job types, as beat.lua keeps them.
-- KEYS[1] prefix of the home shard, 0   ARGV types
-- Returns for each type {"n", how many, bucket, count, ...}, empty for an unknown one.
local reply = {}
for i, kind in ipairs(ARGV) do reply[i] = call('HGETALL', P .. ':dur:' .. kind) end
return reply
