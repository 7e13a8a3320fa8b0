-- Cancel a job: at once while it waits, by asking its worker while it runs.
-- KEYS[1] shard prefix   ARGV id, who asks (JSON), reason (JSON)
-- Returns {outcome, state, epoch, head}; outcome: cancelled | cancelling | terminal | gone. Asking twice changes nothing.
local job = load(ARGV[1])
if not job then return { 'gone', '', '', '0' } end
local outcome
if job.s == 'running' then
  outcome = 'cancelling'
  if job.cb == '' then
    set(job, 'cb', ARGV[2])
    emit(job, 'cancelling', '{"by":' .. ARGV[2] .. '}')
    local mailbox = P .. ':mb:' .. job.wk
    call('RPUSH', mailbox, 'cancel ' .. job.id .. ':' .. int(job.a))
    call('LTRIM', mailbox, -1000, -1)
    call('PEXPIRE', mailbox, 60000)
  end
elseif TERMINAL[job.s] then
  outcome = 'terminal'
else
  outcome = 'cancelled'
  call('ZREM', P .. ':q:' .. job.q, job.id)
  call('ZREM', P .. ':due', job.id)
  cancel_now(job, ARGV[2], ARGV[3])
end
save_all()
return { outcome, job.s, job.e, int(job.n) }
