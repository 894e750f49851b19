// What the benchmarks run in threads.

/** So many steps, which take the same time whatever else the machine does. */
export default function compute(steps) {
  let state = 1;
  for (let step = 0; step < steps; step++) state = (Math.imul(state, 1103515245) + 12345) | 0;
  return state;
}

export function busyFor(ms) {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

export const number = (value) => value;
export const object = ({ width, file }) => ({ width, height: width, file });
