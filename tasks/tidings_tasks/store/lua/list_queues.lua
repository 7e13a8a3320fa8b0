-- The queues that have jobs waiting or running, or that somebody paused or drains.
-- KEYS[1] shard prefix   ARGV how many at most
-- Returns their names, each once
local found, seen, most = {}, {}, tonumber(ARGV[1])
local function add(name)
  if name and not seen[name] and #found < most then
    seen[name] = true
    found[#found + 1] = name
  end
end
for _, field in ipairs(call('HKEYS', P .. ':qn')) do add(string.match(field, '^w:(.*)$') or field) end
for _, field in ipairs(call('HKEYS', P .. ':qc')) do add(string.match(field, '^!(.*)$')) end
return found
