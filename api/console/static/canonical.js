// Canonical JSON (RFC 8785): the one byte form under every signature and every log entry. Pure.
//
// JavaScript writes numbers and strings as RFC 8785 §3.2.2 wants them, and `sort` compares UTF-16 code units as §3.2.3
// does; what remains is order, and refusing what has no canonical form.

import { utf8 } from "./bytes.js";

/** The canonical text of a JSON value. @throws {TypeError} it has none */
export function canonical(value) {
  if (value === null || typeof value === "boolean") return JSON.stringify(value);
  if (typeof value === "string") return canonicalString(value);
  if (typeof value === "number") {
    // integers beyond 2⁵³ may have lost digits when they were read; from 10²¹ on they are written as floats
    const isUncertain = Number.isInteger(value) && !Number.isSafeInteger(value) && Math.abs(value) < 1e21;
    if (!Number.isFinite(value) || isUncertain) {
      throw new TypeError("This number has no canonical form.");
    }
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    const members = Object.keys(value).sort();
    return `{${members.map((name) => `${canonicalString(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  throw new TypeError("This value is not JSON.");
}

/** The bytes that are hashed and signed. */
export const canonicalBytes = (value) => utf8(canonical(value));

function canonicalString(text) {
  // a lone surrogate has no UTF-8 form (§3.2.2.2)
  if (/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(text)) {
    throw new TypeError("This text is not well-formed Unicode.");
  }
  return JSON.stringify(text);
}
