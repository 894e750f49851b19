// Patterns of fixed times, such as `30 2,14 * * *`, in a time zone whose clock is changed: each time comes once a day. croner reads
// the pattern, and not the zone: its own rule for them (`fixedTimeRule`, since 11.0.1) leaves out the times of a skipped hour that
// ends at midnight, as in Greenland.

import type { Cron, CronDate } from 'croner';

const oneDay = 86_400_000;

/** Whether the second, the minute and the hour are numbers, lists and ranges, without a wildcard or a step. */
export function hasFixedTimes(cron: string): boolean {
  const fields = cron.trim().split(/\s+/);
  const times = fields.slice(0, fields.length === 5 ? 2 : 3);
  return times.every((field) => /^[\d,-]+$/.test(field));
}

/**
 * A time comes at the first moment at which the clock on the wall shows it or a later one: where its hour is skipped at the end
 * of the gap, and where its hour is repeated in the first of the two.
 *
 * What the clock shows is a number here, too, in ms since 1970 as if the clock were in UTC: `shown`. A `time` is a moment.
 */
export class FixedTimes {
  readonly #pattern: Cron;
  readonly #dateAt: (time: number) => CronDate<string>;

  constructor(croner: typeof import('croner'), cron: string, timeZone: string) {
    this.#pattern = new croner.Cron(cron, { utcOffset: 0, paused: true });
    this.#dateAt = (time) => new croner.CronDate(new Date(time), timeZone);
  }

  nextRun(after: Date): Date | null {
    const shown = this.#pattern.nextRun(new Date(this.#lastShownAt(after.getTime())));
    return shown && new Date(this.#firstTimeOf(shown.getTime()));
  }

  previousRuns(_count: 1, before: Date): Date[] {
    // croner leaves out the moment itself, and what was shown just before it counts.
    const shown = this.#pattern.previousRuns(1, new Date(this.#lastShownAt(before.getTime() - 1) + 1));
    return shown.map((date) => new Date(this.#firstTimeOf(date.getTime())));
  }

  /** The latest that the clock has shown until then. In an hour that is repeated, that is the end of the first. */
  #lastShownAt(time: number): number {
    const offset = this.#offsetAt(time);
    const offsetBefore = this.#offsetAt(time - oneDay);
    if (offset >= offsetBefore) return time + offset;
    return Math.max(time + offset, this.#changeBetween(time - oneDay, time) - 1 + offsetBefore);
  }

  /** No time zone is a day from UTC, and none changes its clock twice in two days. */
  #firstTimeOf(shown: number): number {
    const offsetBefore = this.#offsetAt(shown - oneDay);
    const offsetAfter = this.#offsetAt(shown + oneDay);
    if (offsetAfter === offsetBefore) return shown - offsetAfter;
    const change = this.#changeBetween(shown - oneDay, shown + oneDay);
    if (shown - offsetBefore < change) return shown - offsetBefore;
    return Math.max(shown - offsetAfter, change);
  }

  /** The first moment of the new offset, where that of `to` is not that of `from`. */
  #changeBetween(from: number, to: number): number {
    const offsetBefore = this.#offsetAt(from);
    let [before, after] = [from, to];
    while (after - before > 1) {
      const middle = Math.floor((before + after) / 2);
      if (this.#offsetAt(middle) === offsetBefore) before = middle;
      else after = middle;
    }
    return after;
  }

  /** How far the clock is ahead of UTC, in ms. */
  #offsetAt(time: number): number {
    const { year, month, day, hour, minute, second } = this.#dateAt(time);
    return Date.UTC(year, month, day, hour, minute, second) - Math.floor(time / 1000) * 1000;
  }
}
