// Bytes, hashes, and the two spellings in which they travel: hex and base64.

const encoder = new TextEncoder();

export const utf8 = (text) => encoder.encode(text);

export async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", concatenated(parts)));
}

export function concatenated(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** @throws {RangeError} not lower-case hex of whole bytes */
export function fromHex(text) {
  if (typeof text !== "string" || !/^([0-9a-f]{2})*$/.test(text)) throw new RangeError("not hex");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Strict: one spelling for each value. @throws {RangeError} */
export function fromBase64(text) {
  let binary;
  try {
    binary = atob(text);
  } catch {
    throw new RangeError("not base64");
  }
  if (btoa(binary) !== text) throw new RangeError("not canonical base64");
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

export const equal = (a, b) => a.length === b.length && a.every((byte, place) => byte === b[place]);
