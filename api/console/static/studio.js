// /studio: a session at a time. Sound goes out over a WebSocket, segments come in and are played and checked.

import { notice, post, sentenceFor, textsOf, whileBusy, fill } from "./page.js";
import { StreamCheck } from "./segments.js";

const RATE_HZ = 16_000;
const PIECE = 320; // 20 ms
const CHANGES_PER_S = 8;

const root = document.querySelector("#studio");
const words = textsOf(root, "studio.");
const form = root.querySelector("#wishes");
const [video, badge, clock, proof, outcome] = ["video", "badge", "clock", "proof", "outcome"].map((id) => root.querySelector(`#${id}`));
const [speakButton, playButton, stopButton] = ["speak", "play", "stop"].map((id) => root.querySelector(`#${id}`));

let session = null;

/** What is wished for now: controls by name, as the service takes them. */
function wishes() {
  const controls = {};
  for (const input of form.querySelectorAll("[data-control]:not(:disabled)")) {
    const { control, part } = input.dataset;
    if (control === "emotion") controls.emotion = input.value;
    else if (part) (controls[control] ??= {})[`${part}_deg`] = Number(input.value);
    else controls[control] = Number(input.value);
  }
  return controls;
}

function chosen() {
  return form.querySelector("input[name=choice]:checked");
}

function request() {
  const { subject, portrait } = chosen().dataset;
  const purpose = form.querySelector("#purpose").value;
  return { subject_id: subject, portrait_sha256: portrait, purpose, controls: wishes(), max_duration_s: 120, sound_rate_hz: RATE_HZ };
}

/** Only what the person shown has agreed to can be moved, and only their purposes can be named. */
function fit() {
  const controls = JSON.parse(chosen().dataset.controls);
  for (const input of form.querySelectorAll("[data-control]")) input.disabled = !controls.includes(input.dataset.control);
  const purposes = JSON.parse(chosen().dataset.purposes);
  for (const option of form.querySelectorAll("#purpose option")) option.disabled = option.hidden = !purposes.includes(option.value);
  const select = form.querySelector("#purpose");
  if (!purposes.includes(select.value)) [select.value] = purposes;
  tell();
}

function tell() {
  for (const output of form.querySelectorAll("output")) output.value = form.querySelector(`#${output.htmlFor}`).value;
  const body = JSON.stringify(request(), null, 1);
  root.querySelector("#call").textContent =
    `curl -X POST ${location.origin}/v1/live/sessions \\\n  -H "Authorization: DPoP $TOKEN" -H "DPoP: $PROOF" \\\n` +
    `  -H "Content-Type: application/json" -d '${body}'\n\n# Python\nwith placet_live(client, **${body}) as live:\n` +
    "    live.say(pcm)\n    live.finish()\n    segments = [live.init_segment, *live.segments()]";
}

function show(tone, key, values = {}) {
  badge.className = `badge ${tone}`;
  badge.textContent = fill(words[key], values);
}

/** One session: its socket, its player, its check. */
class Live {
  constructor(opened) {
    this.opened = opened;
    this.queue = [];
    this.isChecked = Promise.resolve();
    this.changedAt = 0;
    this.ended = new Promise((resolve) => (this.end = resolve));
  }

  /** Connect, and wait until the first picture can come. */
  async connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/v1/live`, this.opened.subprotocol);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.socket.send(JSON.stringify({ type: "open", ticket: this.opened.ticket }));
    const greeted = new Promise((resolve, reject) => {
      this.socket.onmessage = ({ data }) => this.take(data, resolve);
      this.socket.onclose = (event) => {
        reject(new Error(event.reason || String(event.code)));
        this.end(this.goodbye ?? { reason: "failed", code: event.reason });
      };
    });
    await greeted;
  }

  take(data, greeted) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "opened") this.greeting = message;
      else if (message.type === "ended") this.goodbye = message;
      else if (message.type === "refused") notice(outcome, "hint", words.refused, message.detail);
      return;
    }
    const bytes = new Uint8Array(data);
    if (!this.init) {
      this.init = bytes;
      this.isChecked = StreamCheck.of(bytes, this.greeting.manifest_id).then((check) => (this.check = check));
      this.play();
      greeted();
    } else {
      this.isChecked = this.isChecked.then(() => this.check.verify(bytes)).then(() => this.checked());
      this.isChecked.catch((error) => show("bad", "badge.bad", { detail: error.message }));
    }
    this.queue.push(bytes);
    this.append();
  }

  checked() {
    if (this.check.end) show("good", "badge.whole", { count: this.check.number - 1 });
    else if (this.check.number % 5 === 0 || this.check.number < 5) show("good", "badge.signed", { count: this.check.number });
  }

  play() {
    this.source = new MediaSource();
    video.src = URL.createObjectURL(this.source);
    this.source.onsourceopen = () => {
      URL.revokeObjectURL(video.src);
      this.buffer = this.source.addSourceBuffer(this.greeting.mime);
      this.buffer.onupdateend = () => this.append();
      this.append();
    };
  }

  append() {
    if (!this.buffer || this.buffer.updating || this.source.readyState !== "open") return;
    const next = this.queue.shift();
    if (next) this.buffer.appendBuffer(next);
    else if (this.goodbye) this.source.endOfStream();
    // play as soon as there is something, and stay near to what comes
    const { buffered } = video;
    if (buffered.length && video.paused && !video.ended) video.play().catch(() => {});
    const last = buffered.length ? buffered.end(buffered.length - 1) : 0;
    if (last - video.currentTime > 1.5) video.currentTime = last - 0.3;
  }

  say(piece) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(piece);
  }

  change(controls) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "controls", controls }));
  }

  finish() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "finish" }));
  }
}

/** Pieces of 20 ms of what the microphone hears; returns how to stop it. */
async function microphone(take) {
  const heard = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true } });
  const context = new AudioContext({ sampleRate: RATE_HZ });
  await context.audioWorklet.addModule(root.dataset.worklet);
  const worklet = new AudioWorkletNode(context, "microphone");
  worklet.port.onmessage = ({ data }) => take(data);
  context.createMediaStreamSource(heard).connect(worklet);
  return async () => {
    for (const track of heard.getTracks()) track.stop();
    await context.close();
  };
}

/** The same from a file, in its own time; returns how to stop it. */
async function fromFile(file, take, over) {
  const decoded = await new OfflineAudioContext(1, RATE_HZ, RATE_HZ).decodeAudioData(await file.arrayBuffer());
  const offline = new OfflineAudioContext(1, Math.ceil(decoded.duration * RATE_HZ), RATE_HZ);
  const source = offline.createBufferSource();
  source.buffer = decoded;
  source.connect(offline.destination);
  source.start();
  const samples = (await offline.startRendering()).getChannelData(0);
  const startedAt = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.min(samples.length, ((performance.now() - startedAt) / 1000) * RATE_HZ);
    for (; sent + PIECE <= due || (due === samples.length && sent < due); sent += PIECE) {
      const piece = Int16Array.from(samples.subarray(sent, sent + PIECE), (sample) => Math.max(-1, Math.min(1, sample)) * 32767);
      take(piece.buffer);
    }
    if (sent >= samples.length) {
      clearInterval(timer);
      over();
    }
  }, 20);
  return async () => clearInterval(timer);
}

async function run(button, listen) {
  await whileBusy(button, async () => {
    outcome.replaceChildren();
    proof.textContent = "";
    show("quiet", "badge.opening");
    try {
      session = new Live(await post("/studio/sessions", request()));
      await session.connect();
      stopButton.disabled = false;
      speakButton.disabled = playButton.disabled = true;
      for (const input of form.querySelectorAll("input[type=radio], #purpose, #sound")) input.disabled = true;
      const quiet = await listen((piece) => session.say(piece), () => session.finish());
      const startedAt = performance.now();
      const ticking = setInterval(() => (clock.textContent = `${Math.floor((performance.now() - startedAt) / 1000)} s`), 500);
      const goodbye = await session.ended;
      clearInterval(ticking);
      await quiet();
      await session.isChecked.catch(() => {});
      const kind = goodbye.reason === "complete" ? "good" : "error";
      notice(outcome, kind, words[`ended.${goodbye.reason}`] ?? words["ended.failed"], goodbye.detail ?? "");
      proof.textContent = fill(words.proof, { manifest: session.greeting.manifest_id, entry: goodbye.log_index ?? "–" });
    } catch (error) {
      show("quiet", "badge.waiting");
      notice(outcome, "error", words.not_opened, sentenceFor(error));
    } finally {
      session = null;
      stopButton.disabled = true;
      for (const input of form.querySelectorAll("input[type=radio], #purpose, #sound")) input.disabled = false;
      speakButton.disabled = false;
      playButton.disabled = !form.querySelector("#sound").files.length;
    }
  });
}

if (form) {
  let waiting = null;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "choice") fit();
    if (event.target.id === "sound") playButton.disabled = !event.target.files.length;
    tell();
    const name = event.target.dataset.control;
    if (!session || !name || waiting) return;
    // not every step of a slider, but always the last one
    waiting = setTimeout(() => {
      waiting = null;
      session?.change({ [name]: wishes()[name] });
    }, 1000 / CHANGES_PER_S);
  });
  speakButton.addEventListener("click", () => run(speakButton, microphone));
  playButton.addEventListener("click", () => run(playButton, (take, over) => fromFile(form.querySelector("#sound").files[0], take, over)));
  stopButton.addEventListener("click", () => session?.finish());
  fit();
  speakButton.disabled = false;
}
