-- Store jobs, each whole or not at all; storing.lua says how.
-- KEYS[1] shard prefix
-- ARGV  all_or_none (1|0), max_queue_length, then for each job id, queue, priority, due, owner scope, max_attempts, idempotency key,
--       request fingerprint, lifetime of the key ms, spec, more: see storing.lua
-- Returns for each job {outcome, id, epoch, seq}; outcome: created | replayed | conflict | duplicate | full | draining | refused.
-- A job id that is stored, or was until a moment ago, is answered `created`, since only a repeat of this very command can
-- carry it. An idempotency key that two jobs of one call share belongs to the first. max_queue_length bounds each queue without a limit
-- of its own, and what waits for its due time.
local PER_JOB = 11
local all = {}
for i = 3, #ARGV, PER_JOB do
  local wanted = {
    id = ARGV[i], q = ARGV[i + 1], p = tonumber(ARGV[i + 2]), due = ARGV[i + 3], ow = ARGV[i + 4], ma = tonumber(ARGV[i + 5]),
    key = ARGV[i + 6], print = ARGV[i + 7], kept_ms = ARGV[i + 8], spec = ARGV[i + 9], more = ARGV[i + 10],
  }
  if not (wanted.more and is_well_formed(wanted)) then return redis.error_reply('INVALID a job to be stored has a malformed argument') end
  all[#all + 1] = wanted
end
local found = store_jobs(all, ARGV[1] == '1', tonumber(ARGV[2]))
save_all()

local reply = {}
for at, entry in ipairs(found) do
  local job = load(entry.id)
  reply[at] = { entry.outcome, entry.id, job and job.e or '', job and int(job.n) or '0' }
end
return reply
