// Signing a statement with a passkey, so that a person signs what this browser has looked at, and nothing else.

import { sha256 } from "./bytes.js";
import { canonical, canonicalBytes } from "./canonical.js";
import { signHash } from "./passkeys.js";

/** What the service wants signed is not what the page shows. */
export class MismatchError extends Error {}

/** The hash that names a statement and that a passkey signs: SHA-256 of its RFC 8785 form. */
export const statementHash = (statement) => sha256(canonicalBytes(statement));

/**
 * Sign a statement.
 * @param {object} statement
 * @param {object} options for `navigator.credentials.get`; its challenge is replaced by the hash computed here
 * @param {object} expected members that the statement must have, as the page shows them
 * @returns {Promise<{statement: object, assertion: object}>} what the service takes
 * @throws {MismatchError} @throws {CancelledError} the person said no
 */
export async function signStatement(statement, options, expected) {
  for (const [name, value] of Object.entries(expected)) {
    if (canonical(statement[name] ?? null) !== canonical(value)) throw new MismatchError(name);
  }
  const assertion = await signHash(await statementHash(statement), options);
  return { statement, assertion };
}
