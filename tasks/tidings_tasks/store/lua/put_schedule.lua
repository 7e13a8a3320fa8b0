-- Store a schedule, or put a new definition in the place of its old one.
-- KEYS[1] shard prefix
-- ARGV  name, version (new for each definition), definition (JSON), origin, fingerprint of its timing, due next (ms, or "": never),
--       condition: new (it must not be there) | old (it must be) | any, how many schedules there may be
-- Returns stored | unchanged | exists | gone | full. What was counted and whether it is paused stay; so does when it is due next, unless
-- the timing is another. A repeat with the version that is there is answered `stored`.
local name, key = ARGV[1], SCHEDULE .. ARGV[1]
local kept = call('HMGET', key, 'v', 'df', 'og', 'tf', 'ps', 'nx')
if kept[1] == ARGV[2] then return 'stored' end
if kept[1] and ARGV[7] == 'new' then return 'exists' end
if not kept[1] and ARGV[7] == 'old' then return 'gone' end
if kept[2] == ARGV[3] and kept[3] == ARGV[4] then return 'unchanged' end
if not kept[1] and call('ZCARD', DUE) >= tonumber(ARGV[8]) then return 'full' end
local next_due = ARGV[6]
if kept[4] == ARGV[5] then next_due = kept[6] end
call('HSET', key, 'v', ARGV[2], 'df', ARGV[3], 'og', ARGV[4], 'tf', ARGV[5], 'nx', next_due)
put(DUE, name, kept[5] and NEVER or tonumber(next_due) or NEVER)
save_all()
return 'stored'
