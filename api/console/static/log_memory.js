// What this browser remembers of the log, so that the service cannot show it one log and somebody else another.
//
// The key is trusted on first use and kept. A checkpoint counts only if a remembered key signed it and the log has only
// grown since the last one that was seen here. A new key is believed if a remembered one signed the same checkpoint.

import { fromHex, hex } from "./bytes.js";
import { verifyConsistency } from "./merkle.js";
import { CheckpointError, verifyCheckpoint } from "./note.js";

const PLACE = "placet.log";

/** @returns {{keys: string[], size: number, root: string} | null} */
export function remembered(storage = localStorage) {
  try {
    return JSON.parse(storage.getItem(PLACE));
  } catch {
    return null;
  }
}

/**
 * Believe a checkpoint, or say why not.
 * @param {string} note the signed checkpoint
 * @param {string} announcedKey the key that the service says is the log's
 * @param {string[]|null} consistency hex hashes, from the remembered size to this one
 * @returns {Promise<{origin: string, size: number, root: Uint8Array, isFirst: boolean, grewBy: number}>}
 * @throws {CheckpointError|ProofError}
 */
export async function believe(note, announcedKey, consistency, storage = localStorage) {
  const memory = remembered(storage);
  const keys = memory ? [...memory.keys] : [announcedKey];
  // (1) signed by a key that we know
  const checkpoint = await firstThatVerifies(note, keys);
  // (2) a rotated key: known from now on, if the old one vouched for the same text
  if (!keys.includes(announcedKey)) {
    await verifyCheckpoint(note, announcedKey);
    keys.push(announcedKey);
  }
  // (3) nothing that was there is gone
  if (memory) {
    const path = (consistency ?? []).map(fromHex);
    await verifyConsistency(memory.size, fromHex(memory.root), checkpoint.size, checkpoint.root, path);
  }
  storage.setItem(PLACE, JSON.stringify({ keys, size: checkpoint.size, root: hex(checkpoint.root) }));
  return { ...checkpoint, isFirst: memory === null, grewBy: memory ? checkpoint.size - memory.size : 0 };
}

async function firstThatVerifies(note, keys) {
  let failure = new CheckpointError("No key of the log is known.");
  for (const key of keys) {
    try {
      return await verifyCheckpoint(note, key);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
