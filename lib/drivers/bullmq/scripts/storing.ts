// How tasks get into a queue where BullMQ has no call for it.

/** What `ARGV` holds behind the prefix and the time stands above each. */
export const storing = {
  // name, opts, delay, priority, then id and data of each
  insertMany: `
    local name, opts, ms, priority = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
    for i = 7, #ARGV, 2 do
      local id = ARGV[i]
      if call('EXISTS', key(id)) == 0 then
        call('HSET', key(id), 'name', name, 'data', ARGV[i + 1], 'opts', opts, 'timestamp', now, 'delay', ms, 'priority', priority)
        if ms > 0 then delay(id, ms) else line(id, priority, false) end
      end
    end
    wake()`,

  // name, opts, delay, priority, id, data, deid: returns the id of the task with the key; false where none is live.
  again: `
    local name, opts, ms, priority, id, data, deid = unpack(ARGV, 3)
    local de = key('de:' .. deid)
    local live = call('GET', de)
    if call('EXISTS', key(id)) == 1 then return id end
    if not live or call('EXISTS', key(live)) == 0 then return false end
    local message = { 'name', name, 'data', data, 'opts', opts, 'delay', ms, 'priority', priority }
    if call('ZSCORE', key('waiting-children'), live) then
      call('HSET', key(live), unpack(message))
      return live
    end
    if call('EXISTS', lockOf(live)) == 0 then return live end
    call('HSET', key(id), 'timestamp', now, 'deid', deid, 'tasks:behind', live, unpack(message))
    call('ZADD', key('waiting-children'), now, id)
    call('SADD', key(id) .. ':dependencies', key(live))
    local parent = { id = id, queueKey = string.sub(prefix, 1, -2), rdof = true }
    call('HSET', key(live), 'parentKey', key(id), 'parent', cjson.encode(parent))
    call('SET', de, id)
    return id`,
};
