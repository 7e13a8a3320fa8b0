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
--   :j:<id>      hash    what changes of a job (short fields, stays a listpack)     :m:<id>  string  what never changes (JSON)
--   :x:<id>      hash    p progress, r result, er error (JSON)                      :e:<id>  list    the log, whole envelopes
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
-- Fields of :j:  s state, q queue, p priority, ow owner scope, c created, u updated (when not c), d due, st started, f finished (ms),
--   e epoch, n head, fk forks "epoch:head,…", b bytes in the log, lk "base:size" of a progress entry at its end, a attempt, t tries,
--   ma max attempts, lw lost workers, w last write number, wk worker, cb who asked to cancel, cr why (JSON), kc kf retention (when unusual)

local P = KEYS[1]
local call = redis.call

local LOG_MAX_ENTRIES, LOG_MAX_BYTES = 10000, 4194304
local FORKS_KEPT = 16
local FEED_MAX_ENTRIES, FEED_DATA_MAX_BYTES = 1000, 8192
-- A feed's numbering outlives its log by far, so that no position of an expired log, "0:0" included, looks complete.
local FEED_LOG_KEPT_MS, FEED_HEAD_KEPT_MS, FEED_TTL_SET_EVERY_MS = 2592000000, 34560000000, 86400000
local RESULT_INLINE_MAX_BYTES = 65536
local COMPLETED_KEPT_MS, FAILED_KEPT_MS = 604800000, 2592000000
local MAX_ARGS = 2000 -- Lua cannot unpack more than some 8,000 values

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

local function int(x) return string.format('%.0f', x) end

local function read_clock()
  local t = call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local seen = tonumber(call('GET', P .. ':clock') or 0)
  if now <= seen then return seen end
  call('SET', P .. ':clock', int(now))
  return now
end

-- Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
local function iso(ms)
  local s = math.floor(ms / 1000)
  local days = math.floor(s / 86400)
  local rest = s - days * 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', yoe + era * 400 + (month <= 2 and 1 or 0), month,
    doy - math.floor((153 * mp + 2) / 5) + 1, math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, ms - s * 1000)
end

local META = call('HMGET', P .. ':meta', 'gen', 'reap')
if not META[1] then return redis.error_reply('DETACHED the store was emptied; attach again') end
local GEN = META[1]
local NOW = read_clock()
local ISO = iso(NOW)

local FIELDS = { 's', 'q', 'p', 'e', 'n', 'a', 't', 'w', 'ow', 'ma', 'lw', 'cb', 'cr', 'wk', 'fk', 'b', 'lk', 'st', 'kc', 'kf' }
local NUMBERS = { p = 1, n = 1, a = 1, t = 1, w = 1, ma = 1, lw = 1, b = 1, st = 1, kc = COMPLETED_KEPT_MS, kf = FAILED_KEPT_MS }
local jobs = {}

local function load(id)
  local job = jobs[id]
  if job ~= nil then return job end
  local v = call('HMGET', P .. ':j:' .. id, unpack(FIELDS))
  if not v[1] then
    jobs[id] = false
    return false
  end
  job = { id = id, changed = {} }
  for i, f in ipairs(FIELDS) do
    if NUMBERS[f] then job[f] = tonumber(v[i] or 0) else job[f] = v[i] or '' end
  end
  jobs[id] = job
  return job
end

local function set(job, field, value)
  job[field] = value
  job.changed[field] = true
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
        if #added >= MAX_ARGS then
          call('ZADD', key, unpack(added))
          added = {}
        end
      else
        removed[#removed + 1] = member
        if #removed >= MAX_ARGS then
          call('ZREM', key, unpack(removed))
          removed = {}
        end
      end
    end
    if #added > 0 then call('ZADD', key, unpack(added)) end
    if #removed > 0 then call('ZREM', key, unpack(removed)) end
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
  call('SPUBLISH', feed.channel, feed.e .. ':' .. int(feed.n) .. '\n' .. text)
end

local function save_feed(feed)
  local key, log = P .. ':f:' .. feed.name, P .. ':fl:' .. feed.name
  local added = #feed.new
  local length
  for from = math.max(1, added - FEED_MAX_ENTRIES + 1), added, MAX_ARGS do
    length = call('RPUSH', log, unpack(feed.new, from, math.min(added, from + MAX_ARGS - 1)))
  end
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
local function publish_progress(job)
  if not job.unpublished then return end
  for _, feed in ipairs(feeds_of(job)) do call('SPUBLISH', feed.channel, '-\n' .. job.unpublished) end
  job.unpublished = nil
end

local function save_all()
  flush_indexes()
  for id, job in pairs(jobs) do
    if job then
      publish_progress(job)
      if next(job.changed) then
        local argv = {}
        if not job.is_new then argv = { 'u', int(NOW) } end
        for f in pairs(job.changed) do
          local v = job[f]
          argv[#argv + 1] = f
          argv[#argv + 1] = type(v) == 'number' and int(v) or v
        end
        job.changed = {}
        call('HSET', P .. ':j:' .. id, unpack(argv))
      end
    end
  end
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
  if job.e ~= GEN then
    set(job, 'fk', add_fork(job.fk, job.e, job.n))
    set(job, 'e', GEN)
    set(job, 'lk', '')
  end
  local n = job.n + 1
  set(job, 'n', n)
  local head = '{"job_id":"' .. job.id .. '","epoch":"' .. job.e .. '","seq":' .. int(n)
  local before_data = ',"kind":"' .. kind .. '","at":"' .. ISO .. '","attempt":' .. int(job.a) .. ',"data":'
  local text = head .. before_data .. data .. '}'
  local log = P .. ':e:' .. job.id
  if kind == 'progress' then
    -- A progress event takes the place of the one right before it, and says so by prev: the newest is never folded away.
    local base, size = string.match(job.lk, '^(%d+):(%d+)$')
    local stored = text
    if base then
      stored = head .. ',"prev":' .. base .. before_data .. data .. '}'
      call('LSET', log, -1, stored)
      set(job, 'b', job.b + #stored - tonumber(size))
      trim(job, call('LLEN', log))
    else
      base = int(n - 1)
      set(job, 'b', job.b + #stored)
      trim(job, call('RPUSH', log, stored))
    end
    set(job, 'lk', base .. ':' .. #stored)
    call('HSET', P .. ':x:' .. job.id, 'p', data)
  else
    if job.lk ~= '' then set(job, 'lk', '') end
    set(job, 'b', job.b + #text)
    trim(job, call('RPUSH', log, text))
  end
  call('SPUBLISH', P .. ':c:' .. job.id, text)
  if kind == 'progress' then
    job.unpublished = text
  elseif kind ~= 'log' and kind ~= 'output' then
    publish_progress(job)
    if kind == 'completed' and #data > FEED_DATA_MAX_BYTES then
      text = head .. before_data .. '{"result_ref":"/api/jobs/' .. job.id .. '/result","duration_s":' ..
        string.match(data, '"duration_s":([%d%.]+)}$') .. '}}'
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
  emit(job, 'queued', '{"queue":' .. cjson.encode(job.q) .. ',"priority":' .. int(job.p) .. (reason or '') .. '}')
  wakes[job.q] = true
end

local function enter_due(job, state, due_ms, data)
  set(job, 'd', due_ms)
  become(job, state, due_ms)
  emit(job, state, data)
end

local function duration(job)
  if job.st == 0 then return '0' end
  return string.format('%.3f', math.max(0, NOW - job.st) / 1000)
end

-- End a job. `event` is complete data for the terminal event; nothing may follow it.
local function terminate(job, state, event)
  local kept_ms = state == 'completed' and job.kc or job.kf
  if kept_ms == 0 then kept_ms = state == 'completed' and COMPLETED_KEPT_MS or FAILED_KEPT_MS end
  become(job, state, NOW + kept_ms)
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
end
