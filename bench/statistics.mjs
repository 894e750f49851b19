// The median of the rounds and their spread, and the order of the contenders in a round.

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

/** In which order so many contenders take their turns, so that each comes first, last and in between. */
export function order(count, round) {
  const indices = Array.from({ length: count }, (_, index) => (index + round) % count);
  return round % 2 === 0 ? indices : indices.reverse();
}
