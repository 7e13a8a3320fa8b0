-- Renew leases, and learn which jobs were cancelled or lost.
-- KEYS[1] shard prefix   ARGV lease_ms, then {id, attempt} pairs
-- Returns a code for each pair: 1 renewed | 2 renewed, cancellation was asked for | 0 the lease is gone: stop, nothing will be accepted.
local reply = {}
for i = 2, #ARGV, 2 do
  local member = ARGV[i] .. ':' .. ARGV[i + 1]
  if call('ZSCORE', P .. ':lease', member) then
    put_timed(P .. ':lease', member, NOW + tonumber(ARGV[1]))
    reply[#reply + 1] = load(ARGV[i]).cb ~= '' and 2 or 1
  else
    reply[#reply + 1] = 0
  end
end
save_all()
return reply
