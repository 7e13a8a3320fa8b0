-- Store jobs: idempotency key, record, first event, queue place, owner index and wake-up, all in one step.
-- KEYS[1] shard prefix
-- ARGV  all_or_none (1|0), max_queue_length, kept_completed_ms, kept_failed_ms, then for each job
--       id, queue, priority, due (ms since the epoch, "+ms" from now, or ""), owner scope, max_attempts,
--       idempotency key ("" for none), request fingerprint, idempotency lifetime ms, spec (JSON)
-- Returns for each job {outcome, id, epoch, seq}; outcome: created | replayed | conflict | full | refused (all_or_none, another failed).
-- A job id that is already stored is answered `created`, since only a repeat of this very command can carry it.
local PER_JOB = 10
local found, room, refused = {}, {}, false
for i = 5, #ARGV, PER_JOB do
  local id, queue, owner, key = ARGV[i], ARGV[i + 1], ARGV[i + 4], ARGV[i + 6]
  local outcome, same = 'created', id
  if call('EXISTS', P .. ':j:' .. id) == 0 then
    local kept = key ~= '' and call('GET', P .. ':i:' .. owner .. ':' .. key)
    if kept then
      local kept_id, print = string.match(kept, '^(%S+) (%S*)$')
      if call('EXISTS', P .. ':j:' .. kept_id) == 1 then
        outcome, same = print == ARGV[i + 7] and 'replayed' or 'conflict', kept_id
      end
    end
    if outcome == 'created' then
      if not room[queue] then room[queue] = tonumber(ARGV[2]) - call('ZCARD', P .. ':q:' .. queue) end
      room[queue] = room[queue] - 1
      if room[queue] < 0 then outcome = 'full' else outcome = 'new' end
    end
  end
  if outcome == 'conflict' or outcome == 'full' then refused = true end
  found[#found + 1] = { outcome, same }
end

local reply = {}
for at, entry in ipairs(found) do
  local i = 5 + (at - 1) * PER_JOB
  local outcome, id = entry[1], entry[2]
  if outcome == 'new' and ARGV[1] == '1' and refused then
    outcome = 'refused'
  elseif outcome == 'new' and call('EXISTS', P .. ':j:' .. id) == 0 then
    local queue, due, owner, key = ARGV[i + 1], ARGV[i + 3], ARGV[i + 4], ARGV[i + 6]
    local job = { id = id, changed = {}, s = '', fk = '', cb = '', wk = '', lk = '', e = GEN, n = 0, a = 0, t = 0, w = 0, lw = 0, b = 0, st = 0 }
    jobs[id] = job
    for f, v in pairs({ q = queue, ow = owner, e = GEN }) do set(job, f, v) end
    for f, v in pairs({ p = tonumber(ARGV[i + 2]), c = NOW, ma = tonumber(ARGV[i + 5]), kc = tonumber(ARGV[3]), kf = tonumber(ARGV[4]) }) do set(job, f, v) end
    call('SET', P .. ':m:' .. id, ARGV[i + 9])
    call('ZADD', P .. ':o:' .. owner, 0, id)
    for _, feed in ipairs(feeds_of(job)) do call('ZADD', P .. ':w:' .. feed, 0, id) end
    if key ~= '' then call('SET', P .. ':i:' .. owner .. ':' .. key, id .. ' ' .. ARGV[i + 7], 'PX', ARGV[i + 8]) end
    local due_ms = 0
    if string.sub(due, 1, 1) == '+' then due_ms = NOW + tonumber(string.sub(due, 2)) elseif due ~= '' then due_ms = tonumber(due) end
    if due_ms > NOW then
      set(job, 's', 'scheduled')
      set(job, 'd', due_ms)
      call('ZADD', P .. ':due', int(due_ms), id)
      emit(job, 'scheduled', '{"run_at":"' .. iso(due_ms) .. '"}')
      wake(queue)
    else
      set(job, 's', 'queued')
      place(job)
    end
    call('HINCRBY', P .. ':n:' .. owner, job.s, 1)
    outcome = 'created'
  elseif outcome == 'new' then
    outcome = 'created'
  end
  local job = load(id)
  reply[at] = { outcome, id, job and job.e or '', job and int(job.n) or '0' }
end
save_all()
return reply
