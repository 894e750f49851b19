// A real process gets SIGTERM while clients send requests without pause. scripts/shutdown-rounds.ts does it 50 times over.

import { shutdownRound } from './fixtures/shutdown-round.js';

describe('promise 13: at shutdown nothing is lost', () => {
  test.each([1, 2, 3])(
    'the tasks of all answered requests, and of no others, have run when the process exits with 0, round %i',
    async () => {
      const { answered, lost, unasked, strange, exitCode } = await shutdownRound();
      expect({ lost, unasked, strange, exitCode }).toEqual({ lost: [], unasked: [], strange: [], exitCode: 0 });
      expect(answered).toBeGreaterThanOrEqual(8);
    },
    60_000,
  );
});
