// Checks, in the browser, that entries are in the log: RFC 9162 proofs under a checkpoint that the log's key signed.

import { fromHex } from "./bytes.js";
import { canonicalBytes } from "./canonical.js";
import { believe, remembered } from "./log_memory.js";
import { ProofError, leafHash, verifyInclusion } from "./merkle.js";

/**
 * Fetch and check the proofs of entries.
 * @param {number[]} indices
 * @returns {Promise<{log: object, checked: Map<number, {entry: object} | {error: Error}>}>}
 * @throws the checkpoint is not to be believed (CheckpointError, ProofError), or nothing came (TypeError, HttpError)
 */
export async function checkEntries(indices) {
  const since = remembered()?.size ?? 0;
  const answer = await fetch(`/me/proofs?entries=${indices.join(",")}&since=${since}`, {
    headers: { Accept: "application/json" },
  });
  if (!answer.ok) throw new HttpError(`HTTP ${answer.status}`);
  const { checkpoint, key, consistency, entries } = await answer.json();
  // (1) the checkpoint: signature by the remembered key, nothing taken away since the last visit
  const log = { ...(await believe(checkpoint, key, consistency)), key };
  // (2) each entry: its canonical bytes, hashed, lead to the signed root
  const checked = new Map();
  for (const { entry, inclusion_proof: path } of entries) {
    try {
      const leaf = await leafHash(canonicalBytes(entry));
      await verifyInclusion(leaf, entry.index, log.size, path.map(fromHex), log.root);
      checked.set(entry.index, { entry });
    } catch (error) {
      checked.set(entry?.index, { error });
    }
  }
  for (const index of indices) {
    if (!checked.has(index)) checked.set(index, { error: new ProofError("There is no proof of this entry.") });
  }
  return { log, checked };
}

export class HttpError extends Error {}
