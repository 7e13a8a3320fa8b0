-- Fair lines: within a queue and a priority the owners take turns, whoever has how many jobs there.
--
-- The n-th waiting job of an owner has turn n, counted from the turn the line is at, and the line is served by turn: start-time
-- fair queuing with jobs of one size (Goyal, Vin, Cheng 1996). Jobs of one turn go by id, so by age. An owner without jobs saves up nothing.
local PRIORITY, FIRST_TURN = 281474976710656, 1099511627776

local fronts -- queue and priority -> the turn that the line is at; as long as nothing is claimed in this script
local turns -- key of the owners' last turns -> owner and priority -> turn
local empty -- queues and priorities whose line was empty, with nobody parked: no turn of it says anything

begin_with(function() fronts, turns, empty = {}, {}, {} end)

-- Whether, beside so many that stand in a queue's line, jobs are parked, from where they come back to their old places.
local function has_parked(queue, standing)
  local difference = counts[':qn'] and counts[':qn']['w:' .. queue] or 0
  return tonumber(call('HGET', P .. ':qn', 'w:' .. queue) or 0) + difference > standing
end

local function front_of(job)
  local name = job.q .. '/' .. int(job.p)
  local front = fronts[name]
  if not front then
    local from = job.p * PRIORITY
    flush_indexes()
    local first = call('ZRANGE', P .. ':q:' .. job.q, int(from), '(' .. int(from + PRIORITY), 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    front = first[2] and tonumber(first[2]) - from or FIRST_TURN
    fronts[name] = front
    if not first[2] and not has_parked(job.q, call('ZCARD', P .. ':q:' .. job.q)) then
      empty[name] = true
      call('ZREMRANGEBYSCORE', P .. ':v:' .. job.q, int(from), '(' .. int(from + PRIORITY))
    end
  end
  return front
end

-- The owner's last turn in this line, or nothing when the owner has no job left in any.
local function last_turn(job, key, member)
  local known = turns[key]
  if not known then
    known = {}
    turns[key] = known
  end
  if known[member] == nil then
    local score = not empty[job.q .. '/' .. int(job.p)] and call('ZSCORE', key, member)
    -- Jobs that were cancelled keep nobody back: who waits nowhere begins at the front.
    local owner = ':n:' .. job.ow
    local waiting = score and tonumber(call('HGET', P .. owner, 'queued') or 0) + (counts[owner] and counts[owner].queued or 0)
    if waiting == 0 then score = false end
    known[member] = score and tonumber(score) - job.p * PRIORITY
  end
  return known[member]
end

-- A new place at the end of the owner's line, or before all of the priority.
local function place_in_line(job, is_first)
  local front = front_of(job)
  if is_first then return job.p * PRIORITY + front - 1 end
  local key, member = P .. ':v:' .. job.q, int(job.p) .. '/' .. job.ow
  local last = last_turn(job, key, member)
  local turn = last and last >= front and last + 1 or front
  turns[key][member] = turn
  put(key, member, job.p * PRIORITY + turn)
  return job.p * PRIORITY + turn
end

-- A job that leaves the line unclaimed gives its turn back, when it was its owner's last.
local function leave_line(job)
  local key, member = P .. ':v:' .. job.q, int(job.p) .. '/' .. job.ow
  flush_indexes()
  local score = call('ZSCORE', P .. ':q:' .. job.q, job.id)
  if score and call('ZSCORE', key, member) == score then put(key, member, tonumber(score) - 1) end
end

-- All before this place of a line has left it: turns before it say nothing any more.
local function forget_turns(queue, score) call('ZREMRANGEBYSCORE', P .. ':v:' .. queue, '-inf', '(' .. score) end
