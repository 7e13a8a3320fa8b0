-- One step of a worker: its numbered writes in order, upkeep of the shard (due jobs, gates, lapsed leases, retention), the next claims.
-- KEYS[1] shard prefix
-- ARGV  worker id, call number, lease_ms, number of writes W, how many jobs to claim at most,
--       W x {id, attempt, write number, verb, data (JSON), extra},
--       then {queue, how many wanted} in the order in which the worker prefers them; naming a queue, even with 0 wanted,
--       gives back the wake token that the worker may have taken, when jobs are left in it
--   verbs: progress | log | output      data is the event's data
--          complete                      data is the result, extra what the attempt used (JSON) or ""
--          retry                         data is the error; counts as a try, and fails the job that has none left
--          fail                          data is the error
--          cancel                        data is the reason (JSON string or null), unless who asked for it gave one
--          release                       hand-back at shutdown, to the front of the line; counts nothing
--   extra of retry and fail: JSON {"delay_ms" (retry), "dead" (fail: belongs among the dead letters), "stack", "usage"}, the last two optional
-- Returns {now ms, ms until something falls due (-1: nothing), {a code for each write}, {id, attempt, queue, tries, spec, ...},
--   {number of a claim, bytes of the results that its input refers to, {name, result or nothing, ...}: none when they are too many}}
--   codes: 1 done | 2 done, and the job's cancellation was asked for | 3 a repeat, nothing changed | 0 refused: another attempt, or over
-- A repeat of a call (same worker and call number) is answered with the jobs it claimed the first time; a worker may have
-- up to eight calls on their way. Atomic.
local WRITES_FROM, PER_WRITE = 6, 6
local call_number, writes, most = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
worker, lease_ms = ARGV[1], tonumber(ARGV[3])
local wants_from = WRITES_FROM + writes * PER_WRITE

local extras, written = {}, {}
for i = WRITES_FROM, wants_from - 1, PER_WRITE do
  local verb = ARGV[i + 3]
  extras[i] = ARGV[i + 5] and read_extra(verb, ARGV[i + 5])
  if not (VERBS[verb] and tonumber(ARGV[i + 1]) and tonumber(ARGV[i + 2]) and extras[i]) then
    return redis.error_reply('INVALID a write has a malformed argument')
  end
  written[#written + 1] = ARGV[i]
end

load_all(written)
local codes = {}
for i = WRITES_FROM, wants_from - 1, PER_WRITE do
  local job, number = load(ARGV[i]), tonumber(ARGV[i + 2])
  local code = 0
  if job and job.a == tonumber(ARGV[i + 1]) then
    if number <= job.w then
      code = 3
    elseif job.s == 'running' then
      set(job, 'w', number)
      said_of_dependency = nil
      VERBS[ARGV[i + 3]](job, ARGV[i + 4], extras[i])
      code = job.cb ~= '' and 2 or 1
    end
  end
  codes[#codes + 1] = code
end
said_of_dependency = nil

keep_up()
wake_for_room()
if wants_from <= #ARGV then claim_wanted(call_number, most, wants_from) end
save_buckets()
save_all()
local claims, results = read_claims()
return { int(NOW), NEXT == FOREVER and '-1' or int(math.max(0, NEXT - NOW)), codes, claims, results }
