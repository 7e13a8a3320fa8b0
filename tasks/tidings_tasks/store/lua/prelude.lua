-- What every writing script begins with: the clock, the generation, the state machine, and the one way to append an event.
--
-- KEYS[1]  the shard's prefix, "<prefix>:{sN}"; every other key is made from it, so all lie in one cluster slot.
-- A script loads each job once (load), changes it in memory (set, become, emit), and writes it back once (save_all). Indexes,
-- counts and feeds are changed in memory too: what many jobs add to one key is one command. Before an index is read,
-- flush_indexes. Arguments are checked before the first change, since a script that fails half-way is not undone.
-- All scripts are idempotent: a client repeats a command whose reply was lost, and the repeat must change nothing.
--
--   :meta        hash    format, shards, run (the node's run id), gen (the generation), reap (no lease is reaped before)
--   :clock       string  the newest time any script has seen, ms; time never goes back
--   :order       string  counter that makes a queue first-in first-out
--   :j:<id>      string  the record: what changes of a job (MessagePack)            :m:<id>  string  what never changes (JSON)
--   :x:<id>      hash    p progress, r result, er error (JSON)                      :e:<id>  list    the log: whole envelopes,
--                                                                                   from the second event on
--   :q:<queue>   zset    queued jobs by priority, then order                        :wake:<queue>  list, at most one token
--   :due         zset    scheduled and retrying jobs by due time, ms                :lease   zset    <id>:<attempt> by expiry, ms
--   :done        zset    ended jobs by the time their retention ends, ms            :o:<owner>  zset  an owner's ended jobs, by id
--   :w:<feed>    zset    a feed's open jobs, by id; o:<owner>, g:<org>, all         :n:<owner>  hash  an owner's jobs by state
--   :f:<feed>    hash    e epoch, g generation, n head, fk forks, x TTL set at      :fl:<feed>  list  the feed's log
--   :i:<owner>:<key>  string  "<job id> <fingerprint>" of an idempotency key
--   :t:<id>      string  empty, for minutes: this job was deleted, and a late repeat must not bring it back
--   :k:<worker>  hash    its last claiming calls: call number modulo 8, then "<call> <id>:<attempt> …"
--   :mb:<worker> list    messages to one worker
--   channels     :c:<id> a job's envelopes        :fc:<feed> "<position or ->\n<envelope>"
--
-- The record leaves out what is as it always begins. Its fields:
--   s state, q queue, p priority, ow owner scope, ma max attempts, c created, u updated (when not c), d due, st started, f finished (ms),
--   e epoch, n head, fk forks "epoch:head,…", b bytes in the log, lk "base:size" of a progress entry at its end, a attempt, t tries,
--   lw lost workers, w last write number, wk worker, cb who asked to cancel, cr why (JSON texts), kc kf retention (when unusual)

local LOG_MAX_ENTRIES, LOG_MAX_BYTES = 10000, 4194304
local FORKS_KEPT = 16
local FEED_MAX_ENTRIES, FEED_DATA_MAX_BYTES = 1000, 8192
-- A feed's numbering outlives its log by far, so that no position of an expired log, "0:0" included, looks complete.
local FEED_LOG_KEPT_MS, FEED_HEAD_KEPT_MS, FEED_TTL_SET_EVERY_MS = 2592000000, 34560000000, 86400000
local RESULT_INLINE_MAX_BYTES = 65536
local MAX_ARGS = 2000 -- even; Lua cannot unpack more than some 8,000 values

local EDGES = {
  [''] = { scheduled = 1, queued = 1 },
  scheduled = { queued = 1, cancelled = 1, failed = 1 },
  queued = { running = 1, cancelled = 1, failed = 1 },
  running = { retrying = 1, queued = 1, waiting_input = 1, cancelled = 1, completed = 1, failed = 1 },
  retrying = { queued = 1, cancelled = 1, failed = 1 },
  waiting_input = { queued = 1, cancelled = 1 },
  completed = {}, failed = {}, cancelled = {},
}
local TERMINAL = { completed = 1, failed = 1, cancelled = 1 }

local function read_clock()
  local t = call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local seen = tonumber(call('GET', P .. ':clock') or 0)
  if now <= seen then return seen end
  call('SET', P .. ':clock', int(now))
  return now
end

local META = call('HMGET', P .. ':meta', 'gen', 'reap')
if not META[1] then return redis.error_reply('DETACHED the store was emptied; attach again') end
local GEN = META[1]
local NOW = read_clock()
local ISO = iso(NOW)

local jobs, changed = {}, {}

-- Call for each run of up to MAX_ARGS of a list's values.
local function in_runs(values, use)
  for from = 1, #values, MAX_ARGS do use(from, math.min(#values, from + MAX_ARGS - 1)) end
end

local function load_all(ids)
  local missing, keys = {}, {}
  for _, id in ipairs(ids) do
    if jobs[id] == nil then
      jobs[id] = false
      missing[#missing + 1] = id
      keys[#keys + 1] = P .. ':j:' .. id
    end
  end
  in_runs(keys, function(from, to)
    for i, text in ipairs(call('MGET', unpack(keys, from, to))) do
      if text then
        local job, id = decode_record(text), missing[from + i - 1]
        job.id = id
        jobs[id] = job
      end
    end
  end)
end

local function load(id)
  if jobs[id] == nil then load_all({ id }) end
  return jobs[id]
end

local function set(job, field, value)
  job[field] = value
  changed[job.id] = job
end

local texts = {} -- keys and values to be set together

local function put_text(key, value)
  texts[#texts + 1] = key
  texts[#texts + 1] = value
end

local function save_record(id, job)
  if NOW ~= job.c then job.u = NOW end
  job.id = nil
  put_text(P .. ':j:' .. id, cmsgpack.pack(job))
  job.id = id
end

local messages = {} -- channel, position in a feed or false, envelope, and again

local function publish(channel, position, text)
  local at = #messages
  messages[at + 1], messages[at + 2], messages[at + 3] = channel, position, text
end

-- Only what somebody listens to is sent: subscribers are on the node that runs the scripts.
local function publish_all()
  local channels, listeners = {}, {}
  for i = 1, #messages, 3 do
    local channel = messages[i]
    if not listeners[channel] then
      listeners[channel] = 0
      channels[#channels + 1] = channel
    end
  end
  in_runs(channels, function(from, to)
    local found = call('PUBSUB', 'SHARDNUMSUB', unpack(channels, from, to))
    for i = 1, #found, 2 do listeners[found[i]] = found[i + 1] end
  end)
  for i = 1, #messages, 3 do
    local channel, position, text = messages[i], messages[i + 1], messages[i + 2]
    if listeners[channel] > 0 then call('SPUBLISH', channel, position and position .. '\n' .. text or text) end
  end
  messages = {}
end

local function add_fork(forks, epoch, head)
  forks = (forks ~= '' and forks .. ',' or '') .. epoch .. ':' .. int(head)
  local _, commas = string.gsub(forks, ',', '')
  if commas >= FORKS_KEPT then forks = string.match(forks, '^[^,]*,(.*)$') end
  return forks
end

-- Members to be put into sorted sets (a score) or taken out (false): key -> member -> score.
local indexes = {}

local function put(key, member, score)
  local members = indexes[key]
  if not members then
    members = {}
    indexes[key] = members
  end
  members[member] = score
end

local function flush_indexes()
  for key, members in pairs(indexes) do
    local added, removed = {}, {}
    for member, score in pairs(members) do
      if score then
        added[#added + 1] = int(score)
        added[#added + 1] = member
      else
        removed[#removed + 1] = member
      end
    end
    in_runs(added, function(from, to) call('ZADD', key, unpack(added, from, to)) end)
    in_runs(removed, function(from, to) call('ZREM', key, unpack(removed, from, to)) end)
  end
  indexes = {}
end

local counts = {} -- owner -> state -> difference

local function count(owner, state, difference)
  local states = counts[owner]
  if not states then
    states = {}
    counts[owner] = states
  end
  states[state] = (states[state] or 0) + difference
end

local wakes = {} -- queues whose waiting worker is to look again

local order

local function next_order()
  order = (order or tonumber(call('GET', P .. ':order') or 0)) + 1
  return order
end

local feeds = {}
local feeds_of_owner = {}

local function feeds_of(job)
  local found = feeds_of_owner[job.ow]
  if not found then
    local names = { 'o:' .. job.ow, 'all' }
    local org = string.match(job.ow, '^([^/]+)/')
    if org then names[3] = 'g:' .. org end
    found = {}
    for i, name in ipairs(names) do
      feeds[name] = feeds[name] or { name = name, open = P .. ':w:' .. name, channel = P .. ':fc:' .. name }
      found[i] = feeds[name]
    end
    feeds_of_owner[job.ow] = found
  end
  return found
end

-- A feed numbers its entries without folding, so entry i of n from the end has seq head - i + 1.
local function feed_append(feed, text)
  if not feed.new then
    local v = call('HMGET', P .. ':f:' .. feed.name, 'n', 'e', 'g', 'fk', 'x')
    feed.n, feed.e, feed.fk, feed.ttl_set_ms = tonumber(v[1] or 0), v[2], v[4] or '', tonumber(v[5] or 0)
    if v[3] ~= GEN then
      if feed.e then feed.fk = add_fork(feed.fk, feed.e, feed.n) end
      feed.e = GEN .. '_' .. string.format('%x', NOW)
    end
    feed.new = {}
  end
  feed.n = feed.n + 1
  feed.new[#feed.new + 1] = text
  publish(feed.channel, feed.e .. ':' .. int(feed.n), text)
end

local function save_feed(feed)
  local key, log = P .. ':f:' .. feed.name, P .. ':fl:' .. feed.name
  local added = #feed.new
  local length = call('RPUSH', log, unpack(feed.new, math.max(1, added - FEED_MAX_ENTRIES + 1)))
  if length > FEED_MAX_ENTRIES then call('LTRIM', log, -FEED_MAX_ENTRIES, -1) end
  call('HSET', key, 'n', int(feed.n), 'e', feed.e, 'g', GEN, 'fk', feed.fk)
  if length <= added or NOW - feed.ttl_set_ms >= FEED_TTL_SET_EVERY_MS then
    call('HSET', key, 'x', int(NOW))
    call('PEXPIRE', key, FEED_HEAD_KEPT_MS)
    call('PEXPIRE', log, FEED_LOG_KEPT_MS)
  end
  feed.new = nil
end

-- A feed shows only a job's latest progress, so of one script's only the last is published there.
local unpublished = {}

local function publish_progress(job)
  local text = unpublished[job.id]
  if not text then return end
  for _, feed in ipairs(feeds_of(job)) do publish(feed.channel, '-', text) end
  unpublished[job.id] = nil
end

local function save_all()
  flush_indexes()
  for id, job in pairs(changed) do
    publish_progress(job)
    save_record(id, job)
  end
  changed = {}
  in_runs(texts, function(from, to) call('MSET', unpack(texts, from, to)) end)
  texts = {}
  for _, feed in pairs(feeds) do
    if feed.new then save_feed(feed) end
  end
  for owner, states in pairs(counts) do
    for state, difference in pairs(states) do
      if difference ~= 0 and call('HINCRBY', P .. ':n:' .. owner, state, difference) == 0 then
        call('HDEL', P .. ':n:' .. owner, state)
      end
    end
  end
  if order then call('SET', P .. ':order', int(order)) end
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

-- Append one event: log first, then the job's channel, then its feeds. Returns nothing; the job's head has moved by one.
local function emit(job, kind, data)
  local id, n = job.id, job.n + 1
  local log = P .. ':e:' .. id
  local opening = n == 2 and opening_event(id, job)
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
  if job.s == 'queued' then return P .. ':q:' .. job.q, job.id end
  if job.s == 'scheduled' or job.s == 'retrying' then return P .. ':due', job.id end
  if job.s == 'running' then return P .. ':lease', job.id .. ':' .. int(job.a) end
  if TERMINAL[job.s] then return P .. ':done', job.id end
end

-- Take an edge of the state machine: the job leaves one index for another, and is counted anew. `score` is its place there.
local function become(job, state, score)
  if not EDGES[job.s][state] then error('illegal transition ' .. job.s .. ' -> ' .. state .. ' of ' .. job.id) end
  local key, member = index_of(job)
  if key then put(key, member, false) end
  if job.s ~= '' then count(job.ow, job.s, -1) end
  set(job, 's', state)
  count(job.ow, state, 1)
  key, member = index_of(job)
  put(key, member, score)
end

-- The job goes to the end of its priority's line.
local function enter_queue(job, reason)
  become(job, 'queued', job.p * 281474976710656 + next_order())
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
end

local function fail(job, err, dead)
  call('HSET', P .. ':x:' .. job.id, 'er', err)
  terminate(job, 'failed', '{"error":' .. err .. ',"duration_s":' .. duration(job) .. ',"dead":' .. (dead and 'true' or 'false') .. '}')
end

local function cancel_now(job, by, reason)
  terminate(job, 'cancelled', '{"by":' .. by .. ',"reason":' .. reason .. '}')
end

-- End a job that was asked to stop while it ran.
local function cancel_asked(job) cancel_now(job, job.cb, job.cr ~= '' and job.cr or 'null') end

-- Remove an ended job and all that is kept of it.
local function purge(job)
  put(P .. ':done', job.id, false)
  put(P .. ':o:' .. job.ow, job.id, false)
  count(job.ow, job.s, -1)
  call('UNLINK', P .. ':j:' .. job.id, P .. ':m:' .. job.id, P .. ':x:' .. job.id, P .. ':e:' .. job.id)
  jobs[job.id] = false
  changed[job.id] = nil
end
