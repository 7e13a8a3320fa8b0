-- What reading and writing scripts share: times, envelopes, and a job's record.
--
-- A script is loaded once as a function of a library, with the files it builds on in front: what stands in those is made once. What is
-- true of one call alone is set anew by begin_with: it runs before each call, in the order of the files, and may refuse the call.
local KEYS, ARGV, P
local call -- redis.call; there is none while a library is loaded
local beginnings = {}

local function begin_with(begin) beginnings[#beginnings + 1] = begin end

local function begin_call(keys, argv)
  KEYS, ARGV, P, call = keys, argv, keys[1], redis.call
  for i = 1, #beginnings do
    local refusal = beginnings[i]()
    if refusal then return refusal end
  end
end

local COMPLETED_KEPT_MS, FAILED_KEPT_MS = 604800000, 2592000000

-- A record leaves out what is as it always begins.
local RECORD = { __index = {
  s = '', fk = '', wk = '', cb = '', cr = '', n = 0, b = 0, a = 0, t = 0, w = 0, lw = 0, st = 0,
  kc = COMPLETED_KEPT_MS, kf = FAILED_KEPT_MS,
} }

-- Numbers as text. Lua formats each one anew, which costs a third of a call of Valkey; small ones are kept from call to call.
local SMALL = 1000
local ints, twos, threes = {}, {}, {}

local function kept(texts, form, x)
  local text = string.format(form, x)
  if x >= 0 and x < SMALL then texts[x] = text end
  return text
end

local function int(x) return ints[x] or kept(ints, '%d', x) end
local function two(x) return twos[x] or kept(twos, '%02d', x) end
local function three(x) return threes[x] or kept(threes, '%03d', x) end

local day_number, day_text, iso_ms, iso_text

-- Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
local function civil(days)
  if days == day_number then return day_text end
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  day_number = days
  day_text = string.format('%04d-%02d-%02dT', yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - math.floor((153 * mp + 2) / 5) + 1)
  return day_text
end

local function iso(ms)
  if ms == iso_ms then return iso_text end
  local s = math.floor(ms / 1000)
  local days = math.floor(s / 86400)
  local rest = s - days * 86400
  iso_ms = ms
  iso_text = civil(days) .. two(math.floor(rest / 3600)) .. ':' .. two(math.floor(rest / 60) % 60) .. ':' .. two(rest % 60) .. '.' ..
    three(ms - s * 1000) .. 'Z'
  return iso_text
end

-- Milliseconds as seconds with three decimals.
local function seconds(ms)
  ms = math.floor(ms)
  local s = math.floor(ms / 1000)
  return int(s) .. '.' .. three(ms - s * 1000)
end

local function decode_record(text) return setmetatable(cmsgpack.unpack(text), RECORD) end

local function envelope(id, epoch, seq, kind, at, attempt, data)
  return '{"job_id":"' .. id .. '","epoch":"' .. epoch .. '","seq":' .. int(seq) .. ',"kind":"' .. kind .. '","at":"' .. at ..
    '","attempt":' .. int(attempt) .. ',"data":' .. data .. '}'
end

-- The same of an event that follows directly on seq `prev`, because progress before it was folded away.
local function folded_envelope(id, epoch, seq, prev, kind, at, attempt, data)
  return '{"job_id":"' .. id .. '","epoch":"' .. epoch .. '","seq":' .. int(seq) .. ',"prev":' .. int(prev) .. ',"kind":"' .. kind ..
    '","at":"' .. at .. '","attempt":' .. int(attempt) .. ',"data":' .. data .. '}'
end

-- The data of an event of a log.
local function data_of(text) return string.match(text, '^.-,"data":(.*)}$') end

local function queued_data(job, reason)
  return '{"queue":' .. cjson.encode(job.q) .. ',"priority":' .. int(job.p) .. (reason or '') .. '}'
end

local function scheduled_data(job) return '{"run_at":"' .. iso(job.d) .. '"}' end

-- The first events of a job whose log is not kept yet: of one that only waits, and (dl in its record) of one that runs for the first time
-- and has said nothing. They are made when they are asked for: most jobs end so, and are then written once.
local function opening_event(id, job)
  return envelope(id, job.e, 1, job.d and 'scheduled' or 'queued', iso(job.c), 0, job.d and scheduled_data(job) or queued_data(job))
end

local function first_start(job) return '{"worker":' .. cjson.encode(job.wk) .. ',"attempt":1}' end

local function started_event(id, job) return envelope(id, job.e, 2, 'started', iso(job.st), 1, first_start(job)) end
