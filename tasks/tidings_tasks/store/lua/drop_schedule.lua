-- Remove a schedule. Its jobs stay.
-- KEYS[1] shard prefix   ARGV name, origin ("" for any): one of another origin stays
-- Returns dropped | gone.
local key = SCHEDULE .. ARGV[1]
local origin = call('HGET', key, 'og')
if not origin or ARGV[2] ~= '' and origin ~= ARGV[2] then return 'gone' end
call('DEL', key)
put(DUE, ARGV[1], false)
save_all()
return 'dropped'
