// /sign-in: one button, one passkey.

import { notice, post, sentenceFor, textsOf, whileBusy } from "./page.js";
import { CancelledError, isSupported, usePasskey } from "./passkeys.js";

const button = document.getElementById("sign-in");
const outcome = document.getElementById("outcome");
const words = textsOf(button, "sign_in.");

button.addEventListener("click", () =>
  whileBusy(button, async () => {
    notice(outcome, "hint", words.working);
    try {
      const { options } = await post("/sign-in/begin");
      const credential = await usePasskey(options);
      const { next } = await post("/sign-in/finish", { credential, next: button.dataset.next });
      location.assign(next);
    } catch (error) {
      notice(outcome, "error", error instanceof CancelledError ? words.cancelled : sentenceFor(error));
    }
  }),
);

// enabled only now, so that no click is lost before there is something to hear it
if (isSupported()) button.disabled = false;
else notice(outcome, "error", words.unsupported);
