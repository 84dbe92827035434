// /audit/entries/N: check here, in the auditor's browser, what the page claims: entry, path, root, signatures.

import { equal, fromBase64, fromHex, hex, utf8 } from "./bytes.js";
import { canonicalBytes } from "./canonical.js";
import { leafHash, verifyInclusion } from "./merkle.js";
import { CheckpointError, verifyCheckpoint } from "./note.js";
import { fill, textsOf } from "./page.js";

const COSIGNATURE = 4;

/** The time of a witness's cosignature, Unix seconds (c2sp.org/tlog-cosignature). @throws {CheckpointError} */
export async function verifyCosignature(note, witnessKey) {
  // (1) the key: name, id, 0x04 ‖ Ed25519
  const [name, id, encoded] = witnessKey.split("+").map((part, place, all) => (place < 2 ? part : all.slice(2).join("+")));
  const raw = fromBase64(encoded);
  if (raw.length !== 33 || raw[0] !== COSIGNATURE) throw new CheckpointError("This is not a witness's key.");
  const key = await crypto.subtle.importKey("raw", raw.slice(1), "Ed25519", false, ["verify"]);
  // (2) its line below the text
  const cut = note.lastIndexOf("\n\n");
  const text = note.slice(0, cut + 1);
  const lines = note.slice(cut + 2).split("\n").map((line) => /^— (\S+) (\S+)$/.exec(line)).filter(Boolean);
  const blobs = lines.filter((match) => match[1] === name).map((match) => fromBase64(match[2]));
  const blob = blobs.find((each) => each.length === 76 && equal(each.slice(0, 4), fromHex(id)));
  if (!blob) throw new CheckpointError(`${name} has not cosigned this checkpoint.`);
  // (3) Ed25519 over header, time and text, RFC 8032 §5.1.7
  const time = new DataView(blob.buffer, blob.byteOffset).getBigUint64(4);
  const message = utf8(`cosignature/v1\ntime ${time}\n${text}`);
  if (!(await crypto.subtle.verify("Ed25519", key, blob.slice(12), message))) {
    throw new CheckpointError(`The cosignature of ${name} is wrong.`);
  }
  return Number(time);
}

/** Check an entry with its evidence. @throws {Error} with the first thing that is wrong */
export async function checkEntry(entry, evidence, logKey, witnessKeys) {
  // (1) the checkpoint is signed by the log, (2) and by every witness that the page names
  const checkpoint = await verifyCheckpoint(evidence.checkpoint, logKey);
  for (const key of witnessKeys) await verifyCosignature(evidence.checkpoint, key);
  // (3) the evidence speaks of that checkpoint
  if (checkpoint.size !== evidence.tree_size || hex(checkpoint.root) !== evidence.root_hash) {
    throw new CheckpointError("The evidence names another tree than its checkpoint.");
  }
  // (4) the entry as it stands here is in that tree, RFC 9162 §2.1.3.2
  const leaf = await leafHash(canonicalBytes(entry));
  await verifyInclusion(leaf, entry.index, checkpoint.size, evidence.inclusion_proof.map(fromHex), checkpoint.root);
}

const place = document.getElementById("checked");
if (place) {
  const words = textsOf(place, "audit.checked.");
  const { entry, evidence, log, witnesses } = JSON.parse(place.dataset.claim);
  place.hidden = false;
  try {
    await checkEntry(entry, evidence, log, witnesses);
    place.className = "proof good";
    place.textContent = fill(words[witnesses.length ? "good_cosigned" : "good"], { count: witnesses.length });
  } catch (error) {
    const isUnable = error.name === "NotSupportedError";
    place.className = isUnable ? "proof" : "proof bad";
    place.textContent = isUnable ? words.unable : fill(words.bad, { detail: error.message });
  }
}
