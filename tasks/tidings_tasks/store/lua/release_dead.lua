-- Take jobs out of the dead letters; they stay failed, and are kept as long as others.
-- KEYS[1] shard prefix   ARGV ids
-- Returns the ids of those that were dead letters until now
local reply = {}
load_all(ARGV)
for _, id in ipairs(ARGV) do
  local job = load(id)
  if job and job.fp then
    unbury(job)
    reply[#reply + 1] = id
  end
end
save_all()
return reply
