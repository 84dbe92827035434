// /check: drop, paste or choose a file; the upload shows how far it is, then the page of the report takes over.

import { ProblemError, notice, sentenceFor, textsOf, whileBusy } from "./page.js";

const form = document.getElementById("ask");
const input = document.getElementById("media");
const button = form.querySelector("button[type=submit]");
const sending = document.getElementById("sending");
const sent = document.getElementById("sent");
const outcome = document.getElementById("outcome");
const words = textsOf(form, "check.ask.");

/** Send a form with a file; resolves to the JSON that came back. */
function send(body) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch() does not tell how much has been sent
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("X-CSRF-Token", document.body.dataset.csrf);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) sent.value = (100 * event.loaded) / event.total;
    });
    request.addEventListener("error", () => reject(new TypeError("fetch")));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(request.response);
      else reject(new ProblemError(request.response ?? {}, request.status));
    });
    request.send(body);
  });
}

async function check(file) {
  await whileBusy(button, async () => {
    outcome.replaceChildren();
    sent.value = 0;
    sending.hidden = false;
    const body = new FormData();
    body.append("media", file, "media");
    try {
      const { next } = await send(body);
      location.assign(next);
    } catch (error) {
      sending.hidden = true;
      notice(outcome, "error", words.failed, sentenceFor(error));
    }
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (input.files.length) check(input.files[0]);
});
for (const kind of ["dragenter", "dragover"]) {
  form.addEventListener(kind, (event) => {
    event.preventDefault();
    form.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  form.addEventListener(kind, () => form.classList.remove("over"));
}
form.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) check(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) check(file);
});
