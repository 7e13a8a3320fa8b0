-- Read a feed from a position; without one, or when it is not valid any more, its newest open jobs at the head.
-- KEYS[1] shard prefix   ARGV feed, epoch ("" for a snapshot), seq, limit, how many open jobs
-- The open jobs end before they have 1 MiB, but for the first: a bound, since each may carry a large input.
-- Returns {epoch, head, reset (1|0), seq of the first entry, {envelopes}, {parts of open jobs} or nil}.
local feed, epoch, seq, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local v = call('HMGET', P .. ':f:' .. feed, 'e', 'n', 'fk')
local current, head = v[1] or '', tonumber(v[2] or 0)
local log = P .. ':fl:' .. feed
local length = call('LLEN', log)
local valid = epoch ~= '' and in_history(epoch, seq, current, head, v[3] or '') and seq >= head - length
-- A feed nobody has written to yet stands at "0:0"; nothing was missed since then if its whole log is still there.
if epoch == '0' then valid = seq == 0 and head == length end
if valid then
  local from = length - (head - seq)
  return { current, string.format('%.0f', head), 0, seq + 1, call('LRANGE', log, from, from + limit - 1), false }
end
local OPEN_MAX_BYTES = 1048576
local open, bytes = {}, 0
for _, id in ipairs(call('ZRANGE', P .. ':w:' .. feed, 0, tonumber(ARGV[5]) - 1, 'REV')) do
  local job = parts(id)
  if job then
    bytes = bytes + #job[3]
    if bytes > OPEN_MAX_BYTES and #open > 0 then break end
    open[#open + 1] = job
  end
end
return { current, string.format('%.0f', head), epoch ~= '' and 1 or 0, head + 1, {}, open }
