-- Read a page of a job's log from a position, or say that the position is not part of its history any more.
-- KEYS[1] shard prefix   ARGV id, epoch ("" for the beginning), seq, limit, max_bytes, with_job (1: always; 0: only on a reset)
-- Returns nil, or {epoch, head, state, owner scope, reset (1|0), {envelopes}, parts or nil}.
-- On a reset the envelopes are those that apply after the snapshot: none, or the terminal event of a job that has ended.
local id, epoch, seq, limit, max_bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local v = call('HMGET', P .. ':j:' .. id, 'e', 'n', 's', 'ow', 'fk')
if not v[1] then return false end
local head, log = tonumber(v[2]), P .. ':e:' .. id

local function place_of(text)
  local at, prev = string.match(text, '^{"job_id":"[^"]+","epoch":"[^"]+","seq":(%d+),"prev":(%d+),')
  if at then return tonumber(at), tonumber(prev) end
  at = tonumber(string.match(text, '^{"job_id":"[^"]+","epoch":"[^"]+","seq":(%d+),'))
  return at, at - 1
end

local length = call('LLEN', log)
local valid = in_history(epoch, seq, v[1], head, v[5] or '')
if valid and length > 0 then
  local _, base = place_of(call('LINDEX', log, 0))
  valid = seq >= base
end
if not valid then
  local events = {}
  if v[3] == 'completed' or v[3] == 'failed' or v[3] == 'cancelled' then events = { call('LINDEX', log, -1) } end
  return { v[1], v[2], v[3], v[4], 1, events, parts(id) }
end

local events = {}
if seq < head and limit > 0 then
  -- Entries after seq are at most head - seq, so the first of them stands at or behind length - (head - seq).
  local low, high = math.max(0, length - (head - seq)), length - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if place_of(call('LINDEX', log, middle)) > seq then high = middle else low = middle + 1 end
  end
  local bytes = 0
  for _, text in ipairs(call('LRANGE', log, low, low + limit - 1)) do
    bytes = bytes + #text
    if bytes > max_bytes and #events > 0 then break end
    events[#events + 1] = text
  end
end
return { v[1], v[2], v[3], v[4], 0, events, ARGV[6] == '1' and parts(id) or false }
