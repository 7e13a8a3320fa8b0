-- Where the logs of many jobs stand, in one call.
-- KEYS[1] shard prefix   ARGV ids
-- Returns for each job {epoch, head, state} or nil.
local reply = {}
for i, id in ipairs(ARGV) do
  local job = read_record(id)
  reply[i] = job and { job.e, job.n, job.s }
end
return reply
