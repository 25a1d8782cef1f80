// Boot: choose an episode, load what all panels share, lay the panels out, run the one frame loop.

import { Api, EpisodeApi } from "./api";
import { Sound } from "./audio";
import { CameraPanel } from "./cameras";
import { Clock } from "./clock";
import { listen } from "./commands";
import { ask, decide } from "./dialogs";
import { clear, clockTime, h, reserveColours, themeChanged } from "./dom";
import { Worklist } from "./findings";
import { Frames, type PoseSeries } from "./frames";
import { type Conflict, Layers } from "./layers";
import { setChangePoints } from "./phases";
import { ScenePanel } from "./scene";
import { type Panel, type Preferences, Session } from "./session";
import { Sidebar } from "./sidebar";
import { SignalsPanel } from "./signals";
import { Stamps } from "./stamps";
import { TactilePanel } from "./tactile";
import { TimelinePanel } from "./timeline";
import type { Finding, Manifest, Phase, Taxonomy } from "./types";

const MOST_TOASTS = 3;
// The longest that a scene drawn in software waits for the pictures.
const SCENE_WAITS_MS = 250;
const query = new URLSearchParams(location.search);

function userName(): string {
  const given = query.get("user");
  if (given) localStorage.setItem("mmdata.user", given);
  return localStorage.getItem("mmdata.user") ?? "annotator";
}

async function boot(): Promise<void> {
  const api = new Api(userName());
  const preferences = await api.json<Preferences>("/api/preferences");
  setTheme(preferences.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
  const { episodes } = await api.json<{ episodes: { key: string; name: string; bytes: number }[] }>("/api/episodes");
  const wanted = query.get("ep");
  const chosen = wanted ? episodes.find((e) => e.name === wanted || e.key === wanted) : episodes.length === 1 ? episodes[0] : undefined;
  if (!chosen) return showList(episodes, wanted);
  try {
    await openEpisode(api, chosen.key, preferences, episodes);
  } catch (error: any) {
    showError(`${chosen.name} cannot be shown`, String(error.message ?? error), episodes.length > 1);
  }
}

function showList(episodes: { name: string; bytes: number }[], missing: string | null): void {
  document.body.replaceChildren(
    h(
      "main",
      { class: "list" },
      h("h1", {}, "Episodes"),
      missing ? h("p", { class: "bad" }, `There is no episode ${missing} here.`) : null,
      episodes.length ? null : h("p", {}, "No .h5 files in this folder."),
      ...episodes.map((e) => h("a", { href: `?ep=${encodeURIComponent(e.name)}`, class: "item" }, h("span", { class: "what" }, e.name), h("small", {}, `${(e.bytes / 1e6).toFixed(1)} MB`))),
    ),
  );
}

function showError(title: string, text: string, others: boolean): void {
  document.body.replaceChildren(
    h("main", { class: "list error", role: "alert" }, h("h1", {}, title), h("p", {}, text), h("p", {}, "`mmdata verify` says what is wrong with the file."), others ? h("a", { href: "?" }, "Other episodes") : null),
  );
}

function setTheme(theme: "dark" | "light"): void {
  document.documentElement.dataset.theme = theme;
  themeChanged();
}

async function openEpisode(api: Api, key: string, preferences: Preferences, episodes: { key: string; name: string }[]): Promise<void> {
  const [manifest, taxonomy] = await Promise.all([api.json<Manifest>(`/api/e/${key}`), api.json<Taxonomy>("/api/taxonomy")]);
  const episode = new EpisodeApi(api, manifest);
  const stamps = new Map<string, Stamps>();
  const poses = new Map<string, PoseSeries>();
  await Promise.all(
    manifest.streams.map(async (stream) => {
      const own = new Stamps(new Float64Array(await api.binary(episode.data("stamps", stream.name))));
      stamps.set(stream.name, own);
      if (stream.moves && stream.count) {
        const [position, orientation] = await Promise.all([stream.position!, "orientation"].map((f) => api.binary(episode.data("values", stream.name, f))));
        poses.set(stream.name, { stamps: own, position: new Float64Array(position, 8), orientation: new Float64Array(orientation, 8) });
      }
    }),
  );
  for (const tier of taxonomy.tiers) reserveColours(tier.name === "motion" ? tier.labels.map((l) => l.label) : []);
  const clock = new Clock(manifest.duration);
  const layers = new Layers(episode);
  const session = new Session(episode, clock, stamps, new Frames(manifest, poses), layers, taxonomy);
  session.preferences = preferences;
  session.focus = session.cameraStreams()[0]?.name ?? manifest.streams[0]?.name ?? "";
  session.say = say;
  layers.failed = (message) => say(message, "bad");
  layers.conflict = (conflict) => void showConflict(session, conflict);
  await layers.load();
  // The tier in use; without labels, what moves itself makes manoeuvres and an arm motions.
  const used = layers.all<Phase>("phases").map((p) => p.item.tier);
  const guess = session.streams.some((s) => s.moves) ? "manoeuvre" : "motion";
  session.tier = preferences.tier ?? used[0] ?? guess;

  const cameras = new CameraPanel(session);
  const scene = new ScenePanel(session);
  const signals = new SignalsPanel(session);
  const tactile = new TactilePanel(session);
  const timeline = new TimelinePanel(session);
  const sound = new Sound(session);
  const worklist = new Worklist(session);
  worklist.reveal = (stream) => [cameras, signals].forEach((panel) => panel.reveal(stream));
  const publish = async () => {
    try {
      const answer = await layers.act("publish", {});
      say(`published ${layers.active} as revision ${answer.published}`);
    } catch (error: any) {
      if (!error.facts?.merge) return say(error.message, "bad");
      const text = h("p", {}, `${error.message}.`);
      if ((await decide("The file was changed by somebody else", text, ["Merge", "Not now"])) !== "Merge") return;
      const merged = await layers.act("merge", {});
      await layers.fetch(layers.active);
      say(merged.kept_ours.length ? `merged; kept ours of ${merged.kept_ours.length} changed by both` : "merged; publish again");
    }
  };
  const sidebar = new Sidebar(session, worklist, publish);
  timeline.onFinding = (finding, place) => worklist.jump(finding, place);

  const panels: Panel[] = [cameras, scene, signals, tactile, timeline, sidebar];
  const actions = {
    nextFinding: () => worklist.step(1),
    previousFinding: () => worklist.step(-1),
    publish,
    theme: () => {
      session.preferences.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      setTheme(session.preferences.theme);
      session.touch();
      save();
    },
    sound: () => {
      sound.setMuted(!sound.muted);
      say(sound.available ? (sound.muted ? "sound off" : "sound on") : "no sound in this episode");
    },
  };
  let saving = 0;
  const save = () => {
    clearTimeout(saving);
    saving = window.setTimeout(() => void api.json("/api/preferences", session.preferences, "PUT"), 400);
  };
  const bar = transport(session, episodes, actions, save);
  layout(session, { bar: bar.element, cameras, scene, signals, tactile, timeline, sidebar }, save);

  // -- findings, change points, others ---------------------------------------------------------
  let checked = -1;
  let labelFindings: Finding[] = [];
  let allFindings: Finding[] = [];
  const show = () => {
    worklist.set([...labelFindings, ...allFindings]);
    timeline.findings = worklist.findings;
    session.touch();
  };
  const check = async () => {
    const revision = layers.document?.standing.revision ?? 0;
    if (revision === checked || layers.saving !== "saved") return;
    checked = revision;
    labelFindings = (await episode.layer(layers.active, "findings")).findings;
    show();
  };
  layers.changed = () => {
    session.touch();
    bar.saved();
    void check().catch(() => {});
  };
  void check().catch(() => {});
  // Slow, and nobody waits for them: asked once the pictures are there.
  const later = async () => {
    while (!panels.every((p) => p.settled?.() ?? true)) await new Promise((resolve) => setTimeout(resolve, 200));
    setChangePoints((await episode.call("changepoints")).points);
    allFindings = (await episode.call("findings")).findings;
    show();
  };
  later().catch((error) => console.warn("checks:", error));
  connect(session, timeline);

  // -- address -----------------------------------------------------------------------------------
  const t = Number(query.get("t"));
  if (query.has("t") && Number.isFinite(t)) clock.seek(t * 1e9);
  const sel = query.get("sel");
  if (sel)
    for (const [layer, doc] of layers.docs)
      for (const [collection, items] of doc.items) if (items.has(sel)) session.select({ layer, collection, id: sel });
  let address = "";
  let addressAt = 0;
  const writeAddress = (now: number) => {
    if (clock.playing || now - addressAt < 300) return;
    const next = new URLSearchParams({ ep: manifest.name, t: (clock.t / 1e9).toFixed(6) });
    if (session.selection) next.set("sel", session.selection.id);
    if (query.has("user")) next.set("user", api.user);
    const text = `?${next}`;
    if (text === address) return;
    address = text;
    addressAt = now;
    history.replaceState(null, "", text);
  };

  listen(session, timeline, actions);
  let drawn = 0;
  const frame = (now: number) => {
    clock.tick(now);
    if (sound.waveform) timeline.waveform = sound.waveform;
    // Without a GPU, points take longer to draw than pictures to decode: pictures come first.
    const later = scene.software && !cameras.settled() && now - drawn < SCENE_WAITS_MS;
    if (!later) drawn = now;
    for (const panel of panels) if (panel !== scene || !later) panel.update();
    bar.update();
    writeAddress(now);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  document.title = `${manifest.episode_id} · mmdata view`;

  // For tests and for `mmdata`'s own reports: the same objects the panels use.
  const settled = () => panels.every((p) => p.settled?.() ?? true);
  (window as any).mmdata = {
    session,
    cameras,
    scene,
    timeline,
    worklist,
    panels,
    settled,
    seek: async (at: number) => {
      clock.seek(at);
      for (const panel of panels) panel.update();
      while (!settled()) {
        await new Promise((resolve) => setTimeout(resolve, 2));
        for (const panel of panels) panel.update();
      }
    },
  };
}

function say(message: string, kind: "info" | "bad" = "info"): void {
  let area = document.querySelector(".toasts");
  if (!area) document.body.append((area = h("div", { class: "toasts", role: "status", "aria-live": "polite" })));
  const toast = h("div", { class: `toast ${kind}` }, message);
  area.append(toast);
  while (area.children.length > MOST_TOASTS) area.firstElementChild!.remove();
  setTimeout(() => toast.remove(), kind === "bad" ? 8000 : 3500);
}

async function showConflict(session: Session, conflict: Conflict): Promise<void> {
  const mine = conflict.mine[0];
  const theirs = conflict.theirs.find((t) => t.id === mine.id)?.theirs;
  const pretty = (value: unknown) => (value ? JSON.stringify(value, null, 1) : "removed");
  const text = h(
    "div",
    { class: "conflict" },
    h("p", {}, `${conflict.message}. Nothing was overwritten.`),
    h("div", { class: "two" }, h("section", {}, h("h3", {}, "yours"), h("pre", {}, pretty(mine.after))), h("section", {}, h("h3", {}, conflict.user), h("pre", {}, pretty(theirs)))),
  );
  const answer = await decide("Conflict", text, [`Keep ${conflict.user}'s`, "Use mine"]);
  if (answer !== "Use mine") return;
  if (session.layers.active !== conflict.layer) await session.layers.activate(conflict.layer);
  await session.layers.edit(conflict.mine.filter((c) => c.after || session.layers.get(conflict.layer, c.collection, c.id)));
}

function connect(session: Session, timeline: TimelinePanel): void {
  const { api } = session.api;
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/${session.api.manifest.key}?user=${encodeURIComponent(api.user)}`;
  const socket = new WebSocket(url);
  let told = "";
  let known = false;
  const timer = setInterval(() => {
    const message = JSON.stringify({ t: session.clock.t, selection: session.selection?.id ?? null });
    if (socket.readyState === WebSocket.OPEN && message !== told) socket.send((told = message));
  }, 500);
  socket.onopen = async () => {
    // What happened while away.
    if (known) return;
    known = true;
    for (const name of session.layers.docs.keys()) await session.layers.fetch(name).catch(() => {});
    session.touch();
  };
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "operation") void session.layers.receive(message.layer, message.operation);
    if (message.type === "presence") {
      timeline.people = message.people.filter((p: any) => p.user !== api.user && typeof p.t === "number");
    }
  };
  socket.onclose = () => {
    clearInterval(timer);
    setTimeout(() => connect(session, timeline), 1500);
  };
}

function transport(session: Session, episodes: { key: string; name: string }[], actions: Record<string, () => unknown>, save: () => void) {
  const { clock, layers } = session;
  const { manifest, api } = session.api;
  const button = (text: string, title: string, onclick: () => unknown, cls = "") => h("button", { type: "button", title, "aria-label": title, class: cls, onclick }, text);
  const play = button("▶", "play or pause (Space)", () => (clock.playing ? clock.pause() : clock.play()), "play");
  const time = h("output", { class: "time", "aria-label": "cursor" });
  const speed = h("select", { "aria-label": "speed", title: "speed (- and +)", onchange: () => clock.setSpeed(Number(speed.value)) }, ...[0.1, 0.25, 0.5, 1, 2, 4].map((s) => h("option", { value: s, selected: s === 1 }, `${s}×`)));
  const status = h("span", { class: "status" });
  const select = h("select", { "aria-label": "episode", onchange: () => (location.search = `?ep=${encodeURIComponent(select.value)}`) }, ...episodes.map((e) => h("option", { value: e.name, selected: e.key === manifest.key }, e.name)));
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
    const doc = layers.document;
    const text = layers.saving === "saved" ? `${layers.active} · r${doc?.standing.revision ?? 0} saved` : layers.saving === "saving" ? "saving…" : "offline: kept here";
    status.textContent = text;
    status.className = `status ${layers.saving}`;
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

const PANELS = ["cameras", "scene", "signals", "tactile", "timeline", "sidebar"];

function panelMenu(session: Session, save: () => void): HTMLElement {
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
      }), name),
    );
  return h("details", { class: "picker" }, h("summary", {}, "panels"), list);
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

// Panels on a grid with draggable borders; sizes and hidden panels are remembered per user.
function layout(session: Session, parts: { bar: HTMLElement; cameras: Panel; scene: ScenePanel; signals: Panel; tactile: Panel; timeline: Panel; sidebar: Panel }, save: () => void): void {
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
      bar.addEventListener("pointermove", move);
      bar.addEventListener("pointerup", () => bar.removeEventListener("pointermove", move), { once: true });
    });
    bar.addEventListener("keydown", (e) => {
      const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[e.key];
      if (!by) return;
      e.stopPropagation();
      set(now() + sign * by * (name === "scene" ? 3 : 20));
    });
    return bar;
  };
  const none = parts.scene.empty;
  main.append(
    parts.bar,
    h("div", { class: none ? "upper alone" : "upper" }, h("div", { class: "pictures" }, parts.cameras.element, border("tactile", false, -1), parts.tactile.element), border("scene", true, -1), parts.scene.element),
    border("low", false, -1),
    parts.signals.element,
    border("timeline", false, -1),
    parts.timeline.element,
    border("side", true, -1),
    parts.sidebar.element,
  );
  clear(document.body);
  document.body.append(main);
  apply();
  applyHidden(session.preferences);
  main.querySelector(".pictures")!.classList.toggle("alone", parts.tactile.element.hidden);
}

boot().catch((error) => showError("The viewer cannot start", String(error.message ?? error), false));
