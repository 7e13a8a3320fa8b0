-- What every reading script begins with. Reading scripts change nothing and may run on a store that was just emptied.

local function read_record(id)
  local text = call('GET', P .. ':j:' .. id)
  return text and decode_record(text)
end

-- A job's parts: {id, record fields, spec, extras, place in its queue (0 is next; -1 when not queued)}, or false.
local function parts(id)
  local job = read_record(id)
  if not job then return false end
  local fields, place = {}, -1
  for name, value in pairs(job) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if job.s == 'queued' then place = call('ZRANK', P .. ':q:' .. job.q, id) or -1 end
  return { id, fields, call('GET', P .. ':m:' .. id), call('HGETALL', P .. ':x:' .. id), place }
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
