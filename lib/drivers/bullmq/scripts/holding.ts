// What a worker does with a task that it holds.

/** What `ARGV` holds behind the prefix and the time stands above each. */
export const holding = {
  // id, token, ms to wait or -1 for the front, what to add to ats, atm and tasks:alone, then fields to set. Returns what became of it.
  putBack: `
    local id, token, ms = ARGV[3], ARGV[4], tonumber(ARGV[5])
    if not release(id, token) then return 'lost' end
    for i, field in ipairs({ 'ats', 'atm', 'tasks:alone' }) do
      if ARGV[5 + i] ~= '0' then call('HINCRBY', key(id), field, ARGV[5 + i]) end
    end
    if #ARGV > 8 then call('HSET', key(id), unpack(ARGV, 9)) end
    if ARGV[7] ~= '0' then call('HDEL', key(id), 'stc', 'tasks:alone', 'tasks:refused') end
    if call('HEXISTS', key(id), 'tasks:marked') == 1 then
      endAsCancelled(id)
      return 'cancelled'
    end
    if ms > 0 then delay(id, ms) else queue(id, ms < 0) end
    return 'queued'`,

  // id, token
  endAsCancelled: `
    if release(ARGV[3], ARGV[4]) then endAsCancelled(ARGV[3]) end`,

  // id, token: as if it had not been taken, if it is marked. Returns 1 then.
  endIfMarked: `
    local id, token = ARGV[3], ARGV[4]
    if call('HEXISTS', key(id), 'tasks:marked') == 0 then return 0 end
    if release(id, token) then
      call('HINCRBY', key(id), 'ats', -1)
      endAsCancelled(id)
    end
    return 1`,

  // id, token
  beginAlone: `
    if call('GET', lockOf(ARGV[3])) ~= ARGV[4] then return 0 end
    call('HINCRBY', key(ARGV[3]), 'tasks:alone', 1)
    return 1`,

  // id, token, how often it was unused, data
  adopt: `
    if call('GET', lockOf(ARGV[3])) ~= ARGV[4] then return 0 end
    call('HINCRBY', key(ARGV[3]), 'ats', -ARGV[5])
    call('HSET', key(ARGV[3]), 'data', ARGV[6])
    return 1`,

  // id, token
  unbegun: `
    if call('GET', lockOf(ARGV[3])) == ARGV[4] then call('HINCRBY', key(ARGV[3]), 'ats', -1) end`,

  // id, token, the key of its name, since when. Returns how often it was refused, whether it is known, whether nobody was told.
  refused: `
    local id, token, name, since = unpack(ARGV, 3)
    if call('GET', lockOf(id)) ~= token then return false end
    local isKnown = call('EXISTS', name)
    local isUntold = 0
    if isKnown == 0 and tonumber(call('HGET', key(id), 'tasks:told') or '0') < tonumber(since) then
      call('HSET', key(id), 'tasks:told', now)
      isUntold = 1
    end
    return { call('HINCRBY', key(id), 'tasks:refused', 1), isKnown, isUntold }`,
};
