// /me: check the proofs of every use, and let the person revoke, add a passkey, erase, each with their passkey.

import { canonical } from "./canonical.js";
import { fill, notice, post, sentenceFor, textsOf, whileBusy } from "./page.js";
import { CancelledError, createPasskey, isSupported } from "./passkeys.js";
import { HttpError, checkEntries } from "./proofs.js";
import { MismatchError, signStatement } from "./statements.js";

const words = textsOf(document.getElementById("me"), "me.");

// -- proofs

/** An entry is good if the page says of it what the entry itself says. */
function agrees(line, entry) {
  const [kind, outcome] = line.dataset.kind.split(".");
  if (entry.index !== Number(line.dataset.entry)) return false;
  if (kind !== "decision") return entry.kind === line.dataset.kind;
  const isSameOutcome = entry.kind === "decision" && entry.body.allowed === (outcome === "allowed");
  return isSameOutcome && canonical(JSON.parse(line.dataset.reasons ?? "[]")) === canonical(entry.body.reasons);
}

function mark(line, tone, text) {
  const place = line.querySelector(".proof");
  place.className = `proof ${tone}`;
  place.textContent = text;
}

async function checkUses() {
  const lines = [...document.querySelectorAll("[data-entry]")];
  const state = document.getElementById("log-state");
  if (!lines.length) return;
  for (const line of lines) mark(line, "", words["proof.checking"]);
  let found;
  try {
    found = await checkEntries(lines.map((line) => Number(line.dataset.entry)));
  } catch (error) {
    const isUnreachable = error instanceof HttpError || (error instanceof TypeError && error.message.includes("fetch"));
    const tone = isUnreachable ? "" : "bad";
    for (const line of lines) mark(line, tone, words[isUnreachable ? "proof.unavailable" : "proof.bad"]);
    if (isUnreachable) notice(state, "error", words["proof.unavailable"], sentenceFor(error));
    else if (error.name === "NotSupportedError") notice(state, "error", words["proof.log_bad"], words["proof.no_ed25519"]);
    else notice(state, "error", words["proof.log_bad"], fill(words["proof.log_bad_help"], { detail: error.message }));
    return;
  }
  const { log, checked } = found;
  const numBad = lines.filter((line) => {
    const result = checked.get(Number(line.dataset.entry));
    const isGood = result.entry !== undefined && agrees(line, result.entry);
    mark(line, isGood ? "good" : "bad", words[isGood ? "proof.good" : "proof.bad"]);
    return !isGood;
  }).length;
  if (numBad) {
    notice(state, "error", words["proof.entry_bad"], words["proof.entry_bad_help"]);
  } else {
    const said = log.isFirst ? "proof.log_first" : log.grewBy ? "proof.log_grown" : "proof.log_same";
    const line = document.createElement("p");
    line.className = "fine";
    line.textContent = fill(words[said], { count: log.grewBy, key: log.key });
    state.replaceChildren(line);
  }
}

// -- signatures

function explain(place, error) {
  if (error instanceof CancelledError) notice(place, "error", words["review.cancelled"]);
  else if (error instanceof MismatchError) notice(place, "error", words["review.old"]);
  else notice(place, "error", sentenceFor(error));
}

for (const button of document.querySelectorAll("[data-sign]")) {
  const outcome = button.closest("dialog").querySelector(".outcome");
  button.addEventListener("click", () =>
    whileBusy(button, async () => {
      notice(outcome, "hint", words["review.working"]);
      try {
        const { statement, options } = await post(`${button.dataset.sign}/begin`);
        const signed = await signStatement(statement, options, JSON.parse(button.dataset.expect));
        const { next } = await post(button.dataset.sign, { signed });
        location.assign(next);
      } catch (error) {
        explain(outcome, error);
      }
    }),
  );
}

const addPasskey = document.getElementById("add-passkey");
addPasskey.addEventListener("click", () =>
  whileBusy(addPasskey, async () => {
    const outcome = document.getElementById("outcome");
    try {
      const { options } = await post("/me/passkeys/begin");
      const { next } = await post("/me/passkeys", { credential: await createPasskey(options) });
      location.assign(next);
    } catch (error) {
      explain(outcome, error);
      outcome.scrollIntoView({ block: "center" });
    }
  }),
);

for (const button of document.querySelectorAll("[data-sign], #add-passkey")) button.disabled = !isSupported();
await checkUses();
