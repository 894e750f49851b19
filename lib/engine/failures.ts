// What has failed of several steps that are all taken, such as those of a close().

export class Failures {
  readonly #errors: unknown[] = [];

  /** Never rejects. */
  async try(step: () => unknown): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.#errors.push(error);
    }
  }

  /** Throws one failure as it is, and several as an AggregateError with this message. */
  throw(message: string): void {
    if (this.#errors.length > 1) throw new AggregateError(this.#errors, message);
    if (this.#errors.length === 1) throw this.#errors[0];
  }
}
