-- Claiming: the next jobs of a queue that may begin, each under a new attempt and a lease.
local LOOK_MAX, CALLS_KEPT, CALLS_KEPT_MS = 200, 8, 120000

local worker, lease_ms -- of the worker that makes this step
local claimed -- id, attempt, queue, tries and spec of each claimed job
local specs -- where the specs are
local needing -- the numbers of claims whose inputs refer to results of others
local taken -- what the worker's memo is to say of this call
local started -- how the data of its `started` events begins

begin_with(function() claimed, specs, needing, taken, started = {}, {}, {}, {}, nil end)

local function add_claim(job)
  local at = #claimed
  claimed[at + 1], claimed[at + 2], claimed[at + 3], claimed[at + 4], claimed[at + 5] = job.id, job.a, job.q, job.t, ''
  specs[#specs + 1] = P .. ':m:' .. job.id
  if job.nd then needing[#needing + 1] = #specs end
end

local function claim(job)
  job.a, job.w, job.wk, job.st = job.a + 1, 0, worker, NOW
  become(job, 'running', NOW + lease_ms)
  started = started or '{"worker":' .. cjson.encode(worker) .. ',"attempt":'
  emit(job, 'started', started .. int(job.a) .. '}')
  taken[#taken + 1] = job.id .. ':' .. int(job.a)
  add_claim(job)
end

-- Claim up to so many jobs of a queue; those before a closed gate are parked on the way. Returns how many were claimed.
local function claim_from(queue, wanted)
  local line = P .. ':q:' .. queue
  flush_indexes()
  local left = call('ZCARD', line)
  if left == 0 then
    wakes[queue] = nil
    return 0
  end
  local room, limits = room_in(queue, wanted + 1)
  local has_gates = limits and (limits.ro or limits.rg)
  local most, count_claimed, looked, last = math.min(room, wanted), 0, 0, nil
  while count_claimed < most and left > 0 and looked < LOOK_MAX do
    local ids = call('ZRANGE', line, 0, most - count_claimed - 1)
    load_all(ids)
    last = call('ZSCORE', line, ids[#ids])
    for _, id in ipairs(ids) do
      local job = load(id)
      if not (job and job.s == 'queued' and not job.pk) then
        put(line, id, false)
      elseif job.x and job.x <= NOW then
        expire(job)
      else
        local gate = (has_gates or job.ck or job.dp) and pass_gates(job, limits)
        if gate then
          park(job, gate, tonumber(call('ZSCORE', line, id)))
        else
          claim(job)
          count_claimed = count_claimed + 1
        end
      end
    end
    looked = looked + #ids
    left = left - #ids
    if count_claimed < most then flush_indexes() end
  end
  if looked > count_claimed then
    -- What was put off or expired may have let others return.
    flush_indexes()
    left = call('ZCARD', line)
  end
  if count_claimed > 0 then count_claims(queue, limits, count_claimed) end
  if left == 0 and not has_parked(queue, 0) then
    call('UNLINK', P .. ':v:' .. queue)
  elseif last then
    forget_turns(queue, last)
  end
  -- Another worker may take what is left and may begin: the token this one took was the only one.
  wakes[queue] = left > 0 and room > count_claimed or nil
  return count_claimed
end

-- Claim for a call that was not seen yet, or find again what it claimed. `wants` are pairs of a queue and a number in ARGV, from this place on.
local function claim_wanted(call_number, most, from)
  local memo, slot = P .. ':k:' .. worker, int(call_number % CALLS_KEPT)
  local made, members = string.match(call('HGET', memo, slot) or '', '^(%d+) ?(.*)$')
  if tonumber(made) == call_number then
    for id, attempt in string.gmatch(members, '(%S+):(%d+)') do
      local job = load(id)
      if job and job.s == 'running' and job.a == tonumber(attempt) then add_claim(job) end
    end
    return
  end
  local fields = {}
  for i = from, #ARGV, 2 do fields[#fields + 1] = 'w:' .. ARGV[i] end
  local waiting = call('HMGET', P .. ':qn', unpack(fields))
  for i = from, #ARGV, 2 do
    local at = (i - from) / 2 + 1
    local change = counts[':qn'] and counts[':qn'][fields[at]] or 0
    if tonumber(waiting[at] or 0) + change > 0 then
      most = most - claim_from(ARGV[i], math.min(most, tonumber(ARGV[i + 1])))
    else
      wakes[ARGV[i]] = nil
    end
  end
  if #taken > 0 then
    call('HSET', memo, slot, int(call_number) .. ' ' .. table.concat(taken, ' '))
    call('PEXPIRE', memo, CALLS_KEPT_MS)
  end
end

-- What step.lua returns of the claims, and of the results that they need.
local function read_claims()
  for to, from in runs(specs) do
    for i, spec in ipairs(call('MGET', unpack(specs, from, to))) do claimed[(from + i - 1) * 5] = spec end
  end
  local results = {}
  for at, number in ipairs(needing) do results[at] = results_for(number, claimed[number * 5]) end
  return claimed, results
end
