// What is told of tasks.

import { cancelledSet } from './shared.js';

/** What `ARGV` holds behind the prefix and the time stands above each. */
export const looking = {
  // How many fields, the fields, ids: of each the fields, when it was completed, whether it is held, its place among the delayed.
  find: `
    local last, records = 3 + tonumber(ARGV[3]), {}
    for i = last + 1, #ARGV do
      local id = ARGV[i]
      local values = call('HMGET', key(id), unpack(ARGV, 4, last))
      values[#values + 1] = call('ZSCORE', key('completed'), id)
      values[#values + 1] = call('EXISTS', lockOf(id))
      values[#values + 1] = call('ZSCORE', key('delayed'), id)
      records[#records + 1] = values
    end
    return records`,

  // name or nothing, whether held or nothing, ids: returns those that fit.
  fitting: `
    local name, held, found = ARGV[3], ARGV[4], {}
    for i = 5, #ARGV do
      local id = ARGV[i]
      local isNamed = name == '' or call('HGET', key(id), 'name') == name
      if isNamed and (held == '' or call('EXISTS', lockOf(id)) == tonumber(held)) then found[#found + 1] = id end
    end
    return found`,

  stats: `
    local function dueAt(id)
      local fields = call('HMGET', key(id), 'tasks:due', 'timestamp', 'opts')
      local isRead, opts = pcall(cjson.decode, fields[3])
      return tonumber(fields[1]) or (tonumber(fields[2]) or now) + (isRead and tonumber(opts.delay) or 0)
    end

    local waiting = call('LLEN', key('wait')) + call('ZCARD', key('prioritized'))
    local running = 0
    for _, id in ipairs(call('LRANGE', key('active'), 0, -1)) do
      if call('EXISTS', lockOf(id)) == 1 then running = running + 1 else waiting = waiting + 1 end
    end
    local due = waiting + call('ZCOUNT', key('delayed'), '-inf', now * 0x1000 + 0xfff)
    local queued = waiting + call('ZCARD', key('delayed')) + call('ZCARD', key('waiting-children'))

    -- The first one of each priority. It is not always the oldest: one that was given back is before the others.
    local heads, least = { call('LINDEX', key('wait'), -1) or nil }, '-inf'
    for _ = 1, 100 do
      local head = call('ZRANGEBYSCORE', key('prioritized'), least, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      if #head == 0 then break end
      heads[#heads + 1] = head[1]
      least = (math.floor(tonumber(head[2]) / 0x100000000) + 1) * 0x100000000
    end
    local oldest = now
    for _, id in ipairs(heads) do oldest = math.min(oldest, dueAt(id)) end
    -- Tasks that nobody knows are put aside for seconds. They are due all the same.
    for _, id in ipairs(call('ZRANGEBYSCORE', key('delayed'), (now + 1) * 0x1000, (now + 60000) * 0x1000, 'LIMIT', 0, 1000)) do
      if call('HEXISTS', key(id), 'tasks:refused') == 1 then
        due = due + 1
        oldest = math.min(oldest, dueAt(id))
      end
    end
    local delayed = call('ZRANGE', key('delayed'), 0, 0, 'WITHSCORES')
    if #delayed > 0 then oldest = math.min(oldest, tonumber(delayed[2]) / 0x1000) end

    return { queued, due, running, call('ZCARD', key('completed')), call('ZCARD', key('failed')),
      call('ZCARD', key('${cancelledSet}')), math.floor(oldest) }`,
};
