// What all scripts begin with.

/** For how long a task that is over is kept, in seconds. */
export const kept = 7 * 24 * 60 * 60;

/** Where cancelled tasks are, which BullMQ does not have. */
export const cancelledSet = 'tasks-cancelled';

export const shared = `
local call, prefix, now = redis.call, ARGV[1], tonumber(ARGV[2])

local function key(type) return prefix .. type end

local function lockOf(id) return key(id) .. ':lock' end

local function wake() call('ZADD', key('marker'), 0, '0') end

-- Behind those of its priority, or before them.
local function line(id, priority, isFirst)
  if priority == 0 then
    call(isFirst and 'RPUSH' or 'LPUSH', key('wait'), id)
  else
    local place = isFirst and 0 or call('INCR', key('pc')) % 0x100000000
    call('ZADD', key('prioritized'), priority * 0x100000000 + place, id)
  end
end

local function queue(id, isFirst)
  line(id, tonumber(call('HGET', key(id), 'priority')) or 0, isFirst)
  call('HSET', key(id), 'delay', 0)
  wake()
end

local function delay(id, ms)
  call('ZADD', key('delayed'), (now + ms) * 0x1000, id)
  call('HSET', key(id), 'delay', ms)
  local first = call('ZRANGE', key('delayed'), 0, 0, 'WITHSCORES')
  call('ZADD', key('marker'), tonumber(first[2]) / 0x1000, '1')
end

-- Of a task that waits behind one that runs. That one has their key again.
local function leaveLine(id)
  if call('ZREM', key('waiting-children'), id) == 0 then return false end
  call('DEL', key(id) .. ':dependencies')
  local fields = call('HMGET', key(id), 'tasks:behind', 'deid')
  if fields[1] then call('HDEL', key(fields[1]), 'parentKey', 'parent') end
  if fields[1] and fields[2] then call('SET', key('de:' .. fields[2]), fields[1]) end
  return true
end

-- Of a task that waits, or whose worker has died.
local function takeOut(id)
  call('SREM', key('stalled'), id)
  return call('ZREM', key('prioritized'), id) == 1 or call('ZREM', key('delayed'), id) == 1 or leaveLine(id)
    or call('LREM', key('wait'), 1, id) == 1 or call('LREM', key('active'), 1, id) == 1
end

-- Of a task that is over: frees its key, and lets the one run that waits behind it.
local function free(id)
  local fields = call('HMGET', key(id), 'deid', 'parentKey')
  local deid, behind = fields[1], fields[2]
  if deid and call('GET', key('de:' .. deid)) == id then call('DEL', key('de:' .. deid)) end
  if not behind or string.sub(behind, 1, #prefix) ~= prefix then return end
  if call('SREM', behind .. ':dependencies', key(id)) == 0 or call('SCARD', behind .. ':dependencies') > 0 then return end
  local follower = string.sub(behind, #prefix + 1)
  if call('ZREM', key('waiting-children'), follower) == 0 then return end
  local ms = tonumber(call('HGET', behind, 'delay')) or 0
  if ms > 0 then delay(follower, ms) else queue(follower, false) end
end

local function erase(id)
  for _, set in ipairs({ 'completed', 'failed', '${cancelledSet}' }) do call('ZREM', key(set), id) end
  call('DEL', key(id), key(id) .. ':logs', key(id) .. ':dependencies', key(id) .. ':processed', key(id) .. ':failed', key(id) .. ':unsuccessful')
end

local function endAsCancelled(id)
  free(id)
  call('HDEL', key(id), 'tasks:marked')
  call('HSET', key(id), 'finishedOn', now, 'tasks:cancelled', 1)
  call('ZADD', key('${cancelledSet}'), now, id)
  for _, old in ipairs(call('ZRANGEBYSCORE', key('${cancelledSet}'), '-inf', now - ${kept * 1000}, 'LIMIT', 0, 100)) do erase(old) end
end

-- Takes a job from the worker that holds it. False where that is another one by now.
local function release(id, token)
  if call('GET', lockOf(id)) ~= token then return false end
  call('DEL', lockOf(id))
  call('SREM', key('stalled'), id)
  call('LREM', key('active'), -1, id)
  return true
end
`;
