-- Fire a schedule once: compare what was due, store the jobs, and set when it is due next, all in one step. So of any number of
-- processes that try, one succeeds, and none that dies in between loses a run.
-- KEYS[1] shard prefix
-- ARGV  name, version, due time that is fired (ms), newest due time that is handled with it (ms), due next (ms, or "": never),
--       overlap: skip | queue | replace, how many times were missed, why nothing is to be stored ("" when something is),
--       how many open jobs it may have, max_queue_length, the jobs' due times (ms, separated by spaces),
--       then the jobs, as storing.lua reads them
--   An earlier job of the schedule that has not ended: with skip nothing is stored; with queue the new job is stored too (a
--   concurrency key makes it wait); with replace the earlier ones are cancelled.
-- Returns {outcome, what became of each job: created | overlap | full | draining | ...}; outcome: fired | other (it was fired by
-- another, changed, paused or removed) | early (it is not due yet). A repeat is answered like the first.
local name, key = ARGV[1], SCHEDULE .. ARGV[1]
local overlap, most_open, max_length = ARGV[6], tonumber(ARGV[9]), tonumber(ARGV[10])
local kept = call('HMGET', key, 'v', 'nx', 'ps', 'op', 'fx', 'fr')
if kept[1] ~= ARGV[2] or kept[3] then return { 'other' } end
if kept[2] ~= ARGV[3] then
  if kept[5] == ARGV[3] then return { 'fired', unpack(cjson.decode(kept[6])) } end
  return { 'other' }
end
if NOW < tonumber(ARGV[3]) then return { 'early' } end
local wanted = read_wanted(12)
if not wanted then return redis.error_reply('INVALID a job to be stored has a malformed argument') end

local open, due = open_among(kept[4]), words(ARGV[11])
local changes = { 'ld', ARGV[4], 'nx', ARGV[5] }
local function change(field, value)
  changes[#changes + 1] = field
  changes[#changes + 1] = value
end

local function skip(due_ms, why, blocker)
  change('sd', due_ms)
  change('sw', why)
  change('sj', blocker or '')
end

local outcomes, runs, skipped = {}, 0, 0
for at, job in ipairs(wanted) do
  local outcome
  if overlap == 'skip' and #open > 0 or #open >= most_open then
    outcome = 'overlap'
  else
    if overlap == 'replace' then
      for _, id in ipairs(open) do cancel(load(id), '"schedule"', cjson.encode('replaced by the next run of schedule ' .. name)) end
    end
    outcome = store_jobs({ job }, false, max_length)[1].outcome
  end
  if outcome == 'created' then
    runs = runs + 1
    change('lj', job.id)
    change('lr', int(NOW))
    local stored = load(job.id)
    if stored and not TERMINAL[stored.s] then open[#open + 1] = job.id end
  else
    skipped = skipped + 1
    skip(due[at], outcome, outcome == 'overlap' and open[#open])
  end
  outcomes[at] = outcome
end
if ARGV[8] ~= '' then
  skipped = skipped + 1
  skip(ARGV[4], ARGV[8])
end
change('op', table.concat(open, ' '))
change('fx', ARGV[3])
change('fr', #outcomes > 0 and cjson.encode(outcomes) or '[]')
call('HSET', key, unpack(changes))
for field, many in pairs({ nr = runs, ns = skipped, nm = tonumber(ARGV[7]) }) do
  if many > 0 then call('HINCRBY', key, field, many) end
end
put(DUE, name, tonumber(ARGV[5]) or NEVER)
save_all()
return { 'fired', unpack(outcomes) }
