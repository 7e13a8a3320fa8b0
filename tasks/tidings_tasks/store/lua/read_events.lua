-- Read a page of a job's log from a position, or say that the position is not part of its history any more.
-- KEYS[1] shard prefix   ARGV id, epoch ("" for the beginning), seq, limit, max_bytes, with_job (1: always; 0: only on a reset)
-- Returns nil, or {epoch, head, state, owner scope, reset (1|0), {envelopes}, parts or nil}.
-- On a reset the envelopes are those that apply after the snapshot: none, or the terminal event of a job that has ended.
local id, epoch, seq, limit, max_bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local job = read_record(id)
if not job then return false end
local head, log = job.n, P .. ':e:' .. id
local made = head == 1 and { opening_event(id, job) } or job.dl and { opening_event(id, job), started_event(id, job) }
local length = made and #made or call('LLEN', log)

local function entries(first, last)
  if not made then return call('LRANGE', log, first, last) end
  if first < 0 then first = length + first end
  if last < 0 then last = length + last end
  return { unpack(made, first + 1, math.min(last + 1, length)) }
end

local function place_of(text)
  local at, prev = string.match(text, '^{"job_id":"[^"]+","epoch":"[^"]+","seq":(%d+),"prev":(%d+),')
  if at then return tonumber(at), tonumber(prev) end
  at = tonumber(string.match(text, '^{"job_id":"[^"]+","epoch":"[^"]+","seq":(%d+),'))
  return at, at - 1
end

local _, base = place_of(entries(0, 0)[1])
if seq < base or not in_history(epoch, seq, job.e, head, job.fk) then
  local events = {}
  if job.s == 'completed' or job.s == 'failed' or job.s == 'cancelled' then events = entries(-1, -1) end
  return { job.e, head, job.s, job.ow, 1, events, parts(id) }
end

local events = {}
if seq < head and limit > 0 then
  -- Entries after seq are at most head - seq, so the first of them stands at or behind length - (head - seq).
  local low, high = math.max(0, length - (head - seq)), length - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if place_of(entries(middle, middle)[1]) > seq then high = middle else low = middle + 1 end
  end
  local bytes = 0
  for _, text in ipairs(entries(low, low + limit - 1)) do
    bytes = bytes + #text
    if bytes > max_bytes and #events > 0 then break end
    events[#events + 1] = text
  end
end
return { job.e, head, job.s, job.ow, 0, events, ARGV[6] == '1' and parts(id) or false }
