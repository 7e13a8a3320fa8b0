-- A page of the schedules, by name.
-- KEYS[1] shard prefix   ARGV name behind which the page begins ("" for the first), how many at most
-- Returns {now ms, {name, fields}, ...}; the fields as in schedules.lua.
local names = call('ZRANGE', DUE, 0, -1)
table.sort(names)
local reply = { int(store_ms()) }
for _, name in ipairs(names) do
  if #reply > tonumber(ARGV[2]) then break end
  if name > ARGV[1] then reply[#reply + 1] = schedule_parts(name) or nil end
end
return reply
