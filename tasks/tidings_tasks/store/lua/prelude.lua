-- What every writing script begins with: the keys, the clock, the generation, and changes that are written together at the end.
--
-- KEYS[1]  the shard's prefix, "<prefix>:{sN}"; every other key is made from it, so all lie in one cluster slot.
-- A script loads each job once (load), changes it in memory (set, become, emit), and writes it back once (save_all). Indexes,
-- counts and feeds are changed in memory too: what many jobs add to one key is one command. Before an index is read,
-- flush_indexes. Arguments are checked before the first change, since a script that fails half-way is not undone.
-- All scripts are idempotent: a client repeats a command whose reply was lost, and the repeat must change nothing.
--
--   :meta        hash    format, shards, run (the node's run id), gen (the generation), reap (no lease is reaped before)
--   :clock       string  the newest time any script that changed something has seen, ms; time never goes back
--   :j:<id>      string  the record: what changes of a job (MessagePack)            :m:<id>  string  what never changes (JSON)
--   :x:<id>      hash    p progress, r result (when they are not in the log's last event), er error (JSON), st traceback
--   :e:<id>      list    the log: whole envelopes; not kept while it has but the first event, or dl is set
--   :q:<queue>   zset    queued jobs by priority, then turn (lines.lua)             :wake:<queue>  list, at most one token
--   :v:<queue>   zset    <priority>/<owner>: the turn of the owner's last job there, for those that may still be ahead of others
--   :qn          hash    <queue>: jobs that run, w:<queue>: queued ones, parked included
--   :qc          hash    <queue>: its limits, ~<dependency>: its breaker's numbers (JSON); !<queue>: paused or draining
--   :p:<gate>    zset    jobs parked at a gate (gates.lua) by their place in the line; still queued
--   :h:<gate>    zset    the running jobs that hold a concurrency key, by when they began, ms
--   :b:<gate>    string  a token bucket: when it is full again, ms                  :gates   zset    gates by when they open, ms
--   :br          hash    <dependency>: its circuit breaker (MessagePack)
--   :next        string  nothing falls due before, ms: a lower bound over :due, :lease, :exp, :gates and :done
--   :due         zset    scheduled and retrying jobs by due time, ms                :lease   zset    <id>:<attempt> by expiry, ms
--   :exp         zset    waiting jobs that may not begin any more after a time, by it, ms
--   :done        zset    ended jobs by the time their retention ends, ms            :o:<owner>  zset  an owner's ended jobs, by id
--   :w:<feed>    zset    a feed's open jobs, by id; o:<owner>, g:<org>, all         :n:<owner>  hash  an owner's jobs by state
--   :f:<feed>    hash    e epoch, g generation, n head, fk forks, x TTL set at      :fl:<feed>  list  the feed's log
--   :dead        zset    dead letters by when they died, ms                         :dl:<group>  zset  the same of one group
--   :dg          hash    <fingerprint>:<queue>, a group of dead letters: what they have in common (JSON)
--   :i:<owner>:<key>  string  "<job id> <fingerprint>" of an idempotency key
--   :u:<owner>:<key>  string  the job that holds a deduplication key
--   :t:<id>      string  empty, for minutes: this job was deleted, and a late repeat must not bring it back
--   :fw:<id>     hash    the steps of an open flow (flows.lua)
--   :k:<worker>  hash    its last claiming calls: call number modulo 8, then "<call> <id>:<attempt> …"
--   :mb:<worker> list    messages to one worker
--   :beats       zset    workers by the time of their last beat, ms                :beat:<worker>  hash  what it said, see beat.lua
--   :durs        zset    types by the time of their last duration, ms              :dur:<type>  hash  how long its jobs take
--   :sch         zset    schedules by when they are due next, ms                    :sc:<name>  hash  a schedule (schedules.lua)
--   channels     :c:<id> a job's envelopes        :fc:<feed> "<position or ->\n<envelope>"
--
-- The record leaves out what is as it always begins. Its fields:
--   s state, q queue, p priority, ow owner scope, ma max attempts, c created, u updated (when not c), d due, st started, f finished (ms),
--   e epoch, n head, fk forks "epoch:head,…", b bytes in the log, lb ls of a progress entry at its end: the seq it follows on and its size, a attempt, t tries,
--   lw lost workers, w last write number, wk worker, cb who asked to cancel, cr why (JSON texts), kc kf retention (when unusual),
--   dl the log of two events is not kept, us what the last attempt used (JSON),
--   x not to begin after (ms), ck cl concurrency gate and how many may pass, dp dependency, dk deduplication key (until it ends),
--   pk the gate it is parked at, fp its group of dead letters, pa pi the flow it is part of and
--   which step, nd true: its input refers to results of others, fl how many steps it has, being a flow, fb of which id theirs
--   are made, when of another one

local FORKS_KEPT = 16
local FOREVER = 9007199254740991 -- ms; Lua counts no further
local MAX_ARGS = 2000 -- even; Lua cannot unpack more than some 8,000 values

local GEN, REAP_FROM, NOW, ISO
local NEXT -- :next; nil while it is not known, FOREVER while nothing waits for its time
local texts -- keys and values to be set together
local jobs, changed
local told -- what the jobs' channels are to be told: id, envelope (or false), and of progress its seq, attempt and data; and again
local indexes -- members to be put into sorted sets (a score) or taken out (false): key -> member -> score
local counts -- hash -> field -> difference
local wakes -- queues whose waiting worker is to look again

local function put_text(key, value)
  texts[#texts + 1] = key
  texts[#texts + 1] = value
end

begin_with(function()
  texts, jobs, changed, told, indexes, counts, wakes = {}, {}, {}, {}, {}, {}, {}
  local meta = call('HMGET', P .. ':meta', 'gen', 'reap')
  GEN, REAP_FROM = meta[1], tonumber(meta[2] or 0)
  if not GEN then return redis.error_reply('DETACHED the store was emptied; attach again') end
  local t, kept = call('TIME'), call('MGET', P .. ':clock', P .. ':next')
  local seen = tonumber(kept[1] or 0)
  NOW, NEXT = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(kept[2])
  if NOW <= seen then NOW = seen else put_text(P .. ':clock', NOW) end
  ISO = iso(NOW)
end)

-- for to, from in runs(values): the bounds of runs of up to MAX_ARGS values. Without a closure: those cost.
local function next_run(values, to)
  if to < #values then return math.min(#values, to + MAX_ARGS), to + 1 end
end
local function runs(values) return next_run, values, 0 end

local function load_all(ids)
  local missing, keys = {}, {}
  for _, id in ipairs(ids) do
    if jobs[id] == nil then
      jobs[id] = false
      missing[#missing + 1] = id
      keys[#keys + 1] = P .. ':j:' .. id
    end
  end
  for to, from in runs(keys) do
    for i, text in ipairs(call('MGET', unpack(keys, from, to))) do
      if text then
        local job, id = decode_record(text), missing[from + i - 1]
        job.id = id
        jobs[id] = job
      end
    end
  end
end

local function load(id)
  if jobs[id] == nil then load_all({ id }) end
  return jobs[id]
end

local function set(job, field, value)
  job[field] = value
  changed[job.id] = job
end

local function save_record(id, job)
  if NOW ~= job.c then job.u = NOW end
  job.id = nil
  put_text(P .. ':j:' .. id, cmsgpack.pack(job))
  job.id = id
end

local function tell(id, text, seq, attempt, data)
  local at = #told
  told[at + 1], told[at + 2], told[at + 3], told[at + 4], told[at + 5] = id, text, seq, attempt, data
end

-- Only what somebody listens to is sent, or even made: subscribers are on the node that runs the scripts.
local function publish_all()
  local ids, channels, listened = {}, {}, {}
  for i = 1, #told, 5 do
    local id = told[i]
    if listened[id] == nil then
      listened[id] = false
      ids[#ids + 1] = id
      channels[#channels + 1] = P .. ':c:' .. id
    end
  end
  for to, from in runs(channels) do
    local found = call('PUBSUB', 'SHARDNUMSUB', unpack(channels, from, to))
    for i = 2, #found, 2 do
      if found[i] > 0 then listened[ids[from + i / 2 - 1]] = found[i - 1] end
    end
  end
  for i = 1, #told, 5 do
    local id = told[i]
    if listened[id] then
      call('SPUBLISH', listened[id], told[i + 1] or envelope(id, GEN, told[i + 2], 'progress', ISO, told[i + 3], told[i + 4]))
    end
  end
  told = {}
end

local function add_fork(forks, epoch, head)
  forks = (forks ~= '' and forks .. ',' or '') .. epoch .. ':' .. int(head)
  local _, commas = string.gsub(forks, ',', '')
  if commas >= FORKS_KEPT then forks = string.match(forks, '^[^,]*,(.*)$') end
  return forks
end

local function put(key, member, score)
  local members = indexes[key]
  if not members then
    members = {}
    indexes[key] = members
  end
  members[member] = score
end

local TIMED = { ':due', ':lease', ':exp', ':gates', ':done' }

-- The same in one of those that are kept by time.
local function put_timed(key, member, ms)
  put(key, member, ms)
  if NEXT and ms < NEXT then NEXT = ms end
end

local function flush_indexes()
  for key, members in pairs(indexes) do
    local added, removed = {}, {}
    for member, score in pairs(members) do
      if score then
        added[#added + 1] = score
        added[#added + 1] = member
      else
        removed[#removed + 1] = member
      end
    end
    for to, from in runs(added) do call('ZADD', key, unpack(added, from, to)) end
    for to, from in runs(removed) do call('ZREM', key, unpack(removed, from, to)) end
  end
  indexes = {}
end

local function count(hash, field, difference)
  local fields = counts[hash]
  if not fields then
    fields = {}
    counts[hash] = fields
  end
  fields[field] = (fields[field] or 0) + difference
end

