-- Cancel the waiting jobs of a queue, a page of all open jobs at a time, newest first.
-- KEYS[1] shard prefix   ARGV queue, by (JSON), after (id of the last job of the page before, or ""), how many open jobs to look at, dry run (1|0)
-- Returns {how many of them wait in the queue, how many were cancelled, id of the last one looked at or "" at the end}
local queue, by = ARGV[1], ARGV[2]
local ids = call('ZRANGE', P .. ':w:all', ARGV[3] == '' and '+' or '(' .. ARGV[3], '-', 'BYLEX', 'REV', 'LIMIT', 0, ARGV[4])
load_all(ids)
local waiting, cancelled = 0, 0
for _, id in ipairs(ids) do
  local job = load(id)
  if job and job.q == queue and (job.s == 'queued' or job.s == 'scheduled' or job.s == 'retrying') then
    waiting = waiting + 1
    if ARGV[5] ~= '1' then
      cancel_now(job, by, '"the queue was purged"')
      cancelled = cancelled + 1
    end
  end
end
save_all()
return { waiting, cancelled, #ids == tonumber(ARGV[4]) and ids[#ids] or '' }
