// What every page does: local times, copy buttons, dialogs in browsers that lack invoker commands.

import { toast, words } from "./page.js";

const UTC = { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" };

/** Put every `<time data-local>` below `root` into the reader's zone; UTC stays on hover. */
export function localTimes(root = document) {
  const page = document.documentElement.lang;
  const language = navigator.language.startsWith(page) ? navigator.language : page;  // en-GB dates for who reads en-GB
  for (const element of root.querySelectorAll("time[data-local]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.valueOf())) continue;
    element.title = `${new Intl.DateTimeFormat(language, UTC).format(moment)} UTC`;
    element.textContent = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(moment);
    delete element.dataset.local;
  }
}

const SVG = "http://www.w3.org/2000/svg";

/** Reveal and wire the copy buttons below `root`. */
export function copyButtons(root = document) {
  for (const button of root.querySelectorAll("button.copy[hidden]")) {
    const icon = document.createElementNS(SVG, "svg");
    icon.setAttribute("viewBox", "0 0 16 16");
    icon.setAttribute("aria-hidden", "true");
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z");
    icon.append(path);
    button.replaceChildren(icon);
    button.setAttribute("aria-label", `${words.copy} ${button.dataset.what || button.dataset.copy}`);
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        toast(words.copied);
      } catch {
        toast(words.copy_failed);
      }
    });
  }
}

/** Browsers before `commandfor` (2025): the same two commands by hand. */
function dialogCommands() {
  if ("command" in HTMLButtonElement.prototype) return;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[commandfor]");
    const dialog = button && document.getElementById(button.getAttribute("commandfor"));
    if (dialog instanceof HTMLDialogElement) {
      button.getAttribute("command") === "close" ? dialog.close() : dialog.showModal();
    }
  });
}

localTimes();
copyButtons();
dialogCommands();
