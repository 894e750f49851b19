// The request header Prefer (RFC 7240), as far as it is about waiting.

/** How many seconds the client is willing to wait. Undefined if it does not say so, or says it badly: then the header is ignored. */
export function preferredWait(header: string | string[] | undefined): number | undefined {
  for (const preference of String(header ?? '').match(preferences) ?? []) {
    const [, seconds] = wait.exec(preference) ?? [];
    if (seconds !== undefined) return Number(seconds);
  }
  return undefined;
}

/** Commas separate them, except within quotes. */
const preferences = /(?:[^,"]|"(?:[^"\\]|\\.)*"?)+/g;

/** Parameters may follow. */
const wait = /^\s*wait\s*=\s*(?:"\s*(?=\d+\s*"))?(\d+)\s*(?:"\s*)?(?:;|$)/i;
