// SIGTERM under load, over and over: `node --import tsx scripts/shutdown-rounds.ts [rounds]`, 50 unless told otherwise.
// Exits with 1 if a task of an answered request was lost, or one of an unanswered request ran, or if a process hung or failed.

import { shutdownRound } from '../__tests__/fixtures/shutdown-round.js';

async function main(rounds: number): Promise<void> {
  let answered = 0;
  let failed = 0;
  let longest = 0;
  for (let count = 1; count <= rounds; count++) {
    const round = await shutdownRound();
    answered += round.answered;
    longest = Math.max(longest, round.ms);
    if (round.lost.length + round.unasked.length + round.strange.length > 0 || round.exitCode !== 0) {
      failed++;
      console.error(`round ${count}:`, round);
    }
  }
  console.log(
    `${rounds} rounds, ${answered} answered requests; longest shutdown ${longest.toFixed(0)} ms; ${failed} rounds failed`,
  );
  if (failed > 0) process.exitCode = 1;
}

void main(Number(process.argv[2] ?? 50));
