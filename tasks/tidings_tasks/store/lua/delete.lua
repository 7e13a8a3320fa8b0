-- Remove an ended job: record, log, result, index.
-- KEYS[1] shard prefix   ARGV id
-- Returns deleted | gone | open (not ended, nothing removed).
local job = load(ARGV[1])
if not job then return 'gone' end
if not TERMINAL[job.s] then return 'open' end
purge(job)
save_all()
return 'deleted'
