// /me/consents/review: show exactly what would be signed, check it against the page, sign it.

import { hex } from "./bytes.js";
import { canonical } from "./canonical.js";
import { notice, post, sentenceFor, textsOf, whileBusy } from "./page.js";
import { CancelledError, isSupported } from "./passkeys.js";
import { MismatchError, signStatement, statementHash } from "./statements.js";

const page = document.getElementById("review");
const button = document.getElementById("sign");
const outcome = document.getElementById("outcome");
const words = textsOf(page, "me.review.");
const { statement, options } = JSON.parse(page.dataset.toSign);

document.getElementById("canonical").textContent = canonical(statement);
document.getElementById("hash").textContent = hex(await statementHash(statement));

/** The values that stand on the page, by field. */
function shown() {
  const fields = [...page.querySelectorAll("[data-field]")];
  return Object.fromEntries(fields.map((each) => [each.dataset.field, JSON.parse(each.dataset.value)]));
}

button.addEventListener("click", () =>
  whileBusy(button, async () => {
    notice(outcome, "hint", words.working);
    try {
      const signed = await signStatement(statement, options, { ...shown(), type: "placet-consent" });
      const { next } = await post("/me/consents", { signed });
      location.assign(next);
    } catch (error) {
      if (error instanceof CancelledError) notice(outcome, "error", words.cancelled);
      else if (error instanceof MismatchError) notice(outcome, "error", words.old);
      else notice(outcome, "error", sentenceFor(error));
    }
  }),
);

button.disabled = !isSupported();
