// Signed checkpoints as C2SP writes them (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), with Ed25519 from WebCrypto.

import { equal, fromBase64, hex, sha256, utf8 } from "./bytes.js";

export class CheckpointError extends Error {}

const ED25519 = 1;
const KEY_ID_NUM_BYTES = 4;

/** A log's verifier key, `name+01234567+A…`. @throws {CheckpointError} */
export async function parseVerifierKey(text) {
  const match = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim());
  const raw = match ? decoded(match[3]) : new Uint8Array();
  if (!match || raw.length !== 33 || raw[0] !== ED25519) throw new CheckpointError("This is not a verifier key.");
  const id = (await sha256(utf8(match[1]), utf8("\n"), raw)).slice(0, KEY_ID_NUM_BYTES);
  if (hex(id) !== match[2]) throw new CheckpointError("The verifier key does not hold what its key id says.");
  const publicKey = await crypto.subtle.importKey("raw", raw.slice(1), "Ed25519", false, ["verify"]);
  return { name: match[1], id, publicKey };
}

/**
 * Read a checkpoint that a key signed.
 * @param {string} note @param {string} keyText a verifier key; signatures of others are passed over
 * @returns {Promise<{origin: string, size: number, root: Uint8Array}>}
 * @throws {CheckpointError} malformed, of another log, not signed by this key, or changed after signing
 */
export async function verifyCheckpoint(note, keyText) {
  const key = await parseVerifierKey(keyText);
  // (1) text, blank line, signature lines
  const cut = note.lastIndexOf("\n\n");
  if (cut < 0) throw new CheckpointError("The checkpoint is not a signed note.");
  const text = note.slice(0, cut + 1);
  // (2) the line with this key's name and id
  const lines = note.slice(cut + 2).split("\n").filter(Boolean);
  const signatures = lines.map((line) => /^— (\S+) (\S+)$/.exec(line));
  if (signatures.includes(null)) throw new CheckpointError("A signature line of the checkpoint is malformed.");
  const blobs = signatures.filter((match) => match[1] === key.name).map((match) => decoded(match[2]));
  const ours = blobs.find((blob) => equal(blob.slice(0, KEY_ID_NUM_BYTES), key.id));
  if (!ours) throw new CheckpointError("The checkpoint is not signed by the key that this browser remembers.");
  // (3) Ed25519 over the text, RFC 8032 §5.1.7
  const good = await crypto.subtle.verify("Ed25519", key.publicKey, ours.slice(KEY_ID_NUM_BYTES), utf8(text));
  if (!good) throw new CheckpointError("The signature of the checkpoint is wrong.");
  // (4) origin, size, root
  const [origin, size, root, end, ...more] = text.split("\n");
  if (origin !== key.name || !/^(0|[1-9]\d{0,15})$/.test(size) || end !== "" || more.length) {
    throw new CheckpointError("The checkpoint does not consist of origin, size and root.");
  }
  return { origin, size: Number(size), root: decoded(root) };
}

function decoded(text) {
  try {
    return fromBase64(text);
  } catch {
    throw new CheckpointError("The checkpoint holds malformed base64.");
  }
}
