-- What every reading script begins with. Reading scripts change nothing and may run on a store that was just emptied.
local P = KEYS[1]
local call = redis.call

-- A job's parts: {id, record fields, spec, extras, place in its queue (0 is next; -1 when not queued)}, or false.
local function parts(id)
  local record = call('HGETALL', P .. ':j:' .. id)
  if #record == 0 then return false end
  local queue, state
  for i = 1, #record, 2 do
    if record[i] == 'q' then queue = record[i + 1] elseif record[i] == 's' then state = record[i + 1] end
  end
  local place = -1
  if state == 'queued' then place = call('ZRANK', P .. ':q:' .. queue, id) or -1 end
  return { id, record, call('GET', P .. ':m:' .. id) or '{}', call('HGETALL', P .. ':x:' .. id), place }
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
