-- Flows: jobs that the store itself runs. A step becomes a job in the very script that ends the last step it waits for.
--
-- The plan of a flow, more.fl of storing.lua, is {p policy: stop | continue, t how long it may take (ms), s {its steps}}. A step is {id, n name,
-- w how many steps it waits for, t {the numbers of those that wait for it}, q, p, due, ma, spec, more}, the last as of any job.
-- While the flow is open, :fw:<id> holds
--   p policy, t time (ms), n steps, e how many have ended, k how many of them well, f the first that failed, x the sum of their percents,
--   at when progress was told (ms), g why it is stopped: failed | timeout
--   <i> step i: id, n, t (MessagePack)               m<i>  the rest of it, until it is a job (MessagePack)
--   w<i> how many steps it still waits for           s<i>  open, then completed | failed | cancelled | skipped     c<i>  its percent
-- A running flow stands among the leases by the time when it must be over, so the upkeep that reaps leases finds it.
local tell_flow, time_out_flow, is_open_flow, results_for

do
  local TELL_EVERY_MS, STOP_AGAIN_MS, NAMES_MAX = 500, 60000, 10
  local PART_INLINE_MAX_BYTES, PARTS_INLINE_MAX_BYTES, RESULTS_MAX_BYTES = 4096, 262144, 4194304
  local NUMBERS = { 't', 'n', 'e', 'k', 'f', 'x', 'at' }
  local BY = '"flow"'

  local flows -- id -> what is kept of an open flow, or false

  begin_with(function() flows = {} end)

  local function flow_of(id)
    local flow = flows[id]
    if flow == nil then
      flow = false
      local key = P .. ':fw:' .. id
      local v = call('HMGET', key, 'p', 'g', unpack(NUMBERS))
      if v[1] then
        flow = { key = key, p = v[1], g = v[2], steps = {} }
        for i, name in ipairs(NUMBERS) do flow[name] = tonumber(v[i + 2] or 0) end
      end
      flows[id] = flow
    end
    return flow
  end

  local function save_flow(flow)
    call('HSET', flow.key, 'e', int(flow.e), 'k', int(flow.k), 'f', int(flow.f), 'x', string.format('%.3f', flow.x), 'at', int(flow.at))
  end

  local function step_of(flow, i)
    local step = flow.steps[i]
    if not step then
      step = cmsgpack.unpack(call('HGET', flow.key, int(i)))
      flow.steps[i] = step
    end
    return step
  end

  -- One field of each step, by number.
  local function of_all(flow, letter)
    local fields = {}
    for i = 1, flow.n do fields[i] = letter .. int(i) end
    return call('HMGET', flow.key, unpack(fields))
  end

  keep_plan = function(job, plan)
    local key, fields = P .. ':fw:' .. job.id, { 'p', plan.p, 't', int(plan.t), 'n', int(#plan.s) }
    call('DEL', key)
    for i, step in ipairs(plan.s) do
      local rest = { q = step.q, p = step.p, due = step.due, ma = step.ma, spec = step.spec, options = step.more }
      for _, value in ipairs({
        int(i), cmsgpack.pack({ id = step.id, n = step.n, t = step.t }), 'm' .. int(i), cmsgpack.pack(rest), 'w' .. int(i), int(step.w),
      }) do fields[#fields + 1] = value end
      -- A worker of a queue that it begins in learns so when it is due.
      if step.w == 0 then wakes[step.q] = true end
    end
    for to, from in runs(fields) do call('HSET', key, unpack(fields, from, to)) end
    set(job, 'fl', #plan.s)
    flows[job.id] = nil
  end

  local function begin_step(job, flow, i)
    local rest = 'm' .. int(i)
    local wanted = cmsgpack.unpack(call('HGET', flow.key, rest))
    call('HDEL', flow.key, rest)
    call('HSET', flow.key, 's' .. int(i), 'open')
    wanted.id, wanted.ow, wanted.key = step_of(flow, i).id, job.ow, ''
    create(wanted, time_of(wanted.due), job.id, i)
  end

  local function note_percent(flow, i, percent)
    local field = 'c' .. int(i)
    flow.x = flow.x + percent - tonumber(call('HGET', flow.key, field) or 0)
    call('HSET', flow.key, field, string.format('%.3f', percent))
  end

  -- The progress of the whole; `name` is the step that moved.
  local function tell(job, flow, name)
    local percent = math.min(100, flow.x / flow.n)
    flow.at = NOW
    emit(job, 'progress', string.format(
      '{"percent":%.1f,"message":"%d of %d step%s done","current":%d,"total":%d,"step":%s,"eta_s":null,"meta":null}',
      percent, flow.e, flow.n, flow.n == 1 and '' or 's', flow.e, flow.n, name and '"' .. name .. '"' or 'null'))
    return percent
  end

  -- Note how far a step is, and tell it of the flow and of the flow that this one is a step of.
  local function tell_percent(part, percent)
    local flow, job = flow_of(part.pa), load(part.pa)
    if not flow or job.s ~= 'running' then return end
    note_percent(flow, part.pi, percent)
    local whole = NOW - flow.at >= TELL_EVERY_MS and tell(job, flow, step_of(flow, part.pi).n)
    save_flow(flow)
    if whole and job.pa then tell_percent(job, whole) end
  end

  tell_flow = function(part, data)
    local is_read, found = pcall(cjson.decode, data)
    local percent = is_read and type(found) == 'table' and tonumber(found.percent)
    if percent then tell_percent(part, math.max(0, math.min(100, percent))) end
  end

  is_open_flow = function(id) return call('EXISTS', P .. ':fw:' .. id) == 1 end

  local function error_of(id)
    local is_read, found = pcall(cjson.decode, call('HGET', P .. ':x:' .. id, 'er') or '')
    return is_read and type(found) == 'table' and tostring(found.message) or ''
  end

  local function child_failed(flow, states)
    local first, others = step_of(flow, flow.f), {}
    local message = 'step ' .. first.n .. (states[flow.f] == 'cancelled' and ' was cancelled' or ' failed: ' .. error_of(first.id))
    for i = 1, flow.n do
      if i ~= flow.f and states[i] == 'failed' then others[#others + 1] = step_of(flow, i).n end
    end
    if #others > 0 then
      local more = #others > NAMES_MAX and ' and ' .. int(#others - NAMES_MAX) .. ' more' or ''
      message = message .. '; failed too: ' .. table.concat(others, ', ', 1, math.min(#others, NAMES_MAX)) .. more
    end
    return '{"code":"child_failed","type":"ChildFailed","message":' .. cjson.encode(message) .. '}'
  end

  -- What became of each step. Results and errors that are small stand in it, as many as there is room for.
  local function result_of(flow, states)
    local parts, bytes = {}, 0
    local function inline(key, field, name)
      local size = call('HSTRLEN', key, field)
      if size > PART_INLINE_MAX_BYTES or bytes + size > PARTS_INLINE_MAX_BYTES then return nil end
      bytes = bytes + size
      return ',"' .. name .. '":' .. (size > 0 and call('HGET', key, field) or 'null')
    end
    for i = 1, flow.n do
      local step, state, more = step_of(flow, i), states[i], ''
      local key = P .. ':x:' .. step.id
      if state == 'completed' then
        more = inline(key, 'r', 'result') or ',"result_ref":"/api/jobs/' .. step.id .. '/result"'
      elseif state == 'failed' then
        more = inline(key, 'er', 'error') or ''
      end
      local id = state == 'skipped' and 'null' or '"' .. step.id .. '"'
      parts[i] = '"' .. step.n .. '":{"job_id":' .. id .. ',"status":"' .. state .. '"' .. more .. '}'
    end
    return '{"steps":{' .. table.concat(parts, ',') .. '}}'
  end

  local function finish(job, flow)
    local states = of_all(flow, 's')
    local result = result_of(flow, states)
    if flow.k == flow.n then return complete(job, result) end
    call('HSET', P .. ':x:' .. job.id, 'r', result)
    if job.cb ~= '' then
      cancel_asked(job)
    elseif flow.g == 'timeout' then
      local message = string.format('the flow ran longer than %g s', flow.t / 1000)
      fail(job, '{"code":"timeout","type":"JobTimedOut","message":"' .. message .. '"}', false)
    else
      fail(job, child_failed(flow, states), false)
    end
  end

  -- What changed is told, and the end of the last step is the end of the flow.
  local function settle(job, flow, name)
    local whole = tell(job, flow, name)
    save_flow(flow)
    if flow.e == flow.n then return finish(job, flow) end
    if job.pa then tell_percent(job, whole) end
  end

  local function end_step(flow, i, state)
    call('HSET', flow.key, 's' .. int(i), state)
    flow.e = flow.e + 1
    if state == 'completed' then
      flow.k = flow.k + 1
    elseif state ~= 'skipped' and flow.f == 0 then
      flow.f = i
    end
    note_percent(flow, i, 100)
  end

  local function skip(flow, i)
    call('HDEL', flow.key, 'm' .. int(i))
    end_step(flow, i, 'skipped')
  end

  -- Nothing begins any more, what waits is cancelled, and what runs is asked to stop.
  local function stop_steps(flow, by, reason)
    flow.is_busy = true
    local states, ids = of_all(flow, 's'), {}
    for i = 1, flow.n do
      if not states[i] then skip(flow, i) elseif states[i] == 'open' then ids[#ids + 1] = step_of(flow, i).id end
    end
    load_all(ids)
    for _, id in ipairs(ids) do cancel(load(id), by, reason) end
    flow.is_busy = nil
  end

  stop_flow = function(job, by, reason)
    local flow = flow_of(job.id)
    stop_steps(flow, by, reason)
    settle(job, flow)
  end

  time_out_flow = function(job)
    local flow = flow_of(job.id)
    put_timed(P .. ':lease', job.id .. ':' .. int(job.a), NOW + STOP_AGAIN_MS)
    if job.cb == '' and not flow.g then
      flow.g = 'timeout'
      call('HSET', flow.key, 'g', flow.g)
    end
    stop_steps(flow, BY, '"the flow ran out of time"')
    settle(job, flow)
  end

  -- Skip all that waits for a step, directly or not.
  local function skip_after(flow, i)
    local ended = { i }
    while #ended > 0 do
      for _, following in ipairs(step_of(flow, table.remove(ended)).t or {}) do
        if not call('HGET', flow.key, 's' .. int(following)) then
          skip(flow, following)
          ended[#ended + 1] = following
        end
      end
    end
  end

  local function begin_after(job, flow, i)
    for _, following in ipairs(step_of(flow, i).t or {}) do
      if call('HINCRBY', flow.key, 'w' .. int(following), -1) == 0 then begin_step(job, flow, following) end
    end
  end

  end_part = function(part)
    if part.fl then
      call('UNLINK', P .. ':fw:' .. part.id)
      flows[part.id] = false
    end
    local flow = part.pa and flow_of(part.pa)
    if not flow then return end
    local job, i = load(part.pa), part.pi
    end_step(flow, i, part.s)
    if flow.is_busy then return end
    if job.cb == '' and not flow.g then
      if part.s == 'completed' then
        begin_after(job, flow, i)
      elseif flow.p == 'continue' then
        skip_after(flow, i)
      else
        flow.g = 'failed'
        call('HSET', flow.key, 'g', flow.g)
        stop_steps(flow, BY, '"step ' .. step_of(flow, i).n .. ' did not succeed"')
      end
    end
    settle(job, flow, step_of(flow, i).n)
  end

  begin_flow = function(job)
    -- It stands in no line: it runs before any worker could see it, or is parked.
    local place = job.p * PRIORITY
    if job.s ~= 'queued' then
      become(job, 'queued', place)
      emit(job, 'queued', queued_data(job))
    end
    if job.ck then
      if call('ZCARD', P .. ':h:' .. job.ck) >= job.cl then
        put(P .. ':q:' .. job.q, job.id, false)
        put(P .. ':p:' .. job.ck, job.id, place)
        return set(job, 'pk', job.ck)
      end
      call('ZADD', P .. ':h:' .. job.ck, int(NOW), job.id)
    end
    local flow = flow_of(job.id)
    set(job, 'a', 1)
    set(job, 'wk', 'flow')
    set(job, 'st', NOW)
    become(job, 'running', NOW + flow.t)
    emit(job, 'started', '{"worker":"flow","attempt":1}')
    tell(job, flow)
    save_flow(flow)
    for i, waits_for in ipairs(of_all(flow, 'w')) do
      if waits_for == '0' then begin_step(job, flow, i) end
    end
  end

  -- {number of the claim, bytes of all results that its spec needs, name, result or nothing, ...}, without them when they are too many.
  results_for = function(number, spec)
    local needs, bytes = cjson.decode(spec).needs, 0
    for _, id in pairs(needs) do bytes = bytes + call('HSTRLEN', P .. ':x:' .. id, 'r') end
    local found = { number, bytes }
    if bytes > RESULTS_MAX_BYTES then return found end
    for name, id in pairs(needs) do
      found[#found + 1] = name
      found[#found + 1] = call('HGET', P .. ':x:' .. id, 'r')
    end
    return found
  end
end
