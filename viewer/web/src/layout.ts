// Panels on a grid with draggable borders; sizes and hidden panels are remembered per user.

import { followPointer, h, picker } from "./dom";
import type { ScenePanel } from "./scene";
import type { Panel, Preferences, Session } from "./session";

const PANELS = ["cameras", "scene", "signals", "tactile", "timeline", "sidebar"];
const NAMES: Record<string, string> = { scene: "3D scene", sidebar: "labels and review" };

export function panelMenu(session: Session, save: () => void): HTMLElement {
  const list = h("div", { class: "picker-list" });
  for (const name of PANELS)
    list.append(
      h("label", {}, h("input", {
        type: "checkbox",
        checked: !session.preferences.hidden?.includes(name),
        onchange: (e: Event) => {
          const hidden = (session.preferences.hidden ?? []).filter((n) => n !== name);
          session.preferences.hidden = (e.target as HTMLInputElement).checked ? hidden : [...hidden, name];
          applyHidden(session.preferences);
          session.touch();
          save();
        },
      }), NAMES[name] ?? name),
    );
  return picker("panels", list);
}

function applyHidden(preferences: Preferences): void {
  const main = document.querySelector("main.viewer");
  for (const name of PANELS) main?.classList.toggle(`no-${name}`, preferences.hidden?.includes(name) ?? false);
}

// Per border its size in a window of this height and width, the least and the most.
const SIZES: Record<string, [() => number, number, number]> = {
  side: [() => Math.min(330, Math.max(290, 0.25 * innerWidth)), 220, 640],
  low: [() => Math.min(240, 0.23 * innerHeight), 60, 700],
  scene: [() => 45, 15, 85],
  tactile: [() => Math.min(120, 0.13 * innerHeight), 60, 400],
  timeline: [() => Math.min(250, 0.28 * innerHeight), 80, 600],
};

export function layout(session: Session, parts: { bar: HTMLElement; cameras: Panel; scene: ScenePanel; signals: Panel; tactile: Panel; timeline: Panel; sidebar: Panel }, save: () => void): void {
  const main = h("main", { class: "viewer" });
  const apply = () => {
    for (const [name, [initial]] of Object.entries(SIZES)) main.style.setProperty(`--${name}`, String(session.preferences.sizes?.[name] ?? Math.round(initial())));
  };
  window.addEventListener("resize", apply);
  const border = (name: string, horizontal: boolean, sign: 1 | -1) => {
    const [initial, least, most] = SIZES[name];
    const set = (value: number) => {
      session.preferences.sizes = { ...session.preferences.sizes, [name]: Math.min(most, Math.max(least, value)) };
      apply();
      save();
    };
    const now = () => session.preferences.sizes?.[name] ?? Math.round(initial());
    const bar = h("div", { class: `border ${name}`, role: "separator", tabIndex: 0, "aria-orientation": horizontal ? "vertical" : "horizontal", "aria-label": `size of ${name}` });
    bar.addEventListener("pointerdown", (e) => {
      bar.setPointerCapture(e.pointerId);
      const start = horizontal ? e.clientX : e.clientY;
      const size = now();
      const unit = name === "scene" ? 100 / (bar.parentElement?.clientWidth || 1) : 1;
      const move = (event: PointerEvent) => set(size + sign * ((horizontal ? event.clientX : event.clientY) - start) * unit);
      followPointer(bar, move);
    });
    bar.addEventListener("keydown", (e) => {
      const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[e.key];
      if (!by) return;
      e.stopPropagation();
      set(now() + sign * by * (name === "scene" ? 3 : 20));
    });
    return bar;
  };
  const upper = h("div", { class: "upper" }, h("div", { class: "pictures" }, parts.cameras.element, border("tactile", false, -1), parts.tactile.element), border("scene", true, -1), parts.scene.element);
  (parts.scene.filled = () => upper.classList.toggle("alone", parts.scene.empty))();
  main.append(
    parts.bar,
    upper,
    border("low", false, -1),
    parts.signals.element,
    border("timeline", false, -1),
    parts.timeline.element,
    border("side", true, -1),
    parts.sidebar.element,
  );
  document.body.replaceChildren(main);
  apply();
  applyHidden(session.preferences);
  main.querySelector(".pictures")!.classList.toggle("alone", parts.tactile.element.hidden);
}
