// The times of a pattern in the nights when the clock is changed. The days are past ones: the time zones of those do not change.

import * as croner from 'croner';
import { FixedTimes, hasFixedTimes } from '../../lib/engine/fixed-times.js';

/** The times after `from`, until `to`. */
function timesBetween(cron: string, timeZone: string, from: string, to: string): string[] {
  const pattern = new FixedTimes(croner, cron, timeZone);
  const times: string[] = [];
  let next = pattern.nextRun(new Date(from));
  while (next && next <= new Date(to)) {
    times.push(next.toISOString());
    next = pattern.nextRun(next);
  }
  return times;
}

/** The same, from the last one back. */
function timesBack(cron: string, timeZone: string, from: string, to: string): string[] {
  const pattern = new FixedTimes(croner, cron, timeZone);
  const times: string[] = [];
  let [previous] = pattern.previousRuns(1, new Date(Date.parse(to) + 1));
  while (previous && previous > new Date(from)) {
    times.unshift(previous.toISOString());
    [previous] = pattern.previousRuns(1, previous);
  }
  return times;
}

const spring = ['2023-03-25T23:00:00Z', '2023-03-26T22:00:00Z'] as const; // In Berlin 2:00 is 3:00.
const autumn = ['2023-10-28T22:00:00Z', '2023-10-29T23:00:00Z'] as const; // In Berlin 3:00 is 2:00.

describe.each([
  ['forwards', timesBetween],
  ['backwards', timesBack],
])('%s', (_title, times) => {
  it.each([
    ['30 2 * * *', ['01:00']],
    ['30 2,14 * * *', ['01:00', '12:30']],
    ['15,45 2 * * *', ['01:00']],
    ['0 2,3 * * *', ['01:00']],
    ['30 1-3 * * *', ['00:30', '01:00', '01:30']],
    ['0,30 30 2 * * *', ['01:00']],
    ['0-59 0-59 2 * * *', ['01:00']],
  ])('a time in the hour that is skipped comes once, when that hour would have begun: %s', (cron, expected) => {
    expect(times(cron, 'Europe/Berlin', ...spring)).toEqual(expected.map((time) => `2023-03-26T${time}:00.000Z`));
  });

  it.each([
    ['30 2 * * *', ['00:30:00']],
    ['30 2,14 * * *', ['00:30:00', '13:30:00']],
    ['15,45 2 * * *', ['00:15:00', '00:45:00']],
    ['0 2,3 * * *', ['00:00:00', '02:00:00']],
    ['30 1-3 * * *', ['23:30:00', '00:30:00', '02:30:00']],
    ['0,30 30 2 * * *', ['00:30:00', '00:30:30']],
  ])('a time in the hour that is repeated comes once, in the first of the two: %s', (cron, expected) => {
    const dayOf = (time: string) => (time.startsWith('23') ? '2023-10-28' : '2023-10-29');
    expect(times(cron, 'Europe/Berlin', ...autumn)).toEqual(expected.map((time) => `${dayOf(time)}T${time}.000Z`));
  });

  it.each([
    ['America/New_York, 2:00 to 3:00', '30 1-3 * * *', '2023-03-12', ['06:30', '07:00', '07:30']],
    ['America/New_York, 2:00 to 1:00', '0,30 1,2 * * *', '2023-11-05', ['05:00', '05:30', '07:00', '07:30']],
    ['Australia/Sydney, 2:00 to 3:00', '15,45 2 * * *', '2023-09-30', ['16:00']],
    ['Australia/Sydney, 3:00 to 2:00', '15,45 2 * * *', '2023-04-01', ['15:15', '15:45']],
    ['Australia/Lord_Howe, 2:00 to 2:30', '0,15,30,45 2 * * *', '2023-09-30', ['15:30', '15:45']],
    ['Australia/Lord_Howe, 2:00 to 1:30', '15,45 1,2 * * *', '2023-04-01', ['14:15', '14:45', '15:45', '16:15']],
    ['America/Sao_Paulo, 0:00 to 1:00', '0,30 0,1 * * *', '2018-11-04', ['03:00', '03:30']],
    ['Asia/Beirut, 0:00 to 1:00', '15,45 0,23 * * *', '2022-03-26', ['21:15', '21:45', '22:00']],
    ['Asia/Beirut, 0:00 to 23:00', '15,45 0,23 * * *', '2022-10-29', ['20:15', '20:45', '22:15', '22:45']],
    ['Asia/Dhaka, 23:00 to 0:00', '30 22,23 * * *', '2009-06-19', ['16:30', '17:00']],
  ])('in %s: %s', (zone, cron, day, expected) => {
    const [timeZone = ''] = zone.split(',');
    const found = times(cron, timeZone, `${day}T00:00:00Z`, `${day}T23:00:00Z`);
    expect(found).toEqual(expected.map((time) => `${day}T${time}:00.000Z`));
  });

  it('a day that is skipped as a whole comes when it would have begun', () => {
    expect(times('0 9,17 * * *', 'Pacific/Apia', '2011-12-29T20:00:00Z', '2011-12-31T00:00:00Z')).toEqual([
      '2011-12-30T03:00:00.000Z',
      '2011-12-30T10:00:00.000Z',
      '2011-12-30T19:00:00.000Z',
    ]);
  });

  it('the date is that of the zone', () => {
    const year = ['2023-01-01T12:00:00Z', '2024-01-01T12:00:00Z'] as const;
    expect(times('30 2,14 L 3,10 *', 'Europe/Berlin', ...year)).toEqual([
      '2023-03-31T00:30:00.000Z',
      '2023-03-31T12:30:00.000Z',
      '2023-10-31T01:30:00.000Z',
      '2023-10-31T13:30:00.000Z',
    ]);
    expect(times('30 2,14 * 3 SUN#L', 'Europe/Berlin', ...year)).toEqual([
      '2023-03-26T01:00:00.000Z',
      '2023-03-26T12:30:00.000Z',
    ]);
    expect(times('30 2,14 15W 4 *', 'Europe/Berlin', ...year)).toEqual([
      '2023-04-14T00:30:00.000Z',
      '2023-04-14T12:30:00.000Z',
    ]);
  });

  it('the years end', () => {
    const cron = '0 30 2,3 26 3 * 2023-2024';
    expect(times(cron, 'Europe/Berlin', '2000-01-01T00:00:00Z', '2100-01-01T00:00:00Z')).toEqual([
      '2023-03-26T01:00:00.000Z',
      '2023-03-26T01:30:00.000Z',
      '2024-03-26T01:30:00.000Z',
      '2024-03-26T02:30:00.000Z',
    ]);
  });
});

it.each([
  ['in the second of the two hours', '2023-10-29T01:10:00Z', '2023-10-29T00:45:00.000Z', '2023-10-30T01:15:00.000Z'],
  ['at its last millisecond', '2023-10-29T01:59:59.999Z', '2023-10-29T00:45:00.000Z', '2023-10-30T01:15:00.000Z'],
  ['before the gap', '2023-03-26T00:59:59.999Z', '2023-03-25T01:45:00.000Z', '2023-03-26T01:00:00.000Z'],
  ['at its end', '2023-03-26T01:00:00Z', '2023-03-25T01:45:00.000Z', '2023-03-27T00:15:00.000Z'],
  ['after it', '2023-03-26T01:00:00.001Z', '2023-03-26T01:00:00.000Z', '2023-03-27T00:15:00.000Z'],
])('%s, a pattern knows what came and what comes', (_title, time, previous, next) => {
  const pattern = new FixedTimes(croner, '15,45 2 * * *', 'Europe/Berlin');
  expect(pattern.previousRuns(1, new Date(time))).toEqual([new Date(previous)]);
  expect(pattern.nextRun(new Date(time))).toEqual(new Date(next));
});

it('a pattern that never comes has no time', () => {
  const pattern = new FixedTimes(croner, '0 1,2 30 2 *', 'Europe/Berlin');
  expect(pattern.nextRun(new Date())).toBeNull();
  expect(pattern.previousRuns(1, new Date())).toEqual([]);
});

it('fails where croner does', () => {
  expect(() => new FixedTimes(croner, '0 24 * * *', 'UTC')).toThrow('CronPattern: Invalid value for hour: 24');
  const pattern = new FixedTimes(croner, '0 2,3 * * *', 'Europe/Atlantis');
  expect(() => pattern.nextRun(new Date())).toThrow("Invalid timezone 'Europe/Atlantis'");
});

it.each(['30 2 * * *', ' 30  2,14 * * * ', '0-59 0-23 L * MON#2', '0,30 30 1-3 */2 * *', '0 0 0 1 1 * 2030'])(
  'the times of %s are fixed',
  (cron) => expect(hasFixedTimes(cron)).toBe(true),
);

it.each([
  '*/30 * * * *',
  '30 * * * *',
  '30 1-3/2 * * *',
  '0 ? * * *',
  '* 30 2 * * *',
  '0 30 */2 * * *',
  '*/5 2 * * *',
  '@hourly',
  '',
])('the times of %j go by the clock as it is', (cron) => expect(hasFixedTimes(cron)).toBe(false));

it('a pattern of every second of the day is as quick in those nights', () => {
  const pattern = new FixedTimes(croner, '0-59 0-59 0-23 * * *', 'Europe/Berlin');
  const start = process.cpuUsage();
  for (const time of ['2023-03-26T01:00:00Z', '2023-10-29T01:00:00Z', '2023-10-29T01:59:59Z']) {
    pattern.nextRun(new Date(time));
    pattern.previousRuns(1, new Date(time));
  }
  expect(process.cpuUsage(start).user / 1000).toBeLessThan(300); // It takes 5 ms; a walk over each second takes 600.
});

describe('away from those nights', () => {
  const zones = ['UTC', 'Europe/Berlin', 'America/New_York', 'America/St_Johns', 'Asia/Kolkata', 'Pacific/Chatham'];
  const days = ['* * *', '* * 1-5', 'L * *', '15W * *', '* * MON#2', '1,10,20 * 3', '13 * +FRI', '* 1,2 *'];
  let seed = 1;

  /** A number below `limit`, the same ones in each run. */
  function random(limit: number): number {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % limit;
  }

  function field(limit: number): string {
    const first = random(limit);
    const forms = [
      `${first}`,
      `${first}-${first + random(limit - first)}`,
      `${first},${random(limit)},${random(limit)}`,
    ];
    return forms[random(forms.length)] ?? '';
  }

  it('the times are those of croner', () => {
    for (let count = 0; count < 200; count++) {
      const cron = `${field(60)} ${field(60)} ${field(24)} ${days[random(days.length)]}`;
      const timeZone = zones[random(zones.length)] ?? '';
      const time = new Date(Date.UTC(2023, 0, 10, 0, 0, random(1_000_000), random(1000)));
      const pattern = new FixedTimes(croner, cron, timeZone);
      const expected = new croner.Cron(cron, { timezone: timeZone, paused: true });
      const [next, following] = expected.nextRuns(2, time);
      const of = { cron, timeZone, time };
      expect({ ...of, next: pattern.nextRun(time) }).toEqual({ ...of, next });
      expect({ ...of, next: next && pattern.nextRun(next) }).toEqual({ ...of, next: following });
      expect({ ...of, previous: pattern.previousRuns(1, time) }).toEqual({
        ...of,
        previous: expected.previousRuns(1, time),
      });
    }
  });
});
