-- Cancel a job: at once while it waits, by asking its worker while it runs.
-- KEYS[1] shard prefix   ARGV id, who asks (JSON), reason (JSON)
-- Returns {outcome, state, epoch, head}; outcome: cancelled | cancelling | terminal | gone. Asking twice changes nothing.
local job = load(ARGV[1])
if not job then return { 'gone', '', '', '0' } end
local outcome = cancel(job, ARGV[2], ARGV[3])
save_all()
return { outcome, job.s, job.e, int(job.n) }
