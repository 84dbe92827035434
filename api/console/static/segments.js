// Live streams, checked in the browser: each segment's signed info, C2PA §19.4 (watermark/live.py is the other side).
//
// What is checked here: every segment is signed by a session key that the init segment names, for this stream, over
// exactly these bytes, and none is missing up to the signed end. That the init segment itself is signed by a trusted
// authority takes certificates, and is left to `placet verify` and other C2PA readers.

const SCHEME = "urn:c2pa:verifiable-segment-info";
const END = "org.placet.end";
const text = new TextDecoder();

/** A check that failed. */
export class SegmentError extends Error {}

/** The boxes of a segment: `{kind, offset, data}`, ISO/IEC 14496-12 §4.2. */
export function boxesOf(bytes) {
  const found = [];
  for (let offset = 0; offset < bytes.length; ) {
    const size = new DataView(bytes.buffer, bytes.byteOffset + offset).getUint32(0);
    if (size < 8 || offset + size > bytes.length) throw new SegmentError("not whole boxes");
    found.push({ kind: text.decode(bytes.subarray(offset + 4, offset + 8)), offset, data: bytes.subarray(offset, offset + size) });
    offset += size;
  }
  return found;
}

/** One CBOR value (RFC 8949) with definite lengths: numbers, bytes, text, arrays, maps as Map, tags as their value. */
export function decodeCbor(bytes) {
  let at = 0;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const take = (count) => {
    if (at + count > bytes.length) throw new SegmentError("CBOR ends early");
    at += count;
    return at - count;
  };
  const argument = (low) => {
    if (low < 24) return low;
    if (low === 24) return view.getUint8(take(1));
    if (low === 25) return view.getUint16(take(2));
    if (low === 26) return view.getUint32(take(4));
    if (low === 27) return Number(view.getBigUint64(take(8)));
    throw new SegmentError("CBOR of an unknown form");
  };
  const value = (depth) => {
    if (depth > 16) throw new SegmentError("CBOR is too deep");
    const first = view.getUint8(take(1));
    const [major, low] = [first >> 5, first & 31];
    if (major === 7) return { 20: false, 21: true, 22: null, 23: undefined }[low] ?? null;
    const count = argument(low);
    if (major === 0) return count;
    if (major === 1) return -1 - count;
    if (major === 2 || major === 3) {
      const start = take(count);
      const part = bytes.slice(start, start + count);
      return major === 2 ? part : text.decode(part);
    }
    if (major === 4) return Array.from({ length: count }, () => value(depth + 1));
    if (major === 5) return new Map(Array.from({ length: count }, () => [value(depth + 1), value(depth + 1)]));
    return value(depth + 1); // a tag: what it tags
  };
  return value(0);
}

/** `Sig_structure` of COSE_Sign1, RFC 9052 §4.4. */
function toBeSigned(protectedHeader, payload) {
  const head = (major, size) => {
    if (size < 24) return [(major << 5) | size];
    if (size < 256) return [(major << 5) | 24, size];
    return [(major << 5) | 25, size >> 8, size & 255];
  };
  const name = new TextEncoder().encode("Signature1");
  return new Uint8Array([0x84, ...head(3, name.length), ...name, ...head(2, protectedHeader.length), ...protectedHeader,
    0x40, ...head(2, payload.length), ...payload]);
}

const same = (one, other) => one.length === other.length && one.every((byte, index) => byte === other[index]);
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The session keys that an init segment names, by their kid in hex. */
async function sessionKeys(init) {
  // JUMBF: the label of the assertion, then a box `cbor` with its value (ISO 19566-5)
  const label = new TextEncoder().encode("c2pa.session-keys\0");
  const start = init.findIndex((_, index) => same(init.subarray(index, index + label.length), label));
  if (start < 0) throw new SegmentError("the stream names no session keys");
  const box = init.subarray(start + label.length);
  const size = new DataView(box.buffer, box.byteOffset).getUint32(0);
  const entries = decodeCbor(box.subarray(8, size)).get("keys");
  const keys = new Map();
  for (const entry of entries) {
    const key = entry.get("key"); // COSE_Key: 2 kid, -2 x, -3 y (RFC 9052 §7, RFC 9053 §7.1)
    const point = new Uint8Array([4, ...key.get(-2), ...key.get(-3)]);
    keys.set(hex(key.get(2)), await crypto.subtle.importKey("raw", point, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]));
  }
  return keys;
}

/** Follows one stream in the order in which it plays. */
export class StreamCheck {
  /** @param {Uint8Array} init the init segment @param {string} manifestId of its manifest */
  static async of(init, manifestId) {
    const check = new StreamCheck();
    check.keys = await sessionKeys(init);
    check.manifestId = manifestId;
    check.number = 0;
    check.end = null;
    return check;
  }

  /** Check the next segment; @throws {SegmentError} what is wrong with it. */
  async verify(bytes) {
    // (1) exactly one signed info
    const boxes = boxesOf(bytes);
    const isInfo = (box) => box.kind === "emsg" && text.decode(box.data.subarray(12, 12 + SCHEME.length)) === SCHEME;
    const infos = boxes.filter(isInfo);
    if (infos.length !== 1) throw new SegmentError("a segment is not signed");
    // (2) signed by a session key of this stream: after scheme, value and 16 bytes of timing comes COSE_Sign1
    let at = 12;
    for (let zeros = 0; zeros < 2; at += 1) if (infos[0].data[at] === 0) zeros += 1;
    const [header, others, payload, signature] = decodeCbor(infos[0].data.subarray(at + 16));
    const key = this.keys.get(hex(others.get(4)));
    const isSigned = key && (await crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, signature, toBeSigned(header, payload)));
    if (!isSigned) throw new SegmentError("a signature does not hold");
    const info = decodeCbor(payload);
    // (3) for this stream, (4) these bytes: every box but the info, each behind its offset
    if (info.get("manifestId") !== this.manifestId) throw new SegmentError("a segment is of another stream");
    const parts = boxes.filter((box) => !isInfo(box)).flatMap((box) => {
      const place = new Uint8Array(8);
      new DataView(place.buffer).setBigUint64(0, BigInt(box.offset));
      return [place, box.data];
    });
    const digest = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
    if (!same(new Uint8Array(digest), info.get("bmffHash").get("hash"))) throw new SegmentError("a segment was changed");
    // (5) at its place
    if (this.end || info.get("sequenceNumber") !== this.number + 1) throw new SegmentError("a segment is missing");
    this.number += 1;
    const end = info.get(END);
    if (end) this.end = end.get("reason");
  }
}
