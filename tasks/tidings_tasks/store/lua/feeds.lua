-- Feeds: each owner's, each org's, and that of all; a numbered, capped log of lifecycle events.
local FEED_MAX_ENTRIES, FEED_DATA_MAX_BYTES = 1000, 8192
-- A feed's numbering outlives its log by far, so that no position of an expired log, "0:0" included, looks complete.
local FEED_LOG_KEPT_MS, FEED_HEAD_KEPT_MS, FEED_TTL_SET_EVERY_MS = 2592000000, 34560000000, 86400000

local feeds, feeds_of_owner

begin_with(function() feeds, feeds_of_owner = {}, {} end)

-- A job's feeds. `is_heard` tells whether somebody listens to one.
local function feeds_of(job)
  local found = feeds_of_owner[job.ow]
  if not found then
    local names, channels, new = { 'o:' .. job.ow, 'all' }, {}, {}
    local org = string.match(job.ow, '^([^/]+)/')
    if org then names[3] = 'g:' .. org end
    found = {}
    for i, name in ipairs(names) do
      local feed = feeds[name]
      if not feed then
        feed = { name = name, open = P .. ':w:' .. name, channel = P .. ':fc:' .. name }
        feeds[name] = feed
        new[#new + 1], channels[#channels + 1] = feed, feed.channel
      end
      found[i] = feed
    end
    feeds_of_owner[job.ow] = found
    local listeners = call('PUBSUB', 'SHARDNUMSUB', unpack(channels))
    for i, feed in ipairs(new) do feed.is_heard = listeners[2 * i] > 0 end
  end
  return found
end

-- A feed numbers its entries without folding, so entry i of n from the end has seq head - i + 1.
local function feed_append(feed, text)
  if not feed.new then
    local v = call('HMGET', P .. ':f:' .. feed.name, 'n', 'e', 'g', 'fk', 'x')
    feed.n, feed.e, feed.fk, feed.ttl_set_ms = tonumber(v[1] or 0), v[2], v[4] or '', tonumber(v[5] or 0)
    if v[3] ~= GEN then
      if feed.e then feed.fk = add_fork(feed.fk, feed.e, feed.n) end
      feed.e = GEN .. '_' .. string.format('%x', NOW)
      feed.is_forked = true
    end
    feed.new = {}
  end
  feed.n = feed.n + 1
  feed.new[#feed.new + 1] = text
  if feed.is_heard then call('SPUBLISH', feed.channel, feed.e .. ':' .. feed.n .. '\n' .. text) end
end

local function save_feed(feed)
  local key, log = P .. ':f:' .. feed.name, P .. ':fl:' .. feed.name
  local added = #feed.new
  local length = call('RPUSH', log, unpack(feed.new, math.max(1, added - FEED_MAX_ENTRIES + 1)))
  if length > FEED_MAX_ENTRIES then call('LTRIM', log, -FEED_MAX_ENTRIES, -1) end
  call('HSET', key, 'n', feed.n)
  if feed.is_forked then call('HSET', key, 'e', feed.e, 'g', GEN, 'fk', feed.fk) end
  if length <= added or NOW - feed.ttl_set_ms >= FEED_TTL_SET_EVERY_MS then
    call('HSET', key, 'x', NOW)
    call('PEXPIRE', key, FEED_HEAD_KEPT_MS)
    call('PEXPIRE', log, FEED_LOG_KEPT_MS)
  end
  feed.new = nil
end

-- A feed passes progress on without a number, and does not keep it.
local function pass_progress(job, text)
  for _, feed in ipairs(feeds_of(job)) do
    if feed.is_heard then call('SPUBLISH', feed.channel, '-\n' .. text) end
  end
end
