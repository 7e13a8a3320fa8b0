-- Run a schedule now, besides its due times and whether or not it is paused.
-- KEYS[1] shard prefix   ARGV name, version, max_queue_length, then one job, as storing.lua reads it
-- Returns created | gone | changed (the version is another) | full | draining. A repeat with the same job id changes nothing.
local name, key = ARGV[1], SCHEDULE .. ARGV[1]
local kept = call('HMGET', key, 'v', 'op')
if not kept[1] then return 'gone' end
if kept[1] ~= ARGV[2] then return 'changed' end
local wanted = read_wanted(4)
if not wanted then return redis.error_reply('INVALID a job to be stored has a malformed argument') end
local id = wanted[1].id
local is_repeat = call('EXISTS', P .. ':j:' .. id, P .. ':t:' .. id) > 0
local outcome = store_jobs(wanted, false, tonumber(ARGV[3]))[1].outcome
if outcome == 'created' and not is_repeat then
  local open = open_among(kept[2])
  open[#open + 1] = id
  call('HSET', key, 'lj', id, 'lr', int(NOW), 'op', table.concat(open, ' '))
  call('HINCRBY', key, 'nr', 1)
end
save_all()
return outcome
