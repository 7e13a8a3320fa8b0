-- Remove an ended job: record, log, result, index.
-- KEYS[1] shard prefix   ARGV id
-- Returns deleted | gone | open (not ended, nothing removed).
local job = load(ARGV[1])
if not job then return 'gone' end
if not TERMINAL[job.s] then return 'open' end
purge(job)
call('SET', P .. ':t:' .. job.id, '', 'PX', 600000) -- longer than any client goes on repeating the call that stored the job
save_all()
return 'deleted'
