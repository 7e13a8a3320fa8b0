-- Change when a waiting job runs: its priority, the time it is due, or both.
-- KEYS[1] shard prefix   ARGV id, priority or "", due (store ms) or ""
-- Returns {outcome, state, epoch, head}; outcome: changed | unchanged | illegal (nothing was done) | gone. Repeating it changes nothing.
-- A change that a watcher can see is an event: `queued` again with the new priority, or `scheduled` with the new time.
local job = load(ARGV[1])
if not job then return { 'gone', '', '', '0' } end
local priority, due_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local outcome = 'unchanged'
local is_retrying = job.s == 'retrying'
if job.s ~= 'queued' and job.s ~= 'scheduled' and not (is_retrying and not (due_ms and due_ms > NOW)) then
  outcome = 'illegal'
else
  if priority and priority ~= job.p then
    outcome = 'changed'
    if job.s == 'queued' and not (due_ms and due_ms > NOW) then
      keep_opening(job)
      if not job.pk then leave_line(job) end
      put(P .. ':q:' .. job.q, job.id, false)
      set(job, 'p', priority)
      put(index_of(job), job.id, place_in_line(job))
      emit(job, 'queued', queued_data(job))
      wakes[job.q] = true
    else
      if job.s == 'queued' then
        keep_opening(job)
        if not job.pk then leave_line(job) end
      end
      set(job, 'p', priority)
    end
  end
  if due_ms and due_ms > NOW then
    if job.s == 'queued' then
      outcome = 'changed'
      keep_opening(job)
      enter_due(job, 'scheduled', due_ms)
      wakes[job.q] = true
    elseif job.d ~= due_ms then
      outcome = 'changed'
      keep_opening(job)
      set(job, 'd', due_ms)
      put_timed(P .. ':due', job.id, due_ms)
      emit(job, 'scheduled', scheduled_data(job))
      wakes[job.q] = true
    end
  elseif due_ms and job.s ~= 'queued' then
    outcome = 'changed'
    enter_queue(job)
  end
end
save_all()
return { outcome, job.s, job.e, int(job.n) }
