-- One step of a worker: its numbered writes in order, upkeep of the shard (due jobs, gates, lapsed leases, retention), the next claims.
-- KEYS[1] shard prefix
-- ARGV  worker id, call number, lease_ms, number of writes W, how many jobs to claim at most,
--       W x {id, attempt, write number, verb, data (JSON), extra},
--       then {queue, how many wanted} in the order in which the worker prefers them; naming a queue, even with 0 wanted,
--       gives back the wake token that the worker may have taken, when jobs are left in it
--   verbs: progress | log | output      data is the event's data
--          complete                      data is the result, extra what the attempt used (JSON) or ""
--          retry                         data is the error; counts as a try, and fails the job that has none left
--          fail                          data is the error
--          cancel                        data is the reason (JSON string or null), unless who asked for it gave one
--          release                       hand-back at shutdown, to the front of the line; counts nothing
--   extra of retry and fail: JSON {"delay_ms" (retry), "dead" (fail: belongs among the dead letters), "stack", "usage"}, the last two optional
-- Returns {now ms, ms until something falls due (-1: nothing), {a code for each write}, {id, attempt, queue, tries, spec, ...},
--   {number of a claim, bytes of the results that its input refers to, {name, result or nothing, ...}: none when they are too many}}
--   codes: 1 done | 2 done, and the job's cancellation was asked for | 3 a repeat, nothing changed | 0 refused: another attempt, or over
-- A repeat of a call (same worker and call number) is answered with the jobs it claimed the first time; a worker may have
-- up to eight calls on their way. Atomic.
local worker, call_number, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local writes, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local UPKEEP_BATCH, CALLS_KEPT, CALLS_KEPT_MS, LOST_WORKERS_MAX, LOOK_MAX, PART_KEPT_MS = 50, 8, 120000, 3, 200, 3600000
local WORKER_LOST = '{"code":"worker_lost","type":"WorkerLost","message":"the worker that ran this job went away"}'

local function retry(job, err, delay_ms)
  call('HSET', P .. ':x:' .. job.id, 'er', err)
  enter_due(job, 'retrying', NOW + math.floor(delay_ms),
    '{"error":' .. err .. ',"delay_s":' .. string.format('%.3f', delay_ms / 1000) .. ',"next_attempt":' .. int(job.a + 1) .. '}')
end

local function keep_usage(job, usage)
  if usage and usage ~= '' then call('HSET', P .. ':x:' .. job.id, 'us', usage) end
end

local VERBS = {
  progress = function(job, data)
    emit(job, 'progress', data)
    if job.pa then tell_flow(job, data) end
  end,
  log = function(job, data) emit(job, 'log', data) end,
  output = function(job, data) emit(job, 'output', data) end,
  complete = function(job, data, usage)
    keep_usage(job, usage)
    said_of_dependency = 'ok'
    complete(job, data)
  end,
  retry = function(job, data, more)
    if job.cb ~= '' then return cancel_asked(job) end
    keep_usage(job, more.usage)
    said_of_dependency = 'failed'
    set(job, 't', job.t + 1)
    if job.t >= job.ma then fail(job, data, true, more.stack) else retry(job, data, more.delay_ms) end
  end,
  fail = function(job, data, more)
    keep_usage(job, more.usage)
    -- A failure that its author chose says nothing of what the job depends on.
    if more.dead then said_of_dependency = 'failed' end
    set(job, 't', job.t + 1)
    fail(job, data, more.dead, more.stack)
  end,
  cancel = function(job, data)
    if job.cb == '' then
      emit(job, 'cancelling', '{"by":null}')
      cancel_now(job, 'null', data)
    else
      cancel_now(job, job.cb, job.cr ~= '' and job.cr or data)
    end
  end,
  release = function(job)
    if job.cb ~= '' then return cancel_asked(job) end
    enter_queue(job, ',"reason":"shutdown"', true)
  end,
}

-- What stands behind the data of a write: text, or for retry and fail a table; nothing when it is malformed.
local function read_extra(verb, text)
  if verb ~= 'retry' and verb ~= 'fail' then return text end
  local is_read, more = pcall(cjson.decode, text)
  if not is_read or type(more) ~= 'table' or verb == 'retry' and type(more.delay_ms) ~= 'number' then return nil end
  if more.usage then more.usage = cjson.encode(more.usage) end
  return more
end

local WRITES_FROM, PER_WRITE = 6, 6
local wants_from = WRITES_FROM + writes * PER_WRITE
local extras = {}
for i = WRITES_FROM, wants_from - 1, PER_WRITE do
  local verb = ARGV[i + 3]
  extras[i] = ARGV[i + 5] and read_extra(verb, ARGV[i + 5])
  if not (VERBS[verb] and tonumber(ARGV[i + 1]) and tonumber(ARGV[i + 2]) and extras[i]) then
    return redis.error_reply('INVALID a write has a malformed argument')
  end
end

local written = {}
for i = WRITES_FROM, wants_from - 1, PER_WRITE do written[#written + 1] = ARGV[i] end
load_all(written)
local codes = {}
for i = WRITES_FROM, wants_from - 1, PER_WRITE do
  local job, number = load(ARGV[i]), tonumber(ARGV[i + 2])
  local code = 0
  if job and job.a == tonumber(ARGV[i + 1]) then
    if number <= job.w then
      code = 3
    elseif job.s == 'running' then
      set(job, 'w', number)
      said_of_dependency = nil
      VERBS[ARGV[i + 3]](job, ARGV[i + 4], extras[i])
      code = job.cb ~= '' and 2 or 1
    end
  end
  codes[#codes + 1] = code
end

said_of_dependency = nil

local function first_of(index)
  flush_indexes()
  return call('ZRANGEBYSCORE', P .. index, '-inf', int(NOW), 'LIMIT', 0, UPKEEP_BATCH)
end

local due = first_of(':due')
load_all(due)
for _, id in ipairs(due) do
  put(P .. ':due', id, false)
  local job = load(id)
  if job and (job.s == 'scheduled' or job.s == 'retrying') then enter_queue(job) end
end

if NOW >= REAP_FROM then
  for _, member in ipairs(first_of(':lease')) do
    put(P .. ':lease', member, false)
    local id, attempt = string.match(member, '^(.*):(%d+)$')
    local job = load(id)
    if job and job.fl then
      time_out_flow(job)
    elseif job and job.s == 'running' and job.a == tonumber(attempt) then
      set(job, 't', job.t + 1)
      set(job, 'lw', job.lw + 1)
      if job.cb ~= '' then
        cancel_asked(job)
      elseif job.lw >= LOST_WORKERS_MAX or job.t >= job.ma then
        fail(job, WORKER_LOST, true)
      else
        retry(job, WORKER_LOST, 0)
        enter_queue(job, nil, true)
      end
    end
  end
end

for _, id in ipairs(first_of(':exp')) do
  put(P .. ':exp', id, false)
  local job = load(id)
  if job and job.x and (job.s == 'queued' or job.s == 'scheduled' or job.s == 'retrying') then expire(job) end
end

for _, gate in ipairs(first_of(':gates')) do open_gate(gate) end

-- A queue that may run so many at once has room again.
for field, difference in pairs(counts[':qn'] or {}) do
  if difference < 0 and string.sub(field, 1, 2) ~= 'w:' then
    local limits = limits_of(field)
    if limits and limits.mr then wakes[field] = true end
  end
end

for _, id in ipairs(first_of(':done')) do
  put(P .. ':done', id, false)
  local job = load(id)
  if job and job.pa and is_open_flow(job.pa) then
    -- Steps to come may need its result.
    put(P .. ':done', id, NOW + PART_KEPT_MS)
  elseif job and TERMINAL[job.s] then
    purge(job)
  end
end

local claimed, specs, needing, taken = {}, {}, {}, { int(call_number) }

local function add_claim(job)
  local at = #claimed
  claimed[at + 1], claimed[at + 2], claimed[at + 3], claimed[at + 4], claimed[at + 5] = job.id, job.a, job.q, job.t, ''
  specs[#specs + 1] = P .. ':m:' .. job.id
  if job.nd then needing[#needing + 1] = #specs end
end

local STARTED = '{"worker":' .. cjson.encode(worker) .. ',"attempt":'

local function claim(job)
  set(job, 'a', job.a + 1)
  set(job, 'w', 0)
  set(job, 'wk', worker)
  set(job, 'st', NOW)
  become(job, 'running', NOW + lease_ms)
  emit(job, 'started', STARTED .. int(job.a) .. '}')
  taken[#taken + 1] = job.id .. ':' .. int(job.a)
  add_claim(job)
end

-- Claim up to so many jobs of a queue; those before a closed gate are parked on the way. Returns how many were claimed.
local function claim_from(queue, wanted)
  local line = P .. ':q:' .. queue
  flush_indexes()
  local left = call('ZCARD', line)
  if left == 0 then
    wakes[queue] = nil
    return 0
  end
  local room, limits = room_in(queue, wanted + 1)
  local has_gates = limits and (limits.ro or limits.rg)
  local most, count_claimed, looked = math.min(room, wanted), 0, 0
  while count_claimed < most and left > 0 and looked < LOOK_MAX do
    local ids = call('ZRANGE', line, 0, most - count_claimed - 1)
    load_all(ids)
    for _, id in ipairs(ids) do
      local job = load(id)
      if not (job and job.s == 'queued' and not job.pk) then
        put(line, id, false)
      elseif job.x and job.x <= NOW then
        expire(job)
      else
        local gate = (has_gates or job.ck or job.dp) and pass_gates(job, limits)
        if gate then
          park(job, gate, tonumber(call('ZSCORE', line, id)))
        else
          claim(job)
          count_claimed = count_claimed + 1
        end
      end
    end
    looked = looked + #ids
    left = left - #ids
    if count_claimed < most then flush_indexes() end
  end
  if looked > count_claimed then
    -- What was put off or expired may have let others return.
    flush_indexes()
    left = call('ZCARD', line)
  end
  if count_claimed > 0 then count_claims(queue, limits, count_claimed) end
  if left == 0 then call('UNLINK', P .. ':v:' .. queue) end
  -- Another worker may take what is left and may begin: the token this one took was the only one.
  wakes[queue] = left > 0 and room > count_claimed or nil
  return count_claimed
end

if wants_from <= #ARGV then
  local memo, slot = P .. ':k:' .. worker, int(call_number % CALLS_KEPT)
  local made, members = string.match(call('HGET', memo, slot) or '', '^(%d+) (.*)$')
  if tonumber(made) == call_number then
    for id, attempt in string.gmatch(members, '(%S+):(%d+)') do
      local job = load(id)
      if job and job.s == 'running' and job.a == tonumber(attempt) then add_claim(job) end
    end
  else
    for i = wants_from, #ARGV, 2 do
      most = most - claim_from(ARGV[i], math.min(most, tonumber(ARGV[i + 1])))
    end
    if #taken > 1 then
      call('HSET', memo, slot, table.concat(taken, ' '))
      call('PEXPIRE', memo, CALLS_KEPT_MS)
    end
  end
end
save_buckets()
save_all()
for to, from in runs(specs) do
  for i, spec in ipairs(call('MGET', unpack(specs, from, to))) do claimed[(from + i - 1) * 5] = spec end
end

-- The results that the inputs of claimed jobs refer to.
local results = {}
for at, number in ipairs(needing) do results[at] = results_for(number, claimed[number * 5]) end

local next_due = -1
-- No lease is reaped before the time kept in :meta, so nothing is due before it either.
for index, not_before in pairs({ [':due'] = 0, [':lease'] = REAP_FROM, [':gates'] = 0, [':exp'] = 0 }) do
  local first = call('ZRANGE', P .. index, 0, 0, 'WITHSCORES')
  if first[2] then
    local wait = math.max(0, tonumber(first[2]) - NOW, not_before - NOW)
    if next_due < 0 or wait < next_due then next_due = wait end
  end
end
return { int(NOW), int(next_due), codes, claimed, results }
