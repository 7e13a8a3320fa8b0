-- Gates: what a job must pass to be claimed. A job before a closed gate is parked, still queued, and keeps its place in the line.
--
--   o:<queue>:<owner>, g:<queue>:<org>  a token bucket of the queue's limits   opens by time (:gates), for as many as it has tokens
--   c:<tenant>:<key>                    so many running jobs of one key        opens for one when one leaves, and by time for another
--   d:<dependency>                      a circuit breaker                      opens by time for one probe, and for all when that succeeds
--   q:<queue>                           the queue's own bucket: parks nobody, the whole line waits
-- No gate costs a try. Buckets are the virtual scheduling of GCRA (ITU-T I.371): one number says when the bucket is full again.
local RETURN_BATCH, OPEN_FACTOR_MAX, LOOK_EVERY_MS = 50, 10, 1000
local QUEUE_KEPT_OPEN_MS = 1

local settings -- field of :qc -> its value, or false
local buckets -- gate -> {full again at, ms a token, tokens it holds}
local breakers
local said_of_dependency -- what the write that is carried out says: 'ok', 'failed', or nothing

begin_with(function() settings, buckets, breakers, said_of_dependency = {}, {}, {}, nil end)

local function read_settings(...)
  for i, text in ipairs(call('HMGET', P .. ':qc', ...)) do
    local field = select(i, ...)
    settings[field] = text and (string.sub(field, 1, 1) == '!' and text or cjson.decode(text))
  end
end

local function limits_of(queue)
  if settings[queue] == nil then read_settings(queue, '!' .. queue) end
  return settings[queue] or nil, settings['!' .. queue]
end

local function bucket_of(gate, rate)
  local bucket = buckets[gate]
  if not bucket then
    local kept, each_ms = math.max(NOW, tonumber(call('GET', P .. ':b:' .. gate) or 0)), rate[2] / rate[1]
    -- No bucket is less than empty: one that was used at a lower rate does not wait for what that rate would have cost.
    local full_at = math.min(kept, NOW + rate[3] * each_ms)
    bucket = { full_at = full_at, each_ms = each_ms, size = rate[3], is_used = full_at < kept }
    buckets[gate] = bucket
  end
  return bucket
end

local function tokens_of(bucket) return math.floor((NOW - bucket.full_at) / bucket.each_ms + bucket.size + 1e-6) end

local function take_tokens(bucket, many)
  bucket.full_at = bucket.full_at + many * bucket.each_ms
  bucket.is_used = true
end

-- When the next token is there.
local function opens_at(bucket) return math.ceil(bucket.full_at - (bucket.size - 1) * bucket.each_ms) end

local function save_buckets()
  for gate, bucket in pairs(buckets) do
    if bucket.is_used then
      call('SET', P .. ':b:' .. gate, string.format('%.3f', bucket.full_at), 'PX', int(math.ceil(bucket.full_at - NOW) + QUEUE_KEPT_OPEN_MS))
    end
  end
end

-- A breaker: s closed | open | half, f failures since w (ms), u open until (ms), k how often it opened in a row, j its probe.
local function breaker_of(name)
  local breaker = breakers[name]
  if not breaker then
    local text = call('HGET', P .. ':br', name)
    breaker = text and cmsgpack.unpack(text) or { s = 'closed', f = 0, w = NOW, u = 0, k = 0 }
    breakers[name] = breaker
  end
  return breaker
end

local function save_breaker(name)
  local breaker = breakers[name]
  if breaker.s == 'closed' and breaker.f == 0 then
    call('HDEL', P .. ':br', name)
  else
    call('HSET', P .. ':br', name, cmsgpack.pack(breaker))
  end
end

local function breaker_numbers(name)
  if settings['~' .. name] == nil then read_settings('~' .. name) end
  local numbers = settings['~' .. name]
  if not numbers then return 5, 60000, 30000 end
  return numbers[1], numbers[2], numbers[3]
end

local function open_gate_at(gate, ms) put_timed(P .. ':gates', gate, ms) end

local function park(job, gate, score)
  put(P .. ':q:' .. job.q, job.id, false)
  put(P .. ':p:' .. gate, job.id, score)
  set(job, 'pk', gate)
end

-- Let the first so many that are parked at a gate stand in their lines again. Returns how many are left.
local function let_return(gate, most)
  local key = P .. ':p:' .. gate
  flush_indexes()
  local found = call('ZRANGE', key, 0, most - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    local id = found[i]
    put(key, id, false)
    local job = load(id)
    if job and job.s == 'queued' and job.pk == gate then
      set(job, 'pk', nil)
      if job.fl then
        begin_flow(job)
      else
        put(P .. ':q:' .. job.q, id, tonumber(found[i + 1]))
        wakes[job.q] = true
      end
    end
  end
  flush_indexes()
  return call('ZCARD', key)
end

local function trip(name, breaker)
  local _, _, open_ms = breaker_numbers(name)
  breaker.u = NOW + math.min(open_ms * 2 ^ breaker.k, open_ms * OPEN_FACTOR_MAX)
  breaker.k = breaker.k + 1
  breaker.s, breaker.f, breaker.j = 'open', 0, nil
  open_gate_at('d:' .. name, breaker.u)
end

-- What the end of an attempt says of the dependency: 'ok', 'failed', or nothing.
local function note_dependency(job, said)
  local name = job.dp
  local breaker = breaker_of(name)
  local most, within_ms = breaker_numbers(name)
  if breaker.s == 'half' and breaker.j == job.id then
    if said == 'ok' then
      breaker.s, breaker.f, breaker.k, breaker.j = 'closed', 0, 0, nil
      open_gate_at('d:' .. name, NOW)
    elseif said == 'failed' then
      trip(name, breaker)
    else
      breaker.s, breaker.u, breaker.j = 'open', NOW, nil
      open_gate_at('d:' .. name, NOW)
    end
  elseif breaker.s == 'closed' then
    if said == 'failed' then
      if NOW - breaker.w >= within_ms then breaker.f, breaker.w = 0, NOW end
      breaker.f = breaker.f + 1
      if breaker.f >= most then trip(name, breaker) end
    elseif said == 'ok' and breaker.f > 0 then
      breaker.f = 0
    end
  end
  save_breaker(name)
end

-- The first one may try. It may stand where it is not taken, in a queue that is paused or before another gate, so others look too, a
-- while later.
local function free_key(gate)
  local key = P .. ':p:' .. gate
  -- What this very script parked may not be in the store yet.
  local is_waited_for = indexes[key] or call('EXISTS', key) == 1
  if is_waited_for and let_return(gate, 1) > 0 then open_gate_at(gate, NOW + LOOK_EVERY_MS) end
end

local function look_at_key(gate)
  local first = call('ZRANGE', P .. ':p:' .. gate, 0, 0)[1]
  local job = first and load(first)
  -- While all of its places are held, the end of one lets the next look.
  if job and call('ZCARD', P .. ':h:' .. gate) < job.cl then free_key(gate) end
end

leave_gates = function(job)
  if job.ck then
    call('ZREM', P .. ':h:' .. job.ck, job.id)
    free_key(job.ck)
  end
  if job.dp then note_dependency(job, said_of_dependency) end
end

give_way = function(job)
  if job.ck then free_key(job.ck) end
end

-- The gate that keeps a job back, or nothing: then it has passed all of them.
local function pass_gates(job, limits)
  local by_owner, by_org
  if job.ck and call('ZCARD', P .. ':h:' .. job.ck) >= job.cl then return job.ck end
  if job.dp then
    local breaker = breaker_of(job.dp)
    if breaker.s == 'half' then return 'd:' .. job.dp end
    if breaker.s == 'open' and NOW < breaker.u then
      open_gate_at('d:' .. job.dp, breaker.u)
      return 'd:' .. job.dp
    end
  end
  if limits and limits.ro then
    local gate = 'o:' .. job.q .. ':' .. job.ow
    by_owner = bucket_of(gate, limits.ro)
    if tokens_of(by_owner) < 1 then
      open_gate_at(gate, opens_at(by_owner))
      return gate
    end
  end
  local org = limits and limits.rg and string.match(job.ow, '^([^/]+)/')
  if org then
    local gate = 'g:' .. job.q .. ':' .. org
    by_org = bucket_of(gate, limits.rg)
    if tokens_of(by_org) < 1 then
      open_gate_at(gate, opens_at(by_org))
      return gate
    end
  end
  if by_owner then take_tokens(by_owner, 1) end
  if by_org then take_tokens(by_org, 1) end
  if job.ck then call('ZADD', P .. ':h:' .. job.ck, int(NOW), job.id) end
  if job.dp and breakers[job.dp].s == 'open' then
    breakers[job.dp].s, breakers[job.dp].j = 'half', job.id
    save_breaker(job.dp)
  end
end

-- How many jobs the queue as a whole may begin now, of so many wanted.
local function room_in(queue, wanted)
  local limits, state = limits_of(queue)
  if state == 'paused' then return 0, limits end
  if limits and limits.mr then
    wanted = math.min(wanted, limits.mr - tonumber(call('HGET', P .. ':qn', queue) or 0) - (counts[':qn'] and counts[':qn'][queue] or 0))
  end
  if limits and limits.r and wanted > 0 then
    local bucket = bucket_of('q:' .. queue, limits.r)
    wanted = math.min(wanted, tokens_of(bucket))
    if wanted < 1 then open_gate_at('q:' .. queue, opens_at(bucket)) end
  end
  return math.max(0, wanted), limits
end

local function count_claims(queue, limits, many)
  if not (limits and limits.r) then return end
  local bucket = bucket_of('q:' .. queue, limits.r)
  take_tokens(bucket, many)
  if tokens_of(bucket) < 1 then open_gate_at('q:' .. queue, opens_at(bucket)) end
end

-- A gate's time has come.
local function open_gate(gate)
  put(P .. ':gates', gate, false)
  local kind, queue = string.match(gate, '^(%a):([^:]*)')
  if kind == 'q' then
    wakes[queue] = true
    return
  end
  if kind == 'c' then return look_at_key(gate) end
  if kind == 'd' then
    local breaker = breaker_of(queue)
    if breaker.s == 'closed' then
      if let_return(gate, RETURN_BATCH) > 0 then open_gate_at(gate, NOW + 1) end
    elseif breaker.s == 'open' then
      -- One at a time is let back; the first that is claimed is the probe.
      if let_return(gate, 1) > 0 then open_gate_at(gate, math.max(breaker.u, NOW + LOOK_EVERY_MS)) end
    end
    return
  end
  local limits = limits_of(queue)
  local rate = limits and (kind == 'o' and limits.ro or kind == 'g' and limits.rg)
  local many = RETURN_BATCH
  if rate then
    local bucket = bucket_of(gate, rate)
    many = math.min(many, tokens_of(bucket))
    if many < 1 then return open_gate_at(gate, opens_at(bucket)) end
  end
  if let_return(gate, many) > 0 then open_gate_at(gate, NOW + (rate and math.ceil(rate[2] / rate[1]) or 1)) end
end

-- Queues that may run so many at once have room again where jobs ended.
local function wake_for_room()
  for field, difference in pairs(counts[':qn'] or {}) do
    if difference < 0 and string.sub(field, 1, 2) ~= 'w:' then
      local limits = limits_of(field)
      if limits and limits.mr then wakes[field] = true end
    end
  end
end
