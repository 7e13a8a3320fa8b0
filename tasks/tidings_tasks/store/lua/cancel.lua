-- Cancel a job: at once while it waits, by asking its worker while it runs.
-- KEYS[1] shard prefix   ARGV id, who asks (JSON), reason (JSON)
-- Returns {outcome, state, epoch, head}; outcome: cancelled | cancelling | terminal | gone. Asking twice changes nothing.
local MAILBOX_MAX, MAILBOX_KEPT_MS = 1000, 60000
local job = load(ARGV[1])
if not job then return { 'gone', '', '', '0' } end
local outcome
if job.s == 'running' then
  outcome = 'cancelling'
  if job.cb == '' then
    set(job, 'cb', ARGV[2])
    if ARGV[3] ~= 'null' then set(job, 'cr', ARGV[3]) end
    emit(job, 'cancelling', '{"by":' .. ARGV[2] .. '}')
    local mailbox = P .. ':mb:' .. job.wk
    call('RPUSH', mailbox, 'cancel ' .. job.id .. ':' .. int(job.a))
    call('LTRIM', mailbox, -MAILBOX_MAX, -1)
    call('PEXPIRE', mailbox, MAILBOX_KEPT_MS)
  end
elseif TERMINAL[job.s] then
  outcome = 'terminal'
else
  outcome = 'cancelled'
  cancel_now(job, ARGV[2], ARGV[3])
end
save_all()
return { outcome, job.s, job.e, int(job.n) }
