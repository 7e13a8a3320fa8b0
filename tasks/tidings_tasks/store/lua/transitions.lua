-- The state machine, the one way to append an event, and the one place where changes are written.
local LOG_MAX_ENTRIES, LOG_MAX_BYTES = 10000, 4194304
local RESULT_INLINE_MAX_BYTES = 65536

local EDGES = {
  [''] = 'scheduled queued',
  scheduled = 'queued cancelled failed',
  queued = 'running scheduled cancelled failed',
  running = 'retrying queued waiting_input cancelled completed failed',
  retrying = 'queued cancelled failed',
  waiting_input = 'queued cancelled',
  completed = '', failed = '', cancelled = '',
}
local TERMINAL = { completed = 1, failed = 1, cancelled = 1 }

local opened -- jobs whose first event was put into the log before their second one
local folds -- jobs with progress that is not in their logs yet -> its data, and the head before it

begin_with(function() opened, folds = {}, {} end)

local function trim(job, length)
  local log = P .. ':e:' .. job.id
  while length > 1 and (length > LOG_MAX_ENTRIES or job.b > LOG_MAX_BYTES) do
    local gone = call('LPOP', log)
    length = length - 1
    job.b = job.b - #gone
  end
end

-- Put the first events into the log while the record still says what they say; another one must follow in the same script.
local function keep_opening(job)
  local id = job.id
  if job.dl then
    call('RPUSH', P .. ':e:' .. id, opening_event(id, job), started_event(id, job))
    job.dl = nil
  elseif job.n == 1 and not opened[id] then
    call('RPUSH', P .. ':e:' .. id, opening_event(id, job))
    opened[id] = true
  end
end

local function enter_generation(job)
  job.fk = add_fork(job.fk, job.e, job.n)
  job.e = GEN
  job.lb, job.ls = nil, nil
end

-- Put a script's run of progress into the log: one entry, in the place of progress right before it, and it says so by prev. The newest
-- is never folded away.
local function save_fold(job, fold)
  local id, log = job.id, P .. ':e:' .. job.id
  folds[id] = nil
  local base = job.lb
  local prev = base or job.n - fold.head > 1 and fold.head
  local stored = prev and folded_envelope(id, GEN, job.n, prev, 'progress', ISO, fold.attempt, fold.data)
    or envelope(id, GEN, job.n, 'progress', ISO, fold.attempt, fold.data)
  job.b = job.b + #stored - (base and job.ls or 0)
  if base then
    call('LSET', log, -1, stored)
    if job.b > LOG_MAX_BYTES then trim(job, call('LLEN', log)) end
  else
    local length = fold.opening and call('RPUSH', log, fold.opening, fold.second, stored) or call('RPUSH', log, stored)
    if length > LOG_MAX_ENTRIES or job.b > LOG_MAX_BYTES then trim(job, length) end
  end
  job.lb, job.ls = base or fold.head, #stored
  for _, feed in ipairs(feeds_of(job)) do
    if feed.is_heard then return pass_progress(job, envelope(id, GEN, job.n, 'progress', ISO, fold.attempt, fold.data)) end
  end
end

local function emit_progress(job, data)
  local id, fold = job.id, folds[job.id]
  if fold then
    fold.data = data
  else
    fold = { data = data, head = job.n, attempt = job.a }
    folds[id] = fold
    if job.dl then
      fold.opening, fold.second = opening_event(id, job), started_event(id, job)
      job.dl = nil
    end
    if job.e ~= GEN then enter_generation(job) end
  end
  job.n = job.n + 1
  changed[id] = job
  tell(id, false, job.n, job.a, data)
end

-- Append one event: log first, then the job's channel, then its feeds. Returns nothing; the job's head has moved by one.
local function emit(job, kind, data)
  if kind == 'progress' then return emit_progress(job, data) end
  local id, fold = job.id, folds[job.id]
  if fold then
    save_fold(job, fold)
    call('HSET', P .. ':x:' .. id, 'p', fold.data)
  elseif job.lb then
    call('HSET', P .. ':x:' .. id, 'p', data_of(call('LINDEX', P .. ':e:' .. id, -1)))
  end
  local n = job.n + 1
  local opening, second
  if job.dl then
    opening, second = opening_event(id, job), started_event(id, job)
    job.dl = nil
  elseif n == 2 and not opened[id] then
    opening = opening_event(id, job)
    -- Compared, since other releases may say more, and what is made later must be what was told.
    job.dl = kind == 'started' and job.e == GEN and data == first_start(job) or nil
  end
  if job.e ~= GEN then enter_generation(job) end
  job.n = n
  job.lb, job.ls = nil, nil
  local text = envelope(id, GEN, n, kind, ISO, job.a, data)
  job.b = job.b + #text
  changed[id] = job
  if n > 1 and not job.dl then
    local log, length = P .. ':e:' .. id, nil
    if second then
      length = call('RPUSH', log, opening, second, text)
    elseif opening then
      length = call('RPUSH', log, opening, text)
    else
      length = call('RPUSH', log, text)
    end
    if length > LOG_MAX_ENTRIES or job.b > LOG_MAX_BYTES then trim(job, length) end
  end
  if n > 1 then tell(id, text, 0, 0, '') end -- nobody knows of a new job yet
  if kind ~= 'log' and kind ~= 'output' then
    if kind == 'completed' and #data > FEED_DATA_MAX_BYTES then
      data = '{"result_ref":"/api/jobs/' .. id .. '/result","duration_s":' .. string.match(data, '"duration_s":([%d%.]+)}$') .. '}'
      text = envelope(id, GEN, n, kind, ISO, job.a, data)
    end
    for _, feed in ipairs(feeds_of(job)) do feed_append(feed, text) end
  end
end

local function save_all()
  flush_indexes()
  for id, fold in pairs(folds) do save_fold(changed[id], fold) end
  for id, job in pairs(changed) do save_record(id, job) end
  changed = {}
  if NEXT then put_text(P .. ':next', int(NEXT)) end
  for to, from in runs(texts) do call('MSET', unpack(texts, from, to)) end
  texts = {}
  for _, feed in pairs(feeds) do
    if feed.new then save_feed(feed) end
  end
  for hash, fields in pairs(counts) do
    for field, difference in pairs(fields) do
      if difference ~= 0 and call('HINCRBY', P .. hash, field, difference) == 0 then call('HDEL', P .. hash, field) end
    end
  end
  counts = {}
  for queue in pairs(wakes) do
    local list = P .. ':wake:' .. queue
    if call('EXISTS', list) == 0 then call('LPUSH', list, '1') end
  end
  publish_all()
end

-- The sorted set in which a job in this state stands, and under which name.
local function index_of(job)
  if job.s == 'queued' then return job.pk and P .. ':p:' .. job.pk or P .. ':q:' .. job.q, job.id end
  if job.s == 'scheduled' or job.s == 'retrying' then return P .. ':due', job.id end
  if job.s == 'running' then return P .. ':lease', job.id .. ':' .. int(job.a) end
  if TERMINAL[job.s] then return P .. ':done', job.id end
end

-- Set by gates.lua: what it means to the gates that a job ran and does not any more, or waited and will not pass them.
local leave_gates, give_way
-- Set by flows.lua: begin a flow, end what is kept of it and tell its own flow, and stop its steps.
local begin_flow, end_part, stop_flow

-- Take an edge of the state machine: the job leaves one index for another, and is counted anew. `score` is its place there.
local function become(job, state, score)
  local former, owner = job.s, ':n:' .. job.ow
  if not string.find(EDGES[former], state, 1, true) then error('illegal transition ' .. former .. ' -> ' .. state .. ' of ' .. job.id) end
  local key, member = index_of(job)
  if former == 'queued' then
    local gate = job.pk
    count(':qn', 'w:' .. job.q, -1)
    if gate then set(job, 'pk', nil) elseif state ~= 'running' then leave_line(job) end
    put(key, member, false)
    if job.ck and state ~= 'running' and gate ~= job.ck then give_way(job) end
  elseif key then
    put(key, member, false)
  end
  if former ~= '' then count(owner, former, -1) end
  set(job, 's', state)
  count(owner, state, 1)
  if state == 'queued' then count(':qn', 'w:' .. job.q, 1) elseif state == 'running' then count(':qn', job.q, 1) end
  key, member = index_of(job)
  if state == 'queued' then put(key, member, score) else put_timed(key, member, score) end
  if former == 'running' then
    count(':qn', job.q, -1)
    if job.ck or job.dp then leave_gates(job) end
  end
  if job.x then
    if state == 'queued' or state == 'scheduled' or state == 'retrying' then
      put_timed(P .. ':exp', job.id, job.x)
    else
      put(P .. ':exp', job.id, false)
    end
  end
end

-- The job goes to the end of its owner's line, or first of all of its priority.
local function enter_queue(job, reason, is_first)
  if job.fl then return begin_flow(job) end
  become(job, 'queued', place_in_line(job, is_first))
  emit(job, 'queued', queued_data(job, reason))
  wakes[job.q] = true
end

local function enter_due(job, state, due_ms, data)
  if job.dl then keep_opening(job) end
  set(job, 'd', due_ms)
  become(job, state, due_ms)
  emit(job, state, data or scheduled_data(job))
end

local function duration(job)
  if job.st == 0 then return '0' end
  return seconds(math.max(0, NOW - job.st))
end

-- End a job. `event` is complete data for the terminal event; nothing may follow it.
local function terminate(job, state, event)
  become(job, state, NOW + (state == 'completed' and job.kc or job.kf))
  set(job, 'f', NOW)
  emit(job, state, event)
  for _, feed in ipairs(feeds_of(job)) do put(feed.open, job.id, false) end
  put(P .. ':o:' .. job.ow, job.id, 0)
  if job.dk then
    local key = P .. ':u:' .. job.ow .. ':' .. job.dk
    if call('GET', key) == job.id then call('DEL', key) end
  end
  if job.pa or job.fl then end_part(job) end
end

local function complete(job, result)
  local text = '"result":' .. result
  if #result > RESULT_INLINE_MAX_BYTES then text = '"result_ref":"/api/jobs/' .. job.id .. '/result"' end
  -- Otherwise it stands in the log's last event; the results of a flow's parts are looked up by others.
  if #result > RESULT_INLINE_MAX_BYTES or job.pa or job.fl then call('HSET', P .. ':x:' .. job.id, 'r', result) end
  terminate(job, 'completed', '{' .. text .. ',"duration_s":' .. duration(job) .. '}')
end

local DEAD_GROUPS_MAX = 1000

-- Put a failed job among the dead letters, with those whose error looks the same: of one type, code and kind, and with a message
-- that differs in numbers and long hexadecimal words alone.
local function bury(job, err)
  local job_type = string.match(call('GET', P .. ':m:' .. job.id) or '', '"type":"([^"]*)"') or ''
  local is_read, found = pcall(cjson.decode, err)
  if not is_read or type(found) ~= 'table' then found = {} end
  local message = string.gsub(string.gsub(tostring(found.message), '%x%x%x%x%x%x%x%x[%x-]*', '#'), '%d+', '#')
  local print = string.sub(redis.sha1hex(table.concat({ job_type, tostring(found.code), tostring(found.type), message }, '\n')), 1, 16)
  local group = print .. ':' .. job.q
  if call('HEXISTS', P .. ':dg', group) == 0 then
    if call('HLEN', P .. ':dg') >= DEAD_GROUPS_MAX then group, found, job_type = 'other:' .. job.q, {}, '' end
    call('HSETNX', P .. ':dg', group, cjson.encode({
      queue = job.q, type = job_type, code = found.code or '', error_type = found.type or '', message = found.message or '', first_ms = NOW,
    }))
  end
  set(job, 'fp', group)
  put(P .. ':dead', job.id, NOW)
  put(P .. ':dl:' .. group, job.id, NOW)
end

-- Take a job out of the dead letters; it stays failed.
local function unbury(job)
  local group = job.fp
  set(job, 'fp', nil)
  put(P .. ':dead', job.id, false)
  put(P .. ':dl:' .. group, job.id, false)
  flush_indexes()
  if call('EXISTS', P .. ':dl:' .. group) == 0 then call('HDEL', P .. ':dg', group) end
end

local function fail(job, err, dead, stack)
  call('HSET', P .. ':x:' .. job.id, 'er', err)
  if stack then call('HSET', P .. ':x:' .. job.id, 'st', stack) end
  terminate(job, 'failed', '{"error":' .. err .. ',"duration_s":' .. duration(job) .. ',"dead":' .. (dead and 'true' or 'false') .. '}')
  if dead then bury(job, err) end
end

local EXPIRED = '{"code":"expired","type":"JobExpired","message":"the job was not begun before it expired"}'

local function expire(job) fail(job, EXPIRED, false) end

local function cancel_now(job, by, reason)
  terminate(job, 'cancelled', '{"by":' .. by .. ',"reason":' .. reason .. '}')
end

-- End a job that was asked to stop while it ran.
local function cancel_asked(job) cancel_now(job, job.cb, job.cr ~= '' and job.cr or 'null') end

local MAILBOX_MAX, MAILBOX_KEPT_MS = 1000, 60000

-- Cancel a job at once while it waits, and ask its worker while it runs; who asks and why are JSON. Asking twice changes nothing.
-- Returns cancelled | cancelling | terminal.
local function cancel(job, by, reason)
  if TERMINAL[job.s] then return 'terminal' end
  if job.s ~= 'running' then
    cancel_now(job, by, reason)
    return 'cancelled'
  end
  if job.cb == '' then
    set(job, 'cb', by)
    if reason ~= 'null' then set(job, 'cr', reason) end
    emit(job, 'cancelling', '{"by":' .. by .. '}')
    if job.fl then
      stop_flow(job, by, reason)
      return TERMINAL[job.s] and 'cancelled' or 'cancelling'
    end
    local mailbox = P .. ':mb:' .. job.wk
    call('RPUSH', mailbox, 'cancel ' .. job.id .. ':' .. int(job.a))
    call('LTRIM', mailbox, -MAILBOX_MAX, -1)
    call('PEXPIRE', mailbox, MAILBOX_KEPT_MS)
  end
  return 'cancelling'
end

-- Remove an ended job and all that is kept of it.
local function purge(job)
  if job.fp then unbury(job) end
  put(P .. ':done', job.id, false)
  put(P .. ':o:' .. job.ow, job.id, false)
  count(':n:' .. job.ow, job.s, -1)
  call('UNLINK', P .. ':j:' .. job.id, P .. ':m:' .. job.id, P .. ':x:' .. job.id, P .. ':e:' .. job.id)
  jobs[job.id] = false
  changed[job.id] = nil
end
