// What the board is told instead of an answer. It answers with the status, and its page shows the sentence.

import { BackgroundTasksError, hasCode } from '../errors.js';

export class Refusal extends Error {
  /** As bull-board reads it. */
  readonly statusCode: number;

  constructor(statusCode: number, sentence: string, options?: ErrorOptions) {
    super(sentence, options);
    this.statusCode = statusCode;
  }

  static {
    Refusal.prototype.name = 'Refusal';
  }
}

/** For a button that the board cannot hide. */
export function refuse(sentence: string): Promise<never> {
  return Promise.reject(new Refusal(405, sentence));
}

/** The task has changed since the page was drawn. */
export function conflict(sentence: string): Refusal {
  return new Refusal(409, sentence);
}

/** Passes on what an engine says to a call that it refuses, or that its store did not answer. */
export async function answerOf<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (!(error instanceof BackgroundTasksError)) throw error;
    throw new Refusal(error.status ?? 405, error.message, { cause: error });
  }
}

/** Whether the engine does not have what was called. */
export function isLacking(error: unknown): error is Refusal {
  return error instanceof Refusal && hasCode(error.cause, 'ERR_INVALID_OPTION');
}
