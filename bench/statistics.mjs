// The median of the rounds and their spread, what they tell, and the order of the contenders in a round.

export function median(values) {
  return quantile(values, 0.5);
}

/** The middle half of the values. */
export function spread(values) {
  return [quantile(values, 0.25), quantile(values, 0.75)];
}

export function quantile(values, q) {
  const sorted = values.toSorted((a, b) => a - b);
  const position = (sorted.length - 1) * q;
  const below = sorted[Math.floor(position)];
  return below + (sorted[Math.ceil(position)] - below) * (position % 1);
}

/** A row of a table, of the values of the rounds. The goal is a text such as `≤ 1.5`. */
export function rowOf({ what, against = '', unit = 'times', goal = '', values }) {
  const row = { what, against, unit, goal, figure: median(values) };
  return values.length === 1 ? row : { ...row, spread: spread(values) };
}

/**
 * What a row tells: `met` or `missed` where the middle half is on one side of the goal, and `no difference` where it holds
 * the ratio 1 that stands for "the same". Else the next run may say the opposite: `undecided`.
 */
export function verdictOf({ unit, goal, figure, spread: [low, high] = [figure, figure] }) {
  if (goal === '') return unit === 'times' && low <= 1 && high >= 1 ? 'no difference' : '';
  const limit = goalOf(goal);
  const [isBest, isWorst] = goal.startsWith('≤') ? [high <= limit, low > limit] : [low >= limit, high < limit];
  if (isBest) return 'met';
  return isWorst ? 'missed' : 'undecided';
}

export function goalOf(goal) {
  return Number(goal.replace(/[^\d.]/g, ''));
}

/** In which order so many contenders take their turns, so that each comes first, last and in between. */
export function order(count, round) {
  const indices = Array.from({ length: count }, (_, index) => (index + round) % count);
  return round % 2 === 0 ? indices : indices.reverse();
}
