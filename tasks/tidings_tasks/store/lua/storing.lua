-- Storing jobs: idempotency key, deduplication and room are looked at, and then each is created or not, all in one step.
--
-- A job to be stored is a table: id, q queue, p priority, due ("" or store ms, or "+ms" from now), ow owner scope, ma max attempts, key
-- (idempotency, "" for none), print (of the request), kept_ms (of the key), spec (JSON), more (JSON object, or ""):
--   {x not to begin after (as due), ck concurrency key, cl how many of it, dk deduplication key, dt its lifetime ms (none: until the
--    job has ended), db true: a repeat takes the place of a job that is still scheduled, dp dependency, kc kf retention ms,
--    nd true: its input refers to results of others, fl the plan of a flow (flows.lua)}
local queue_states, rooms

begin_with(function() queue_states, rooms = {}, {} end)

local function is_time(text) return text == '' or string.match(text, '^%+?%d+%.?%d*$') end

-- Read what is optional, and say whether the job may be stored as it was given.
local function is_well_formed(wanted)
  if not (is_time(wanted.due) and wanted.p and wanted.ma and wanted.spec) then return false end
  if wanted.more == '' then return true end
  local is_read, more = pcall(cjson.decode, wanted.more)
  if not is_read or type(more) ~= 'table' or not is_time(more.x or '') then return false end
  if more.fl and not (type(more.fl) == 'table' and type(more.fl.s) == 'table' and more.fl.s[1]) then return false end
  wanted.options = more
  return true
end

local PER_JOB = 11

-- Read the jobs that ARGV holds from this place on, or nothing when one of them is malformed.
local function read_wanted(from)
  local all = {}
  for i = from, #ARGV, PER_JOB do
    local wanted = {
      id = ARGV[i], q = ARGV[i + 1], p = tonumber(ARGV[i + 2]), due = ARGV[i + 3], ow = ARGV[i + 4], ma = tonumber(ARGV[i + 5]),
      key = ARGV[i + 6], print = ARGV[i + 7], kept_ms = ARGV[i + 8], spec = ARGV[i + 9], more = ARGV[i + 10],
    }
    if not (wanted.more and is_well_formed(wanted)) then return nil end
    all[#all + 1] = wanted
  end
  return all
end

-- A queue's state and its limits as they are kept, or false.
local function state_of(queue)
  local state = queue_states[queue]
  if not state then
    state = call('HMGET', P .. ':qc', '!' .. queue, queue)
    queue_states[queue] = state
  end
  return state
end

local function is_draining(queue) return state_of(queue)[1] == 'draining' end

-- Take a place in what bounds the job: its queue, or all that wait for their time.
local function take_room(wanted, due_ms, max_length)
  local name = due_ms > NOW and ':due' or wanted.q
  if not rooms[name] then
    if name == ':due' then
      rooms[name] = max_length - call('ZCARD', P .. ':due')
    else
      local limits = state_of(name)[2]
      limits = limits and cjson.decode(limits).ml or max_length
      rooms[name] = limits - tonumber(call('HGET', P .. ':qn', 'w:' .. name) or 0)
    end
  end
  rooms[name] = rooms[name] - 1
  return rooms[name] >= 0
end

-- A flow that begins at once needs room for the steps it begins with. Those that come later belong to what was taken in before.
local function find_room(wanted, due_ms, max_length)
  if is_draining(wanted.q) then return 'draining' end
  if not take_room(wanted, due_ms, max_length) then return 'full' end
  local plan = wanted.options and wanted.options.fl
  for _, step in ipairs(plan and due_ms <= NOW and plan.s or {}) do
    if step.w == 0 then
      local outcome = find_room(step, NOW, max_length)
      if outcome ~= 'new' then return outcome end
    end
  end
  return 'new'
end

-- The job that holds a key, if it is still stored. The second value is the request's print, for idempotency keys.
local function holder_of(key)
  local kept = call('GET', key)
  if not kept then return nil end
  local id, print = string.match(kept, '^(%S+) ?(%S*)$')
  if call('EXISTS', P .. ':j:' .. id) == 1 then return { outcome = 'created', id = id }, print end
end

-- Decide about one job, given those decided before: by_id, and by_key for idempotency and deduplication keys.
local function decide(wanted, by_id, by_key, max_length)
  local entry = { outcome = 'created', id = wanted.id, wanted = wanted }
  if call('EXISTS', P .. ':j:' .. wanted.id, P .. ':t:' .. wanted.id) > 0 then return entry end
  if wanted.key ~= '' then
    local key = P .. ':i:' .. wanted.ow .. ':' .. wanted.key
    local holder, print = by_key[key], nil
    if holder then print = holder.wanted.print else holder, print = holder_of(key) end
    if holder and (holder.outcome == 'full' or holder.outcome == 'draining') then
      entry.outcome = holder.outcome -- so that a repeat of the call, when its twin still finds no room, gets the same answer
      return entry
    elseif holder then
      entry.id = holder.id
      if print ~= wanted.print then
        entry.outcome = 'conflict'
      else
        entry.outcome, entry.holder = 'replayed', holder
      end
      return entry
    end
    by_key[key] = entry
  end
  local options = wanted.options
  if options and options.dk then
    local key = P .. ':u:' .. wanted.ow .. ':' .. options.dk
    local twin = by_key[key]
    if twin and twin.outcome ~= 'new' then
      entry.outcome = twin.outcome -- full or draining; so that a repeat of the call gets the same answer
      return entry
    end
    local holder = twin or holder_of(key)
    local former = not twin and holder and load(holder.id)
    -- With a lifetime of its own the key outlives its job.
    if twin or former and (options.dt or not TERMINAL[former.s]) then
      entry.id, entry.outcome, entry.holder = holder.id, 'duplicate', holder
      -- A worker cannot run a flow, nor the store another job.
      local is_flow = (twin and twin.wanted.options or former).fl ~= nil
      local is_scheduled = twin and twin.due_ms > NOW or former and former.s == 'scheduled'
      entry.replaces = options.db and is_scheduled and is_flow == (options.fl ~= nil)
      return entry
    end
    by_key[key] = entry
  end
  local due_ms = time_of(wanted.due)
  entry.outcome = find_room(wanted, due_ms, max_length)
  entry.due_ms = due_ms
  return entry
end

-- Put a repeat in the place of a job that is still scheduled: what it is to do, and when.
local function replace(entry)
  local job, due_ms = load(entry.id), time_of(entry.wanted.due)
  local spec = P .. ':m:' .. entry.id
  local plan = entry.wanted.options.fl
  if due_ms <= NOW or job.d == due_ms and call('GET', spec) == entry.wanted.spec then return end
  keep_opening(job)
  put_text(spec, entry.wanted.spec)
  set(job, 'ma', entry.wanted.ma)
  if plan then
    keep_plan(job, plan)
    set(job, 'fb', entry.wanted.id)
  end
  set(job, 'd', due_ms)
  put_timed(P .. ':due', job.id, due_ms)
  emit(job, 'scheduled', scheduled_data(job))
end

-- Decide about all, then store: nothing is written until it is known that all may be. Returns an entry {outcome, id} for each:
-- created | replayed | conflict | duplicate | full | draining | refused (all_or_none, another failed).
local function store_jobs(all, all_or_none, max_length)
  local found, by_id, by_key, refused = {}, {}, {}, false
  local latest -- id of a scheduled job -> the last one that takes its place: a repeat of the call finds it there and changes nothing
  for at, wanted in ipairs(all) do
    local entry = by_id[wanted.id] or decide(wanted, by_id, by_key, max_length)
    by_id[wanted.id] = entry
    found[at] = entry
    if entry.outcome == 'conflict' or entry.outcome == 'full' or entry.outcome == 'draining' then refused = true end
  end
  for _, entry in ipairs(found) do
    if entry.outcome == 'new' then
      if all_or_none and refused then
        entry.outcome = 'refused'
      else
        create(entry.wanted, entry.due_ms)
        entry.outcome = 'created'
      end
    elseif entry.holder and entry.holder.outcome == 'refused' then
      entry.outcome = 'refused'
    elseif entry.outcome == 'duplicate' and not (all_or_none and refused) then
      -- Whoever repeats the request is answered with this job, also when it has ended by then.
      if entry.wanted.key ~= '' then keep_idempotency_key(entry.wanted, entry.id) end
      if entry.replaces then
        latest = latest or {}
        latest[entry.id] = entry
      end
    end
  end
  for _, entry in ipairs(latest and found or {}) do
    if latest[entry.id] == entry then replace(entry) end
  end
  return found
end
