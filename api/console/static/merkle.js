// The Merkle tree of RFC 9162 §2.1: leaf and node hashes, and the two proofs. Pure; every check throws or returns nothing.

import { equal, sha256 } from "./bytes.js";

export class ProofError extends Error {}

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** SHA-256(0x00 ‖ data), §2.1.1 */
export const leafHash = (data) => sha256(LEAF, data);

/** SHA-256(0x01 ‖ left ‖ right), §2.1.1 */
export const nodeHash = (left, right) => sha256(NODE, left, right);

/** Check that `leaf` is entry `index` of the tree (`size`, `root`): §2.1.3.2. @throws {ProofError} */
export async function verifyInclusion(leaf, index, size, path, root) {
  // (1) index within the tree
  if (!(Number.isSafeInteger(index) && Number.isSafeInteger(size) && 0 <= index && index < size)) {
    throw new ProofError(`There is no entry ${index} in a tree of size ${size}.`);
  }
  // (2)–(4) fold the path from the leaf to the root
  let [fn, sn, folded] = [BigInt(index), BigInt(size) - 1n, leaf];
  for (const sibling of path) {
    if (sn === 0n) throw new ProofError("The inclusion proof is too long.");
    if (fn & 1n || fn === sn) {
      folded = await nodeHash(sibling, folded);
      while (!(fn & 1n) && fn) [fn, sn] = [fn >> 1n, sn >> 1n];
    } else {
      folded = await nodeHash(folded, sibling);
    }
    [fn, sn] = [fn >> 1n, sn >> 1n];
  }
  // (5) nothing left over, and the root is the one that was signed
  if (sn !== 0n) throw new ProofError("The inclusion proof is too short.");
  if (!equal(folded, root)) throw new ProofError("The inclusion proof does not lead to the signed root.");
}

/** Check that the tree (`newSize`, `newRoot`) only adds to (`oldSize`, `oldRoot`): §2.1.4.2. @throws {ProofError} */
export async function verifyConsistency(oldSize, oldRoot, newSize, newRoot, path) {
  if (!(0 < oldSize && oldSize <= newSize)) throw new ProofError("The log is shorter than it was.");
  if (oldSize === newSize) {
    if (path.length || !equal(oldRoot, newRoot)) throw new ProofError("The log has another root at the same size.");
    return;
  }
  // (1)–(3) a power of two is its own first node
  const nodes = [...path];
  if (!nodes.length) throw new ProofError("The consistency proof is empty.");
  if (Number.isInteger(Math.log2(oldSize))) nodes.unshift(oldRoot);
  let [fn, sn] = [BigInt(oldSize) - 1n, BigInt(newSize) - 1n];
  while (fn & 1n) [fn, sn] = [fn >> 1n, sn >> 1n];
  // (4)–(6) fold both trees at once
  let [first, second] = [nodes[0], nodes[0]];
  for (const node of nodes.slice(1)) {
    if (sn === 0n) throw new ProofError("The consistency proof is too long.");
    if (fn & 1n || fn === sn) {
      first = await nodeHash(node, first);
      second = await nodeHash(node, second);
      while (!(fn & 1n) && fn) [fn, sn] = [fn >> 1n, sn >> 1n];
    } else {
      second = await nodeHash(second, node);
    }
    [fn, sn] = [fn >> 1n, sn >> 1n];
  }
  // (7) both roots, nothing left over
  if (sn !== 0n || !equal(first, oldRoot) || !equal(second, newRoot)) {
    throw new ProofError("The log was rewritten: it no longer holds what it held at the last visit.");
  }
}
