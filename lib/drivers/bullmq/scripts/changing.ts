// What people do with tasks, and tasks with themselves.

import { cancelledSet } from './shared.js';

/** What `ARGV` holds behind the prefix and the time stands above each. */
export const changing = {
  // id
  cancel: `
    local id = ARGV[3]
    if call('EXISTS', key(id)) == 0 then return false end
    if call('HEXISTS', key(id), 'finishedOn') == 1 then return 'over' end
    if call('EXISTS', lockOf(id)) == 1 then
      call('HSET', key(id), 'tasks:marked', 1)
      return 'signalled'
    end
    takeOut(id)
    endAsCancelled(id)
    return 'cancelled'`,

  // ids: returns how many will run again.
  retry: `
    local count = 0
    for i = 3, #ARGV do
      local id = ARGV[i]
      local deid = call('HGET', key(id), 'deid')
      local live = deid and call('GET', key('de:' .. deid))
      local isKeyFree = not live or live == id or call('EXISTS', key(live)) == 0
      if isKeyFree and call('ZREM', key('failed'), id) + call('ZREM', key('${cancelledSet}'), id) > 0 then
        if deid then call('SET', key('de:' .. deid), id) end
        call('HDEL', key(id), 'finishedOn', 'atm', 'stc', 'defa', 'parentKey', 'parent', 'tasks:alone', 'tasks:refused',
          'tasks:marked', 'tasks:cancelled', 'tasks:behind')
        call('HSET', key(id), 'tasks:due', now)
        queue(id, false)
        count = count + 1
      end
    end
    return count`,

  // id
  promote: `
    local due = tonumber(call('ZSCORE', key('delayed'), ARGV[3]) or 0)
    if due / 0x1000 <= now or call('HEXISTS', key(ARGV[3]), 'tasks:refused') == 1 then return 0 end
    call('ZREM', key('delayed'), ARGV[3])
    call('HSET', key(ARGV[3]), 'tasks:due', now)
    queue(ARGV[3], false)
    return 1`,

  // a state or nothing, ids: returns how many were removed, of those that are in that state.
  remove: `
    local sets = { succeeded = 'completed', failed = 'failed', cancelled = '${cancelledSet}' }
    local state, count = ARGV[3], 0
    local function isIn(id)
      if sets[state] then return call('ZSCORE', key(sets[state]), id) end
      return state == '' or state == 'queued' and call('HEXISTS', key(id), 'finishedOn') == 0
    end
    for i = 4, #ARGV do
      local id = ARGV[i]
      if call('EXISTS', key(id)) == 1 and call('EXISTS', lockOf(id)) == 0 and isIn(id) then
        if call('HEXISTS', key(id), 'finishedOn') == 0 then takeOut(id) end
        free(id)
        erase(id)
        count = count + 1
      end
    end
    return count`,

  // { id, attempt, json } of each
  setProgress: `
    for i = 3, #ARGV, 3 do
      local id = ARGV[i]
      if call('EXISTS', lockOf(id)) == 1 and call('HGET', key(id), 'ats') == ARGV[i + 1] then
        call('HSET', key(id), 'progress', ARGV[i + 2])
      end
    end`,

  // name, what is stored, what is to be
  advance: `
    if call('HGET', key('tasks-schedules'), ARGV[3]) == ARGV[4] then
      call('HSET', key('tasks-schedules'), ARGV[3], ARGV[5])
    end`,
};
