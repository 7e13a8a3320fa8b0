-- What every writing script begins with: the clock, the generation, the state machine, and the one way to append an event.
--
-- KEYS[1]  the shard's prefix, "<prefix>:{sN}"; every other key is made from it, so all lie in one cluster slot.
-- A script loads each job once (load), changes it in memory (set, become, emit) and writes it back once (save_all).
-- All scripts are idempotent: a client repeats a command whose reply was lost, and the repeat must change nothing.
--
--   :meta        hash    format, shards, run (the node's run id), gen (the generation), reap (no lease is reaped before)
--   :clock       string  the newest time any script has seen, ms; time never goes back
--   :order       string  counter that makes a queue first-in first-out
--   :j:<id>      hash    what changes of a job (short fields, stays a listpack)     :m:<id>  string  what never changes (JSON)
--   :x:<id>      hash    p progress, r result, er error (JSON)                      :e:<id>  list    the log, whole envelopes
--   :q:<queue>   zset    queued jobs by priority, then order                        :wake:<queue>  list, at most one token
--   :due         zset    scheduled and retrying jobs by due time, ms                :lease   zset    <id>:<attempt> by expiry, ms
--   :done        zset    ended jobs by the time their retention ends, ms            :o:<owner>  zset  an owner's jobs, by id
--   :n:<owner>   hash    an owner's jobs counted by state                           :i:<owner>:<key>  string  idempotency
--   :f:<feed>    hash    e epoch, g generation, n head, fk forks                    :fl:<feed>  list  the feed's log
--   :w:<feed>    zset    a feed's open jobs, by id                                  :k:<worker> hash  its last claim call
--   :mb:<worker> list    messages to one worker
--   channels     :c:<id> a job's envelopes        :fc:<feed> "<position or ->\n<envelope>"

local P = KEYS[1]
local call = redis.call

local LOG_MAX_ENTRIES, LOG_MAX_BYTES = 10000, 4194304
local FEED_MAX_ENTRIES, FEED_DATA_MAX_BYTES, FEED_KEPT_MS = 1000, 8192, 2592000000
local RESULT_INLINE_MAX_BYTES = 65536

local EDGES = {
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

local FIELDS = { 's', 'q', 'p', 'e', 'n', 'a', 't', 'w', 'ow', 'c', 'ma', 'lw', 'cb', 'wk', 'fk', 'b', 'lk', 'st', 'kc', 'kf' }
local NUMBERS = { p = 1, n = 1, a = 1, t = 1, w = 1, c = 1, ma = 1, lw = 1, b = 1, st = 1, kc = 1, kf = 1 }
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

local function save_all()
  for id, job in pairs(jobs) do
    if job and next(job.changed) then
      local argv = { 'u', int(NOW) }
      for f in pairs(job.changed) do
        argv[#argv + 1] = f
        local v = job[f]
        argv[#argv + 1] = type(v) == 'number' and int(v) or v
      end
      job.changed = {}
      call('HSET', P .. ':j:' .. id, unpack(argv))
    end
  end
end

local function feeds_of(job)
  if not job.feeds then
    job.feeds = { 'o:' .. job.ow, 'all' }
    local org = string.match(job.ow, '^([^/]+)/')
    if org then job.feeds[3] = 'g:' .. org end
  end
  return job.feeds
end

-- A feed numbers its entries without folding, so entry i of n from the end has seq head - i + 1.
local function feed_append(feed, text)
  local key, log = P .. ':f:' .. feed, P .. ':fl:' .. feed
  local v = call('HMGET', key, 'n', 'e', 'g', 'fk')
  local n, epoch = tonumber(v[1] or 0), v[2]
  if v[3] ~= GEN then
    local forks = v[4] or ''
    if epoch then forks = (forks ~= '' and forks .. ',' or '') .. epoch .. ':' .. int(n) end
    epoch = GEN .. '_' .. string.format('%x', NOW)
    call('HSET', key, 'e', epoch, 'g', GEN, 'fk', forks)
  end
  n = call('HINCRBY', key, 'n', 1)
  if call('RPUSH', log, text) > FEED_MAX_ENTRIES then call('LPOP', log) end
  if n % 50 == 1 then
    call('PEXPIRE', key, FEED_KEPT_MS)
    call('PEXPIRE', log, FEED_KEPT_MS)
  end
  call('SPUBLISH', P .. ':fc:' .. feed, epoch .. ':' .. int(n) .. '\n' .. text)
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
    set(job, 'fk', (job.fk ~= '' and job.fk .. ',' or '') .. job.e .. ':' .. int(job.n))
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
    for _, feed in ipairs(feeds_of(job)) do call('SPUBLISH', P .. ':fc:' .. feed, '-\n' .. text) end
  elseif kind ~= 'log' and kind ~= 'output' then
    if kind == 'completed' and #data > FEED_DATA_MAX_BYTES then
      text = head .. before_data .. '{"result_ref":"/api/jobs/' .. job.id .. '/result","duration_s":' ..
        string.match(data, '"duration_s":([%d%.]+)}$') .. '}}'
    end
    for _, feed in ipairs(feeds_of(job)) do feed_append(feed, text) end
  end
end

local function become(job, state)
  if not EDGES[job.s][state] then error('illegal transition ' .. job.s .. ' -> ' .. state .. ' of ' .. job.id) end
  call('HINCRBY', P .. ':n:' .. job.ow, job.s, -1)
  call('HINCRBY', P .. ':n:' .. job.ow, state, 1)
  set(job, 's', state)
end

local function wake(queue)
  local list = P .. ':wake:' .. queue
  if call('LLEN', list) == 0 then call('LPUSH', list, '1') end
end

-- The job goes to the end of its priority's line. Its state is already `queued`.
local function place(job, data)
  call('ZADD', P .. ':q:' .. job.q, int(job.p * 281474976710656 + call('INCR', P .. ':order')), job.id)
  emit(job, 'queued', data or '{"queue":"' .. job.q .. '","priority":' .. int(job.p) .. '}')
  wake(job.q)
end

local function duration(job)
  if job.st == 0 then return '0' end
  return string.format('%.3f', math.max(0, NOW - job.st) / 1000)
end

-- End a job. `event` is complete data for the terminal event; nothing may follow it.
local function terminate(job, state, event)
  become(job, state)
  set(job, 'f', NOW)
  emit(job, state, event)
  for _, feed in ipairs(feeds_of(job)) do call('ZREM', P .. ':w:' .. feed, job.id) end
  call('ZADD', P .. ':done', int(NOW + (state == 'completed' and job.kc or job.kf)), job.id)
end

local function fail(job, err, dead)
  call('HSET', P .. ':x:' .. job.id, 'er', err)
  terminate(job, 'failed', '{"error":' .. err .. ',"duration_s":' .. duration(job) .. ',"dead":' .. (dead and 'true' or 'false') .. '}')
end

local function cancel_now(job, by, reason)
  terminate(job, 'cancelled', '{"by":' .. by .. ',"reason":' .. reason .. '}')
end

-- Remove an ended job and all that is kept of it.
local function purge(job)
  call('ZREM', P .. ':done', job.id)
  call('HINCRBY', P .. ':n:' .. job.ow, job.s, -1)
  call('ZREM', P .. ':o:' .. job.ow, job.id)
  call('DEL', P .. ':j:' .. job.id, P .. ':m:' .. job.id, P .. ':x:' .. job.id, P .. ':e:' .. job.id)
  jobs[job.id] = false
end
