// The bar on top: episode, playing, undo, panels, publishing, who signs.

import { ask } from "./dialogs";
import { clockTime, h } from "./dom";
import { panelMenu } from "./layout";
import type { Session } from "./session";

export function transport(session: Session, episodes: { key: string; name: string }[], actions: Record<string, () => unknown>, save: () => void) {
  const { clock, layers } = session;
  const { manifest, api } = session.api;
  const button = (text: string, title: string, onclick: () => unknown, cls = "") => h("button", { type: "button", title, "aria-label": title, class: cls, onclick }, text);
  const play = button("▶", "play or pause (Space)", () => (clock.playing ? clock.pause() : clock.play()), "play");
  const time = h("output", { class: "time", "aria-label": "cursor" });
  const speed = h("select", { "aria-label": "speed", title: "speed (- and +)", onchange: () => clock.setSpeed(Number(speed.value)) }, ...[0.1, 0.25, 0.5, 1, 2, 4].map((s) => h("option", { value: s, selected: s === 1 }, `${s}×`)));
  const status = h("span", { class: "status" });
  const select = h("select", { "aria-label": "episode", title: manifest.name, onchange: () => (location.search = `?ep=${encodeURIComponent(select.value)}`) }, ...episodes.map((e) => h("option", { value: e.name, selected: e.key === manifest.key }, e.name)));
  const user = button(api.user, "who signs the labels", async () => {
    const name = await ask("Your name", api.user);
    if (!name || name === api.user) return;
    localStorage.setItem("mmdata.user", name);
    location.search = `?ep=${encodeURIComponent(manifest.name)}&user=${encodeURIComponent(name)}`;
  }, "user");
  // Buttons do what their key does.
  const key = (k: string) => () => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true }));
  const element = h(
    "header",
    { class: "bar" },
    select,
    h("div", { class: "group" }, button("|◀", "to the start (Home)", () => clock.seek(0)), button("‹", "one frame back (,)", key(",")), play, button("›", "one frame on (.)", key(".")), button("↻", "loop (L)", key("l"))),
    time,
    speed,
    h("div", { class: "group" }, button("↶", "undo (Ctrl+Z)", () => void layers.undo()), button("↷", "redo (Ctrl+Y)", () => void layers.redo())),
    h("div", { class: "spacer" }),
    panelMenu(session, save),
    status,
    button("Publish", "write the layer beside the episode (Ctrl+S)", () => actions.publish()),
    user,
    button("◐", "dark or light (H)", () => actions.theme()),
    button("?", "keys (?)", key("?")),
  );
  const saved = () => {
    const revision = layers.document?.standing.revision ?? 0;
    const offline = layers.saving === "offline" || !layers.connected;
    const text = { saved: `${layers.active} · r${revision} saved`, saving: "saving…", offline: "offline: kept here" }[layers.saving];
    status.textContent = layers.saving === "saved" && !layers.connected ? "server gone" : text;
    status.title = offline ? "The server does not answer. Edits are kept in this browser and sent when it does." : `layer ${layers.active}, of which ${revision} edits are in the journal`;
    status.className = `status ${offline ? "offline" : layers.saving}`;
  };
  saved();
  let shown = "";
  return {
    element,
    saved,
    update() {
      const text = `${clockTime(clock.t)} / ${clockTime(clock.duration)}`;
      const state = `${text} ${clock.playing} ${clock.speed}`;
      if (state === shown) return;
      shown = state;
      time.textContent = text;
      play.textContent = clock.playing ? "⏸" : "▶";
      if (document.activeElement !== speed) speed.value = String(clock.speed);
    },
  };
}
