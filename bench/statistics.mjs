// The median of the rounds and their spread.

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
