// What counts as an error, whoever made it.

/** True of errors, also where `instanceof Error` and `isNativeError` are not: of another realm, DOMException in Node 20. */
export function isError(value: unknown): value is Error {
  try {
    return typeof (value as Error | null | undefined)?.stack === 'string';
  } catch {
    return false; // It throws when it is looked at.
  }
}
