-- Creating a job: record, keys, first event, place in line and wake-up. What is wanted is a table as storing.lua describes it.

local function time_of(text)
  local ms = text == '' and 0 or tonumber(text)
  if string.sub(text, 1, 1) == '+' then ms = NOW + ms end
  return math.floor(ms)
end

local function tenant_of(owner) return string.match(owner, '^([^/]+)/') or owner end

local function keep_idempotency_key(wanted, id)
  call('SET', P .. ':i:' .. wanted.ow .. ':' .. wanted.key, id .. ' ' .. wanted.print, 'PX', wanted.kept_ms)
end

-- Set by flows.lua: keep the plan of a flow.
local keep_plan

-- `flow` and `number`: of which flow the job is which step.
local function create(wanted, due_ms, flow, number)
  local id, owner, options = wanted.id, wanted.ow, wanted.options
  local job = setmetatable({ id = id, q = wanted.q, p = wanted.p, ow = owner, ma = wanted.ma, c = NOW, e = GEN }, RECORD)
  job.pa, job.pi = flow, number
  if options then
    job.kc, job.kf, job.dp, job.nd = options.kc, options.kf, options.dp, options.nd
    if options.x then job.x = time_of(options.x) end
    if options.ck then job.ck, job.cl = 'c:' .. tenant_of(owner) .. ':' .. options.ck, options.cl or 1 end
    if options.dk then
      local key = P .. ':u:' .. owner .. ':' .. options.dk
      if options.dt then
        call('SET', key, id, 'PX', int(options.dt))
      else
        call('SET', key, id)
        job.dk = options.dk
      end
    end
  end
  jobs[id] = job
  put_text(P .. ':m:' .. id, wanted.spec)
  if wanted.key ~= '' then keep_idempotency_key(wanted, id) end
  for _, feed in ipairs(feeds_of(job)) do put(feed.open, id, 0) end
  if options and options.fl then keep_plan(job, options.fl) end
  if due_ms > NOW then
    enter_due(job, 'scheduled', due_ms)
    wakes[job.q] = true
  else
    enter_queue(job)
  end
end
