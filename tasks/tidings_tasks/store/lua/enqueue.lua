-- Store jobs: idempotency key, record, first event, queue place, owner index and wake-up, all in one step.
-- KEYS[1] shard prefix
-- ARGV  all_or_none (1|0), max_queue_length, kept_completed_ms, kept_failed_ms, then for each job
--       id, queue, priority, due (ms since the epoch, "+ms" from now, or ""), owner scope, max_attempts,
--       idempotency key ("" for none), request fingerprint, idempotency lifetime ms, spec (JSON)
-- Returns for each job {outcome, id, epoch, seq}; outcome: created | replayed | conflict | full | refused (all_or_none, another failed).
-- A job id that is stored, or was until a moment ago, is answered `created`, since only a repeat of this very command can
-- carry it. An idempotency key that two jobs of one call share belongs to the first. max_queue_length bounds each queue, and what waits
-- for its due time.
local PER_JOB = 10
local all_or_none, max_length = ARGV[1] == '1', tonumber(ARGV[2])
local kept_completed_ms, kept_failed_ms = tonumber(ARGV[3]), tonumber(ARGV[4])

local function due_ms_of(due)
  local ms = due == '' and 0 or tonumber(due)
  if string.sub(due, 1, 1) == '+' then ms = NOW + ms end
  return math.floor(ms)
end

for i = 5, #ARGV, PER_JOB do
  local due = ARGV[i + 3]
  local is_due_fine = due == '' or string.match(due, '^%+?%d+%.?%d*$')
  if not (is_due_fine and tonumber(ARGV[i + 2]) and tonumber(ARGV[i + 5]) and ARGV[i + 9]) then
    return redis.error_reply('INVALID a job to be stored has a malformed argument')
  end
end

-- First decide about all, then store: nothing is written until it is known that all may be.
local found, room, by_key, by_id, refused = {}, {}, {}, {}, false
for i = 5, #ARGV, PER_JOB do
  local id, owner, key = ARGV[i], ARGV[i + 4], ARGV[i + 6]
  local entry = by_id[id] or { outcome = 'created', id = id, at = i }
  if not by_id[id] and call('EXISTS', P .. ':j:' .. id, P .. ':t:' .. id) == 0 then
    local holder, print
    if key ~= '' then
      key = P .. ':i:' .. owner .. ':' .. key
      holder = by_key[key]
      if holder then
        print = ARGV[holder.at + 7]
      else
        local kept = call('GET', key)
        if kept then
          local kept_id
          kept_id, print = string.match(kept, '^(%S+) (%S*)$')
          if call('EXISTS', P .. ':j:' .. kept_id) == 1 then holder = { outcome = 'created', id = kept_id } end
        end
      end
    end
    if holder and holder.outcome == 'full' then
      entry.outcome = 'full' -- so that a repeat of the call, when its twin still finds no room, gets the same answer
    elseif holder then
      entry.id = holder.id
      if print ~= ARGV[i + 7] then
        entry.outcome = 'conflict'
      else
        entry.outcome = 'replayed'
        entry.holder = holder
      end
    else
      local due_ms = due_ms_of(ARGV[i + 3])
      local line = due_ms > NOW and P .. ':due' or P .. ':q:' .. ARGV[i + 1]
      room[line] = (room[line] or max_length - call('ZCARD', line)) - 1
      entry.outcome = room[line] < 0 and 'full' or 'new'
      entry.due_ms = due_ms
      if key ~= '' then by_key[key] = entry end
    end
    by_id[id] = entry
  end
  if entry.outcome == 'conflict' or entry.outcome == 'full' then refused = true end
  found[#found + 1] = entry
end

local function store(entry)
  local i = entry.at
  local id, owner, key = ARGV[i], ARGV[i + 4], ARGV[i + 6]
  local job = setmetatable({
    id = id, q = ARGV[i + 1], p = tonumber(ARGV[i + 2]), ow = owner, ma = tonumber(ARGV[i + 5]), c = NOW, e = GEN,
  }, RECORD)
  if kept_completed_ms ~= job.kc then job.kc = kept_completed_ms end
  if kept_failed_ms ~= job.kf then job.kf = kept_failed_ms end
  jobs[id] = job
  put_text(P .. ':m:' .. id, ARGV[i + 9])
  if key ~= '' then call('SET', P .. ':i:' .. owner .. ':' .. key, id .. ' ' .. ARGV[i + 7], 'PX', ARGV[i + 8]) end
  for _, feed in ipairs(feeds_of(job)) do put(feed.open, id, 0) end
  if entry.due_ms > NOW then
    enter_due(job, 'scheduled', entry.due_ms)
    wakes[job.q] = true
  else
    enter_queue(job)
  end
end

for _, entry in ipairs(found) do
  if entry.outcome == 'new' then
    if all_or_none and refused then
      entry.outcome = 'refused'
    else
      store(entry)
      entry.outcome = 'created'
    end
  elseif entry.holder and entry.holder.outcome == 'refused' then
    entry.outcome = 'refused'
  end
end
save_all()

local reply = {}
for at, entry in ipairs(found) do
  local job = load(entry.id)
  reply[at] = { entry.outcome, entry.id, job and job.e or '', job and int(job.n) or '0' }
end
return reply
