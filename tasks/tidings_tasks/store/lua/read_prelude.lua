-- What every reading script begins with. Reading scripts change nothing and may run on a store that was just emptied.

local function read_record(id)
  local text = call('GET', P .. ':j:' .. id)
  return text and decode_record(text)
end

local GATE_KINDS = { c = 'concurrency', o = 'rate_limit', g = 'rate_limit', d = 'circuit_open' }

-- What a queued job waits for besides its turn: "" | paused | rate_limit | concurrency | circuit_open.
local function reason_to_wait(job)
  local kept = call('HMGET', P .. ':qc', '!' .. job.q, job.q)
  if kept[1] == 'paused' then return 'paused' end
  if job.pk then return GATE_KINDS[string.sub(job.pk, 1, 1)] end
  if not kept[2] then return '' end
  if call('ZSCORE', P .. ':gates', 'q:' .. job.q) then return 'rate_limit' end
  local most = cjson.decode(kept[2]).mr
  return most and tonumber(call('HGET', P .. ':qn', job.q) or 0) >= most and 'concurrency' or ''
end

-- What is in the log's last event, and nowhere else: a field of extras and its value, or nothing.
local function extra_in_log(id, job)
  if not job.lb and job.s ~= 'completed' then return nil end
  local text = call('LINDEX', P .. ':e:' .. id, -1)
  if not text then return nil end
  if job.lb then return 'p', data_of(text) end
  return 'r', string.match(text, ',"data":{"result":(.*),"duration_s":[%d%.]+}}$')
end

-- A job's parts: {id, record fields, spec, extras, place in its queue (0 is next; -1 when it stands in none), reason to wait}, or false.
local function parts(id)
  local job = read_record(id)
  if not job then return false end
  local fields, place, reason = {}, -1, ''
  for name, value in pairs(job) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if job.s == 'queued' then
    place = not job.pk and call('ZRANK', P .. ':q:' .. job.q, id) or -1
    reason = reason_to_wait(job)
  end
  local extras = call('HGETALL', P .. ':x:' .. id)
  local name, value = extra_in_log(id, job)
  if value then extras[#extras + 1], extras[#extras + 2] = name, value end
  return { id, fields, call('GET', P .. ':m:' .. id), extras, place, reason }
end

-- Is position (epoch, seq) part of the history that ends at (current, head)? Forks: "epoch:head,…", oldest first.
local function in_history(epoch, seq, current, head, forks)
  if epoch == '' then return seq == 0 end
  if epoch == current then return seq <= head end
  for name, at in string.gmatch(forks, '([^,:]+):(%d+)') do
    if name == epoch then return seq <= tonumber(at) end
  end
  return false
end
