// What scripts of several pages need: the page's words, requests with the CSRF token, notices.

/** The texts under `base.` in the reader's language, without that prefix. */
export const words = textsOf(document.body, "base.");

/** The texts that a template put into an element's `data-texts`, by their key without `prefix`. */
export function textsOf(element, prefix) {
  const texts = JSON.parse(element.dataset.texts ?? "{}");
  return Object.fromEntries(Object.entries(texts).map(([key, text]) => [key.replace(prefix, ""), text]));
}

/** `fill("{count} entries", {count: 3})` */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** An answer of the service that is an error, as it said it (RFC 9457). */
export class ProblemError extends Error {
  constructor(problem, status) {
    super(problem.detail ?? `HTTP ${status}`);
    this.problem = problem;
    this.status = status;
  }
}

/**
 * Send something to one of our own addresses.
 * @param {string} path
 * @param {object|FormData} body JSON, or a form with files
 * @returns {Promise<any>} the JSON that came back
 * @throws {ProblemError} the service refused; @throws {TypeError} it could not be reached
 */
export async function post(path, body) {
  const isForm = body instanceof FormData;
  const answer = await fetch(path, {
    method: "POST",
    body: isForm ? body : JSON.stringify(body ?? {}),
    headers: {
      Accept: "application/json",
      "X-CSRF-Token": document.body.dataset.csrf,
      ...(isForm ? {} : { "Content-Type": "application/json" }),
    },
  });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ProblemError(content, answer.status);
  return content;
}

/** A sentence for whatever went wrong. */
export function sentenceFor(error) {
  if (error instanceof ProblemError) {
    const reasons = (error.problem.reasons ?? []).map((reason) => reason.sentence);
    return words[`problem.${error.problem.code}`] ?? (reasons.join(" ") || error.message);
  }
  if (error instanceof TypeError && !navigator.onLine) return words.offline;
  if (error instanceof TypeError && error.message.includes("fetch")) return words.offline;
  return fill(words.unexpected, { detail: error.message });
}

/** Put a notice into an element (`error`, `good`, `hint`), in place of what was there. */
export function notice(place, kind, what, text = "") {
  const box = document.createElement("div");
  box.className = `notice ${kind}`;
  const title = document.createElement("p");
  title.className = "what";
  title.textContent = what;
  box.append(title);
  if (text) {
    const more = document.createElement("p");
    more.textContent = text;
    box.append(more);
  }
  place.replaceChildren(box);
}

/** A word in the corner that goes away. */
export function toast(text) {
  const line = document.createElement("p");
  line.textContent = text;
  document.querySelector(".toasts").append(line);
  setTimeout(() => line.remove(), 2500);
}

/** Run `work` while a button is busy, so that nothing is sent twice. */
export async function whileBusy(button, work) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-busy");
    button.removeAttribute("aria-disabled");
  }
}
