-- One step of a worker: its numbered writes in order, upkeep of the shard (due jobs, lapsed leases, retention), the next claims.
-- KEYS[1] shard prefix
-- ARGV  worker id, call number, lease_ms, number of writes W, how many jobs to claim at most,
--       W x {id, attempt, write number, verb, data (JSON), extra},
--       then {queue, how many wanted} in the order in which the worker prefers them; naming a queue, even with 0 wanted,
--       gives back the wake token that the worker may have taken, when jobs are left in it
--   verbs: progress | log | output      data is the event's data
--          complete                      data is the result
--          retry                         data is the error, extra the delay in ms; counts as a try
--          fail                          data is the error, extra "1" when it belongs among the dead letters
--          cancel                        data is the reason (JSON string or null)
--          release                       hand-back at shutdown; counts nothing
-- Returns {now ms, ms until something falls due (-1: nothing), {a code for each write}, {id, attempt, queue, tries, spec, ...}}
--   codes: 1 done | 2 done, and the job's cancellation was asked for | 3 a repeat, nothing changed | 0 refused: another attempt, or over
-- A repeat of a call (same worker and call number) is answered with the jobs it claimed the first time. Atomic.
local worker, call_number, lease_ms, writes, room = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local UPKEEP_BATCH = 50

local VERBS = {
  progress = function(job, data) emit(job, 'progress', data) end,
  log = function(job, data) emit(job, 'log', data) end,
  output = function(job, data) emit(job, 'output', data) end,
  complete = function(job, data)
    call('HSET', P .. ':x:' .. job.id, 'r', data)
    local result = '"result":' .. data
    if #data > RESULT_INLINE_MAX_BYTES then result = '"result_ref":"/api/jobs/' .. job.id .. '/result"' end
    terminate(job, 'completed', '{' .. result .. ',"duration_s":' .. duration(job) .. '}')
  end,
  retry = function(job, data, delay)
    if job.cb ~= '' then return cancel_now(job, job.cb, 'null') end
    set(job, 't', job.t + 1)
    become(job, 'retrying')
    set(job, 'd', NOW + tonumber(delay))
    call('HSET', P .. ':x:' .. job.id, 'er', data)
    call('ZADD', P .. ':due', int(job.d), job.id)
    emit(job, 'retrying', '{"error":' .. data .. ',"delay_s":' .. string.format('%.3f', delay / 1000) .. ',"next_attempt":' .. int(job.a + 1) .. '}')
  end,
  fail = function(job, data, dead)
    set(job, 't', job.t + 1)
    fail(job, data, dead == '1')
  end,
  cancel = function(job, data) cancel_now(job, job.cb ~= '' and job.cb or 'null', data) end,
  release = function(job)
    if job.cb ~= '' then return cancel_now(job, job.cb, 'null') end
    become(job, 'queued')
    place(job, '{"queue":"' .. job.q .. '","priority":' .. int(job.p) .. ',"reason":"shutdown"}')
  end,
}
local ENDS = { complete = 1, retry = 1, fail = 1, cancel = 1, release = 1 }

local codes = {}
local i = 6
for k = 1, writes do
  local id, attempt, number, verb = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]
  local job = load(id)
  if not job or job.a ~= attempt then
    codes[k] = 0
  elseif number <= job.w then
    codes[k] = 3
  elseif job.s ~= 'running' then
    codes[k] = 0
  else
    set(job, 'w', number)
    if ENDS[verb] then call('ZREM', P .. ':lease', id .. ':' .. int(attempt)) end
    VERBS[verb](job, ARGV[i + 4], ARGV[i + 5])
    codes[k] = job.cb ~= '' and 2 or 1
  end
  i = i + 6
end

for _, id in ipairs(call('ZRANGEBYSCORE', P .. ':due', '-inf', int(NOW), 'LIMIT', 0, UPKEEP_BATCH)) do
  call('ZREM', P .. ':due', id)
  local job = load(id)
  if job and (job.s == 'scheduled' or job.s == 'retrying') then
    become(job, 'queued')
    place(job)
  end
end

if NOW >= tonumber(META[2] or 0) then
  for _, member in ipairs(call('ZRANGEBYSCORE', P .. ':lease', '-inf', int(NOW), 'LIMIT', 0, UPKEEP_BATCH)) do
    call('ZREM', P .. ':lease', member)
    local id, attempt = string.match(member, '^(.*):(%d+)$')
    local job = load(id)
    if job and job.s == 'running' and job.a == tonumber(attempt) then
      set(job, 't', job.t + 1)
      set(job, 'lw', job.lw + 1)
      local err = '{"code":"worker_lost","type":"WorkerLost","message":"the worker that ran this job went away"}'
      if job.cb ~= '' then
        cancel_now(job, job.cb, 'null')
      elseif job.lw >= 3 or job.t >= job.ma then
        fail(job, err, true)
      else
        call('HSET', P .. ':x:' .. id, 'er', err)
        become(job, 'retrying')
        emit(job, 'retrying', '{"error":' .. err .. ',"delay_s":0,"next_attempt":' .. int(job.a + 1) .. '}')
        become(job, 'queued')
        place(job)
      end
    end
  end
end

for _, id in ipairs(call('ZRANGEBYSCORE', P .. ':done', '-inf', int(NOW), 'LIMIT', 0, UPKEEP_BATCH)) do
  call('ZREM', P .. ':done', id)
  local job = load(id)
  if job and TERMINAL[job.s] then purge(job) end
end

local claimed = {}
local memo = P .. ':k:' .. worker
local last = call('HMGET', memo, 'c', 'r')
if last[1] == call_number then
  for id, attempt in string.gmatch(last[2], '(%S+):(%d+)') do
    local job = load(id)
    if job and job.s == 'running' and job.a == tonumber(attempt) then
      local at = #claimed
      claimed[at + 1], claimed[at + 2], claimed[at + 3], claimed[at + 4] = id, job.a, job.q, job.t
      claimed[at + 5] = call('GET', P .. ':m:' .. id)
    end
  end
elseif i <= #ARGV then
  local members, leases = {}, {}
  local started = '{"worker":' .. cjson.encode(worker) .. ',"attempt":'
  while i < #ARGV do
    local queue, wanted = ARGV[i], math.min(room, tonumber(ARGV[i + 1]))
    i = i + 2
    local popped = wanted > 0 and call('ZPOPMIN', P .. ':q:' .. queue, wanted) or {}
    for k = 1, #popped, 2 do
      local id = popped[k]
      local job = load(id)
      if job and job.s == 'queued' then
        room = room - 1
        become(job, 'running')
        set(job, 'a', job.a + 1)
        set(job, 'w', 0)
        set(job, 'wk', worker)
        set(job, 'st', NOW)
        emit(job, 'started', started .. int(job.a) .. '}')
        local member = id .. ':' .. int(job.a)
        members[#members + 1] = member
        leases[#leases + 1] = int(NOW + lease_ms)
        leases[#leases + 1] = member
        local at = #claimed
        claimed[at + 1], claimed[at + 2], claimed[at + 3], claimed[at + 4] = id, job.a, job.q, job.t
        claimed[at + 5] = call('GET', P .. ':m:' .. id)
      end
    end
    -- Another worker may take what is left: the token this one took was the only one.
    if call('ZCARD', P .. ':q:' .. queue) > 0 then wake(queue) end
  end
  if #leases > 0 then call('ZADD', P .. ':lease', unpack(leases)) end
  if #members > 0 or last[1] then
    call('HSET', memo, 'c', call_number, 'r', table.concat(members, ' '))
    call('PEXPIRE', memo, 120000)
  end
end
save_all()

local next_due = -1
for _, key in ipairs({ ':due', ':lease' }) do
  local first = call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')
  if first[2] then
    -- No lease is reaped before the time kept in :meta, so nothing is due before it either.
    local at = key == ':lease' and math.max(tonumber(first[2]), tonumber(META[2] or 0)) or tonumber(first[2])
    local wait = math.max(0, at - NOW)
    if next_due < 0 or wait < next_due then next_due = wait end
  end
end
return { int(NOW), int(next_due), codes, claimed }
