-- Keeping a shard up: due jobs, lapsed leases, expiry, gates and retention. Any step does it, as soon as something is due.
local UPKEEP_BATCH, LOST_WORKERS_MAX, PART_KEPT_MS = 50, 3, 3600000
local WORKER_LOST = '{"code":"worker_lost","type":"WorkerLost","message":"the worker that ran this job went away"}'

local function first_of(index)
  flush_indexes()
  return call('ZRANGEBYSCORE', P .. index, '-inf', NOW, 'LIMIT', 0, UPKEEP_BATCH)
end

local function queue_due_jobs()
  local due = first_of(':due')
  load_all(due)
  for _, id in ipairs(due) do
    put(P .. ':due', id, false)
    local job = load(id)
    if job and (job.s == 'scheduled' or job.s == 'retrying') then enter_queue(job) end
  end
end

local function reap_leases()
  for _, member in ipairs(first_of(':lease')) do
    put(P .. ':lease', member, false)
    local id, attempt = string.match(member, '^(.*):(%d+)$')
    local job = load(id)
    -- One that was reaped before may have ended this one: flows within flows lapse together.
    local is_current = job and job.s == 'running' and job.a == tonumber(attempt)
    if is_current and job.fl then
      time_out_flow(job)
    elseif is_current then
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

local function expire_jobs()
  for _, id in ipairs(first_of(':exp')) do
    put(P .. ':exp', id, false)
    local job = load(id)
    if job and job.x and (job.s == 'queued' or job.s == 'scheduled' or job.s == 'retrying') then expire(job) end
  end
end

local function purge_jobs()
  for _, id in ipairs(first_of(':done')) do
    put(P .. ':done', id, false)
    local job = load(id)
    if job and job.pa and is_open_flow(job.pa) then
      -- Steps to come may need its result.
      put_timed(P .. ':done', id, NOW + PART_KEPT_MS)
    elseif job and TERMINAL[job.s] then
      purge(job)
    end
  end
end

-- No lease is reaped before the time kept in :meta, so nothing is due before it either.
local function find_next()
  flush_indexes()
  NEXT = FOREVER
  for _, index in ipairs(TIMED) do
    local first = call('ZRANGE', P .. index, 0, 0, 'WITHSCORES')
    if first[2] then NEXT = math.min(NEXT, math.max(tonumber(first[2]), index == ':lease' and REAP_FROM or 0)) end
  end
end

-- Carry out what is due, a bounded part of it; the rest is due at once.
local function keep_up()
  if NEXT and NOW < NEXT then return end
  queue_due_jobs()
  if NOW >= REAP_FROM then reap_leases() end
  expire_jobs()
  for _, gate in ipairs(first_of(':gates')) do open_gate(gate) end
  purge_jobs()
  find_next()
end
