-- Store jobs, each whole or not at all; storing.lua says how.
-- KEYS[1] shard prefix
-- ARGV  all_or_none (1|0), max_queue_length, then for each job id, queue, priority, due, owner scope, max_attempts, idempotency key,
--       request fingerprint, lifetime of the key ms, spec, more: see storing.lua
-- Returns for each job {outcome, id, epoch, seq}; outcome: created | replayed | conflict | duplicate | full | draining | refused.
-- A job id that is stored, or was until a moment ago, is answered `created`, since only a repeat of this very command can
-- carry it. An idempotency key that two jobs of one call share belongs to the first. max_queue_length bounds each queue without a limit
-- of its own, and what waits for its due time.
local all = read_wanted(3)
if not all then return redis.error_reply('INVALID a job to be stored has a malformed argument') end
local found = store_jobs(all, ARGV[1] == '1', tonumber(ARGV[2]))
save_all()

local reply = {}
for at, entry in ipairs(found) do
  local job = load(entry.id)
  reply[at] = { entry.outcome, entry.id, job and job.e or '', job and int(job.n) or '0' }
end
return reply
