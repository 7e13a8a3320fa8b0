-- Read one schedule.
-- KEYS[1] shard prefix   ARGV name
-- Returns {now ms, {name, fields}}, or {now ms} when there is none; the fields as in schedules.lua.
return { int(store_ms()), schedule_parts(ARGV[1]) or nil }
