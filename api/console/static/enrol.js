// /me/enrol: choose or take a picture, make a passkey, sign the enrolment statement that this browser wrote.

import { localTimes } from "./base.js";
import { hex, sha256, utf8 } from "./bytes.js";
import { canonical } from "./canonical.js";
import { notice, post, sentenceFor, textsOf, whileBusy } from "./page.js";
import { CancelledError, createPasskey, isSupported } from "./passkeys.js";
import { signStatement, statementHash } from "./statements.js";

const root = document.getElementById("enrol");
const words = textsOf(root, "me.");
const find = (id) => document.getElementById(id);
const outcome = find("outcome");
const steps = [...root.querySelectorAll(".steps li")];

let picture = null; // Blob
let begun = null; // what /me/enrol/begin answered
let registration = null; // the new passkey, as the browser describes it

// -- step 1: a picture

function choose(blob) {
  picture = blob;
  const preview = find("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.hidden = false;
  outcome.replaceChildren();
}

find("portrait").addEventListener("change", (event) => event.target.files[0] && choose(event.target.files[0]));

for (const radio of root.querySelectorAll("[name=subject_class]")) {
  radio.addEventListener("change", () => {
    const isAdult = root.querySelector("[name=subject_class]:checked").value === "adult";
    find("basis").hidden = isAdult;
    find("rights-basis").required = !isAdult;
  });
}

/** The button appears only where there is a camera. */
async function offerCamera() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
  find("open-camera").hidden = !devices.some((device) => device.kind === "videoinput");
}

const video = root.querySelector("video");

find("open-camera").addEventListener("click", async () => {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 1024, height: 1024, facingMode: "user" } });
    find("camera").hidden = false;
    await video.play();
    // a frame must have arrived before there is anything to take
    while (!video.videoWidth) await new Promise((resolve) => video.addEventListener("resize", resolve, { once: true }));
    find("shoot").disabled = false;
    find("shoot").focus();
  } catch {
    notice(outcome, "error", words["enrol.camera_refused"]);
  }
});

find("shoot").addEventListener("click", () => {
  const side = Math.min(video.videoWidth, video.videoHeight);
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const [left, top] = [(video.videoWidth - side) / 2, (video.videoHeight - side) / 2];
  canvas.getContext("2d").drawImage(video, left, top, side, side, 0, 0, side, side);
  canvas.toBlob((blob) => {
    for (const track of video.srcObject.getTracks()) track.stop();
    find("camera").hidden = true;
    find("shoot").disabled = true;
    choose(blob);
  }, "image/png");
});

find("step-1").addEventListener("submit", (event) => {
  event.preventDefault();
  const button = event.target.querySelector("[type=submit]");
  if (!picture) return notice(outcome, "error", words["enrol.no_picture"]);
  return attempt(button, words["enrol.checking"], async () => {
    const form = new FormData();
    form.set("portrait", picture, "portrait");
    form.set("subject_class", root.querySelector("[name=subject_class]:checked").value);
    if (find("rights-basis").value) form.set("rights_basis", find("rights-basis").value);
    begun = await post("/me/enrol/begin", form);
    const { statement } = begun;
    find("nonce").textContent = statement.nonce;
    find("subject-id").textContent = statement.subject_id;
    find("picture-hash").textContent = statement.portraits[0];
    find("expires").dateTime = begun.expires_at;
    localTimes(find("step-2"));
    find("step-1").hidden = true;
    show(2);
  });
});

// -- step 2: a passkey

find("make-passkey").addEventListener("click", (event) =>
  attempt(event.target, words["review.working"], async () => {
    registration = await createPasskey(begun.options);
    begun.statement.key_thumbprint = await thumbprint(registration.response.publicKey);
    write(begun.text);
    find("canonical").textContent = canonical(begun.statement);
    find("hash").textContent = hex(await statementHash(begun.statement));
    event.target.closest(".actions").hidden = true;
    show(3);
  }),
);

/** RFC 7638 thumbprint of a public key in SPKI form (base64url), as statements name keys. */
async function thumbprint(spki) {
  const bytes = Uint8Array.from(atob(spki.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  const kinds = [{ name: "ECDSA", namedCurve: "P-256" }, { name: "Ed25519" }];
  const keys = kinds.map((kind) => crypto.subtle.importKey("spki", bytes, kind, true, ["verify"]));
  const { crv, kty, x, y } = await crypto.subtle.exportKey("jwk", await Promise.any(keys));
  const digest = await sha256(utf8(canonical(y === undefined ? { crv, kty, x } : { crv, kty, x, y })));
  return btoa(String.fromCharCode(...digest)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Build the text into the page. */
function write(text) {
  const make = (name, content) => Object.assign(document.createElement(name), { textContent: content });
  const parts = [make("h3", text.title), make("p", text.lead)];
  for (const section of text.sections) {
    parts.push(make("h3", section.heading));
    for (const { text: paragraph, items } of section.paragraphs) {
      if (!items.length) {
        parts.push(make("p", paragraph));
        continue;
      }
      const list = document.createElement("ul");
      list.append(...items.map((item) => make("li", item)));
      parts.push(list);
    }
  }
  find("text").replaceChildren(...parts);
}

// -- step 3: the signature

find("sign").addEventListener("click", (event) =>
  attempt(event.target, words["review.working"], async () => {
    const { statement, options } = begun;
    const request = {
      challenge: options.challenge,
      rpId: options.rp.id,
      allowCredentials: [{ type: "public-key", id: registration.id }],
      userVerification: "required",
    };
    const signed = await signStatement(statement, request, {});
    notice(outcome, "hint", words["enrol.storing"]);
    const form = new FormData();
    form.set("portrait", picture, "portrait");
    form.set("signed", JSON.stringify(signed));
    form.set("registration", JSON.stringify(registration));
    const { next } = await post("/me/enrol/finish", form);
    location.assign(next);
  }),
);

// -- all steps

function show(number) {
  steps.forEach((step, place) => (place === number - 1 ? step.setAttribute("aria-current", "step") : step.removeAttribute("aria-current")));
  const section = find(`step-${number}`);
  section.hidden = false;
  section.querySelector("h2").focus();
}

function attempt(button, meanwhile, work) {
  return whileBusy(button, async () => {
    notice(outcome, "hint", meanwhile);
    try {
      await work();
      if (outcome.querySelector(".hint") && begun) outcome.replaceChildren();
    } catch (error) {
      notice(outcome, "error", error instanceof CancelledError ? words["review.cancelled"] : sentenceFor(error));
    }
  });
}

find("make-passkey").disabled = !isSupported();
await offerCamera();
find("step-1").querySelector("[type=submit]").disabled = false;
