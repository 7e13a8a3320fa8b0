-- A page of dead letters, the latest first.
-- KEYS[1] shard prefix   ARGV queue, type, fingerprint (each "" for any), when the last one of the page before died ms or "", its id, how many
-- Returns {parts of each job}, then the place to go on from, ms and id, or nothing at the end. A page may be short although more follows.
local LOOKED_AT_MAX, PAGE = 2000, 100
local queue, type, print, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[6])
local from_ms, from_id = tonumber(ARGV[4]), ARGV[5]
local index = P .. ':dead'
if print ~= '' and queue ~= '' then index = P .. ':dl:' .. print .. ':' .. queue end

local types = {}
local function type_of(group)
  if types[group] == nil then
    local text = call('HGET', P .. ':dg', group)
    types[group] = text and cjson.decode(text).type or ''
  end
  return types[group]
end

local function is_wanted(job)
  local its_print, its_queue = string.match(job.fp or ':', '^([^:]*):(.*)$')
  return job.fp and (queue == '' or queue == its_queue) and (print == '' or print == its_print) and (type == '' or type == type_of(job.fp))
end

local at = from_ms and call('ZCOUNT', index, '(' .. int(from_ms), '+inf') or 0
local found, last_ms, last_id = {}, '', ''
local looked = 0
while looked < LOOKED_AT_MAX do
  local page = call('ZRANGE', index, at, at + PAGE - 1, 'REV', 'WITHSCORES')
  for i = 1, #page, 2 do
    local id, ms = page[i], page[i + 1]
    if not (from_ms and tonumber(ms) == from_ms and id >= from_id) then
      local job = read_record(id)
      if job and is_wanted(job) then
        if #found == limit then return { found, last_ms, last_id } end
        found[#found + 1] = parts(id)
      end
      last_ms, last_id = ms, id
    end
  end
  looked, at = looked + PAGE, at + PAGE
  if #page < 2 * PAGE then return { found } end
end
return { found, last_ms, last_id }
