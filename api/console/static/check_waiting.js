// /check/{id} while it runs: asks how far it is, and loads the report when it is there.

import { textsOf } from "./page.js";

const list = document.getElementById("steps");
const words = textsOf(list, "check.step.");
const tones = { done: "good", running: "", waiting: "quiet" };
const PAUSE_MS = 700;

async function look() {
  try {
    const answer = await fetch(`${list.dataset.address}/state`, { headers: { Accept: "application/json" } });
    const { is_over: isOver, steps } = await answer.json();
    if (!answer.ok || isOver) {
      location.reload();
      return;
    }
    for (const { name, state } of steps) {
      const item = list.querySelector(`[data-name="${name}"]`);
      const said = item.querySelector("span");
      if (said.textContent !== words[`state.${state}`]) {
        said.textContent = words[`state.${state}`];
        item.className = tones[state];
      }
    }
  } catch {
    // not reached: asked again below
  }
  setTimeout(look, PAUSE_MS);
}

setTimeout(look, PAUSE_MS);
