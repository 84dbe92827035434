// /invitations/…: make the first passkey of a member of staff.

import { notice, post, sentenceFor, textsOf, whileBusy } from "./page.js";
import { CancelledError, createPasskey, isSupported } from "./passkeys.js";

const button = document.getElementById("make-passkey");
const outcome = document.getElementById("outcome");
const words = textsOf(button, "sign_in.");
const here = location.pathname;

button.addEventListener("click", () =>
  whileBusy(button, async () => {
    notice(outcome, "hint", words.working);
    try {
      const { options } = await post(`${here}/begin`);
      const credential = await createPasskey(options);
      const { next } = await post(`${here}/finish`, { credential });
      location.assign(next);
    } catch (error) {
      notice(outcome, "error", error instanceof CancelledError ? words.cancelled : sentenceFor(error));
    }
  }),
);

// enabled only now, so that no click is lost before there is something to hear it
if (isSupported()) button.disabled = false;
else notice(outcome, "error", words.unsupported);
