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

local function save_all()
  flush_indexes()
  for id, job in pairs(changed) do
    publish_progress(job)
    save_record(id, job)
  end
  changed = {}
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

local function trim(job, length)
  local log = P .. ':e:' .. job.id
  while length > 1 and (length > LOG_MAX_ENTRIES or job.b > LOG_MAX_BYTES) do
    local gone = call('LPOP', log)
    length = length - 1
    set(job, 'b', job.b - #gone)
  end
end

local opened -- jobs whose first event was put into the log before their second one

begin_with(function() opened = {} end)

-- Put the first event into the log while the record still says what it says; an event must follow in the same script.
local function keep_opening(job)
  if job.n ~= 1 or opened[job.id] then return end
  call('RPUSH', P .. ':e:' .. job.id, opening_event(job.id, job))
  opened[job.id] = true
end

-- Append one event: log first, then the job's channel, then its feeds. Returns nothing; the job's head has moved by one.
local function emit(job, kind, data)
  local id, n = job.id, job.n + 1
  local log = P .. ':e:' .. id
  local opening = n == 2 and not opened[id] and opening_event(id, job)
  if job.e ~= GEN then
    set(job, 'fk', add_fork(job.fk, job.e, job.n))
    set(job, 'e', GEN)
    set(job, 'lk', nil)
  end
  set(job, 'n', n)
  local head, tail = envelope(id, job, kind, ISO, data)
  local text = head .. tail
  if kind == 'progress' then
    -- A progress event takes the place of the one right before it, and says so by prev: the newest is never folded away.
    local base, size = string.match(job.lk, '^(%d+):(%d+)$')
    local stored = text
    if base then
      stored = head .. ',"prev":' .. base .. tail
      call('LSET', log, -1, stored)
      set(job, 'b', job.b + #stored - tonumber(size))
      if job.b > LOG_MAX_BYTES then trim(job, call('LLEN', log)) end
    else
      base = int(n - 1)
      set(job, 'b', job.b + #stored)
      trim(job, call('RPUSH', log, stored))
    end
    set(job, 'lk', base .. ':' .. #stored)
    call('HSET', P .. ':x:' .. id, 'p', data)
  else
    set(job, 'lk', nil)
    set(job, 'b', job.b + #text)
    if opening then
      call('RPUSH', log, opening, text)
    elseif n > 1 then
      trim(job, call('RPUSH', log, text))
    end
  end
  publish(P .. ':c:' .. id, false, text)
  if kind == 'progress' then
    unpublished[id] = text
  elseif kind ~= 'log' and kind ~= 'output' then
    publish_progress(job)
    if kind == 'completed' and #data > FEED_DATA_MAX_BYTES then
      data = '{"result_ref":"/api/jobs/' .. id .. '/result","duration_s":' .. string.match(data, '"duration_s":([%d%.]+)}$') .. '}'
      head, tail = envelope(id, job, kind, ISO, data)
      text = head .. tail
    end
    for _, feed in ipairs(feeds_of(job)) do feed_append(feed, text) end
  end
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
  put(key, member, score)
  if former == 'running' then
    count(':qn', job.q, -1)
    if job.ck or job.dp then leave_gates(job) end
  end
  if job.x then put(P .. ':exp', job.id, (state == 'queued' or state == 'scheduled' or state == 'retrying') and job.x) end
end

-- The job goes to the end of its owner's line, or first of all of its priority.
local function enter_queue(job, reason, is_first)
  if job.fl then return begin_flow(job) end
  become(job, 'queued', place_in_line(job, is_first))
  emit(job, 'queued', queued_data(job, reason))
  wakes[job.q] = true
end

local function enter_due(job, state, due_ms, data)
  set(job, 'd', due_ms)
  become(job, state, due_ms)
  emit(job, state, data or scheduled_data(job))
end

local function duration(job)
  if job.st == 0 then return '0' end
  return string.format('%.3f', math.max(0, NOW - job.st) / 1000)
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
  call('HSET', P .. ':x:' .. job.id, 'r', result)
  local text = '"result":' .. result
  if #result > RESULT_INLINE_MAX_BYTES then text = '"result_ref":"/api/jobs/' .. job.id .. '/result"' end
  terminate(job, 'completed', '{' .. text .. ',"duration_s":' .. duration(job) .. '}')
end

local DEAD_GROUPS_MAX = 1000

-- Put a failed job among the dead letters, with those whose error looks the same: of one type, code and kind, and with a message
-- that differs in numbers and long hexadecimal words alone.
local function bury(job, err)
  local type = string.match(call('GET', P .. ':m:' .. job.id) or '', '"type":"([^"]*)"') or ''
  local is_read, found = pcall(cjson.decode, err)
  if not is_read or not found or found == cjson.null then found = {} end
  local message = string.gsub(string.gsub(tostring(found.message), '%x%x%x%x%x%x%x%x[%x-]*', '#'), '%d+', '#')
  local print = string.sub(redis.sha1hex(table.concat({ type, tostring(found.code), tostring(found.type), message }, '\n')), 1, 16)
  local group = print .. ':' .. job.q
  if call('HEXISTS', P .. ':dg', group) == 0 then
    if call('HLEN', P .. ':dg') >= DEAD_GROUPS_MAX then group, found, type = 'other:' .. job.q, {}, '' end
    call('HSETNX', P .. ':dg', group, cjson.encode({
      queue = job.q, type = type, code = found.code or '', error_type = found.type or '', message = found.message or '', first_ms = NOW,
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
