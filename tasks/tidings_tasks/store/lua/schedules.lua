-- Schedules: what is kept of each. When one is due is worked out by the process that fires it; the store decides whether it may.
--
--   :sch          zset  names by when they are due next, ms; NEVER for those that are paused, disabled or past
--   :sc:<name>    hash  df definition (JSON), og origin (settings | api), v version (of the definition), tf fingerprint of its timing,
--                       nx due next (ms, or empty: never), ps 1 while it is paused,
--                       ld newest due time that was handled, lj last job, lr when it was stored,
--                       sd newest due time that was skipped, sw why, sj the job that was in the way,
--                       nr ns nm how many runs, skips and missed times, op its open jobs (those that ended too, until it is looked at),
--                       fx fr the due time that was fired last, and the answer
local NEVER = 9007199254740991
local DUE, SCHEDULE

begin_with(function() DUE, SCHEDULE = P .. ':sch', P .. ':sc:' end)

-- {name, fields}, or false. For whoever reads.
local function schedule_parts(name)
  local fields = call('HGETALL', SCHEDULE .. name)
  return #fields > 0 and { name, fields }
end

-- The store's time for scripts that change nothing: as in the prelude, but not remembered.
local function store_ms()
  local t = call('TIME')
  return math.max(t[1] * 1000 + math.floor(t[2] / 1000), tonumber(call('GET', P .. ':clock') or 0))
end

local function words(text)
  local found = {}
  for word in string.gmatch(text, '%S+') do found[#found + 1] = word end
  return found
end

-- Those of a schedule's jobs that have not ended. For scripts that write.
local function open_among(ids)
  local open, former = {}, words(ids or '')
  load_all(former)
  for _, id in ipairs(former) do
    local job = load(id)
    if job and not TERMINAL[job.s] then open[#open + 1] = id end
  end
  return open
end
