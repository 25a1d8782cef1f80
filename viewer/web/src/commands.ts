// Every action and its key. Keys name what they do in the sheet (?), so nothing works only by mouse.

import { addBox, adjust, cloneTrack, copyToOwn, deleteSelected, fitSelected, keyframeHere, mergeTracks, nextObject, removeKeyframeHere, setClass, splitTrack, toggleGap } from "./boxes";
import type { Clock } from "./clock";
import { ask, choose, sheet } from "./dialogs";
import { randomId } from "./layers";
import * as phases from "./phases";
import type { Session } from "./session";
import type { TimelinePanel } from "./timeline";
import type { Annotation, EventMark, Phase } from "./types";

interface Command {
  keys: string[];
  what: string;
  group: string;
  run: (session: Session, event: KeyboardEvent) => unknown;
  when?: (session: Session) => boolean;
}

const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

const boxSelected = (s: Session) => s.selection?.collection === "tracks_3d";
const eventSelected = (s: Session) => s.selection?.collection === "events";
const phaseSelected = (s: Session) => s.selection?.collection === "phases";

export function faster(clock: Clock, by: 1 | -1): void {
  const at = SPEEDS.reduce((best, v, i) => (Math.abs(v - clock.speed) < Math.abs(SPEEDS[best] - clock.speed) ? i : best), 0);
  clock.setSpeed(SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, at + by))]);
}

function step(session: Session, by: number): void {
  const { clock } = session;
  clock.pause();
  const focus = session.stamps.get(session.focus) ?? session.stamps.get(session.cameraStreams()[0]?.name ?? "") ?? [...session.stamps.values()][0];
  if (focus) clock.seek(focus.step(clock.t, by));
}

function setEdge(session: Session, edge: "start" | "end"): void {
  if (eventSelected(session)) return moveEvent(session, session.clock.t);
  const phase = session.selected<Phase>("phases");
  if (phase && own(session)) void session.layers.edit(phases.moveEdge(session, phase, edge, session.clock.t));
}

// Frames of the stream in focus from an instant.
function framesFrom(session: Session, t: number, by: number): number {
  const stamps = session.stamps.get(session.focus || session.cameraStreams()[0]?.name || "");
  return stamps ? stamps.step(t, by) : t + by * 1e7;
}

function nudge(session: Session, edge: "start" | "end", by: number): void {
  const event = session.selected<EventMark>("events");
  if (event) return moveEvent(session, framesFrom(session, event.stamp_ns, by));
  const phase = session.selected<Phase>("phases");
  if (!phase || !own(session)) return;
  const to = framesFrom(session, edge === "start" ? phase.start_ns : phase.end_ns, by);
  const changes = phases.moveEdge(session, phase, edge, to);
  if (changes.length) {
    void session.layers.edit(changes);
    session.clock.seek(to);
  }
}

// A whole phase between its neighbours, or an event; the cursor goes along.
function move(session: Session, by: number): void {
  const event = session.selected<EventMark>("events");
  if (event) return moveEvent(session, framesFrom(session, event.stamp_ns, by));
  const phase = session.selected<Phase>("phases");
  if (!phase || !own(session)) return;
  const changes = phases.movePhase(session, phase, framesFrom(session, phase.start_ns, by));
  if (!changes.length) return session.say("no room to move it");
  void session.layers.edit(changes);
  session.clock.seek((changes[0].after as Phase).start_ns);
}

function toChangePoint(session: Session, by: 1 | -1): void {
  const to = phases.nextChangePoint(session.clock.t, by);
  if (to === null) return session.say(`no ${by > 0 ? "later" : "earlier"} change point`);
  session.clock.pause();
  session.clock.seek(to);
}

function moveEvent(session: Session, to: number): void {
  const event = session.selected<EventMark>("events");
  if (!event || !own(session) || to === event.stamp_ns) return;
  void session.layers.edit([{ collection: "events", id: event.id, after: { ...event, stamp_ns: to } }]);
  session.clock.seek(to);
}

// Whether the selection may be changed; says so when it may not.
export function own(session: Session): boolean {
  if (session.selection?.layer === session.layers.active) return true;
  session.say(`this belongs to layer ${session.selection?.layer}; Enter copies it into yours`);
  return false;
}

async function newPhase(session: Session): Promise<void> {
  const { clock, tier } = session;
  const list = phases.inTier(session, tier);
  const inside = list.find((p) => p.start_ns <= clock.t && clock.t < p.end_ns);
  const label = await choose(`New ${tier} phase from ${(clock.t / 1e9).toFixed(3)} s`, phases.labels(session, tier), { hints: hints(session, tier) });
  if (!label) return;
  const next = list.find((p) => p.start_ns > clock.t);
  const end = inside ? inside.end_ns : Math.min(next?.start_ns ?? clock.duration, clock.duration);
  if (end - clock.t < phases.SHORTEST) return session.say("no room for a phase here");
  phases.useLabel(tier, label);
  const phase = phases.newPhase(session, tier, clock.t, end, label);
  void session.layers.edit(phases.paint(session, phase.tier, phase));
  session.select({ layer: session.layers.active, collection: "phases", id: phase.id });
}

function hints(session: Session, tier: string): Record<string, string> {
  const terms = session.taxonomy.tiers.find((t) => t.name === tier)?.labels ?? [];
  return Object.fromEntries(
    terms.map((t) => [t.label, [t.starts_when && `from: ${t.starts_when}`, t.ends_when && `to: ${t.ends_when}`].filter(Boolean).join(" · ")]),
  );
}

async function relabel(session: Session): Promise<void> {
  if (boxSelected(session)) return setClass(session);
  const s = session.selection;
  if (!s || !own(session)) return;
  const item = session.layers.get(s.layer, s.collection, s.id);
  if (!item) return;
  const options = s.collection === "events" ? session.taxonomy.events.map((e) => e.label) : phases.labels(session, String(item.tier));
  const label = await choose("Label", options, { hints: s.collection === "phases" ? hints(session, String(item.tier)) : {} });
  const now = session.layers.get(s.layer, s.collection, s.id);
  if (!label || !now) return;
  if (s.collection === "phases") phases.useLabel(String(now.tier), label);
  void session.layers.edit([{ collection: s.collection, id: s.id, after: { ...now, label } }]);
}

async function newEvent(session: Session): Promise<void> {
  const label = await choose(`Event at ${(session.clock.t / 1e9).toFixed(3)} s`, session.taxonomy.events.map((e) => e.label));
  if (!label) return;
  const event: EventMark = { id: `event-${randomId()}`, label, stamp_ns: session.clock.t };
  if (session.focus && session.stream(session.focus)) event.stream = session.focus;
  void session.layers.edit([{ collection: "events", id: event.id, after: event }]);
  session.select({ layer: session.layers.active, collection: "events", id: event.id });
}

async function instruction(session: Session): Promise<void> {
  const old = session.layers.all("captions", session.layers.active).find((c) => c.item.style === "instruction")?.item;
  const text = await ask("Instruction of this episode", String(old?.text ?? ""), true);
  if (text === null || text === (old?.text ?? "")) return;
  const id = old?.id ?? `caption-${randomId()}`;
  const after = text ? { ...(old ?? {}), id, text, style: "instruction" } : null;
  if (after || old) void session.layers.edit([{ collection: "captions", id, after: after as Annotation | null }]);
}

function outcome(session: Session): void {
  const phase = session.selected<Phase>("phases");
  if (!phase || !own(session)) return;
  const { success, ...rest } = phase;
  // unknown -> success -> failure -> unknown
  const after = success === undefined ? { ...phase, success: true } : success ? { ...phase, success: false } : (rest as Phase);
  void session.layers.edit([{ collection: "phases", id: phase.id, after }]);
}

async function comment(session: Session): Promise<void> {
  const text = await ask("Comment, pinned to this instant, view and selection", "", true);
  if (!text) return;
  const s = session.selection;
  const item = s && session.layers.get(s.layer, s.collection, s.id);
  const pin: Record<string, unknown> = { stamp_ns: session.clock.t };
  if (item) {
    pin.annotation_id = item.id;
    if (item.object_id) pin.object_id = item.object_id;
  }
  if (session.focus && session.stream(session.focus)) pin.stream = session.focus;
  const id = `comment-${randomId()}`;
  const after: Annotation = { id, text, pin, provenance: { author: session.api.api.user, created_unix_ns: { $int: `${Date.now()}000000` } } };
  if (s && s.layer !== session.layers.active) after.layer = s.layer;
  void session.layers.edit([{ collection: "comments", id, after }]);
}

function cycle(session: Session, by: number): void {
  const rows = [
    ...session.layers.all<Phase>("phases").map((p) => ({ ...p, collection: "phases", t: p.item.start_ns })),
    ...session.layers.all<EventMark>("events").map((e) => ({ ...e, collection: "events", t: e.item.stamp_ns })),
  ].sort((a, b) => a.t - b.t || a.item.id.localeCompare(b.item.id));
  if (!rows.length) return;
  const now = rows.findIndex((r) => r.item.id === session.selection?.id);
  let to = now + by;
  if (now < 0) {
    const after = rows.findIndex((r) => r.t >= session.clock.t);
    to = by > 0 ? (after < 0 ? 0 : after) : (after < 0 ? rows.length : after) - 1;
  }
  const row = rows[(to + rows.length) % rows.length];
  session.select({ layer: row.layer, collection: row.collection, id: row.item.id });
  session.clock.seek(row.t);
}

function cycleTier(session: Session): void {
  const names = session.taxonomy.tiers.map((t) => t.name);
  session.tier = names[(names.indexOf(session.tier) + 1) % names.length];
  session.say(`tier: ${session.tier}`);
  session.touch();
}

const G = { time: "Time", label: "Phases and events", box: "3D boxes", all: "Everything" };

// About an axis of the box; `positive` is the key that turns it the positive way.
function turn(session: Session, e: KeyboardEvent, axis: 0 | 1 | 2, positive: string): void {
  const degrees = (e.key.toLowerCase() === positive ? 1 : -1) * (e.shiftKey ? 1 : 5);
  adjust(session, "turn", axis, (degrees * Math.PI) / 180);
}

export function commands(actions: Record<string, () => unknown>): Command[] {
  const box = (axis: 0 | 1 | 2, by: number) => (s: Session, e: KeyboardEvent) => adjust(s, "move", axis, by * (e.shiftKey ? 0.01 : 0.1));
  const size = (axis: 0 | 1 | 2, by: number) => (s: Session, e: KeyboardEvent) => adjust(s, "size", axis, by * (e.shiftKey ? 0.01 : 0.1));
  return [
    { keys: ["Space"], what: "play or pause", group: G.time, run: (s) => (s.clock.playing ? s.clock.pause() : s.clock.play()) },
    { keys: [","], what: "one frame back, of the stream in focus", group: G.time, run: (s) => step(s, -1) },
    { keys: ["."], what: "one frame on", group: G.time, run: (s) => step(s, 1) },
    { keys: ["<", ">"], what: "ten frames back, on", group: G.time, run: (s, e) => step(s, e.key === "<" ? -10 : 10) },
    { keys: ["-", "+", "="], what: "slower, faster (0.1x to 4x)", group: G.time, run: (s, e) => faster(s.clock, e.key === "-" ? -1 : 1) },
    { keys: ["Home", "End"], what: "to the start, the end", group: G.time, run: (s, e) => s.clock.seek(e.key === "Home" ? 0 : s.clock.duration) },
    { keys: ["l"], what: "loop the selected phase, or what is in view; again: stop", group: G.time, run: loop },
    { keys: ["Ctrl+ArrowUp", "Ctrl+ArrowDown"], what: "zoom the timeline in, out", group: G.time, when: (s) => !boxSelected(s), run: (s, e) => s.clock.zoom(e.key === "ArrowUp" ? 0.6 : 1 / 0.6) },
    { keys: ["0"], what: "show the whole episode", group: G.time, run: (s) => s.clock.setView(0, s.clock.duration) },
    { keys: ["o"], what: "stream in focus: the next one", group: G.time, run: focusNext },

    { keys: ["n"], what: "new phase from the cursor on", group: G.label, run: newPhase },
    { keys: ["1…9"], what: "while playing, hold: label as long as held; paused: relabel the selected phase", group: G.label, run: () => {} },
    { keys: ["v"], what: "event at the cursor", group: G.label, run: newEvent },
    { keys: ["["], what: "phase starts at the cursor; event: to the cursor", group: G.label, run: (s) => setEdge(s, "start") },
    { keys: ["]"], what: "phase ends at the cursor", group: G.label, run: (s) => setEdge(s, "end") },
    { keys: ["Alt+ArrowLeft", "Alt+ArrowRight"], what: "phase start, or event, one frame earlier, later", group: G.label, run: (s, e) => nudge(s, "start", e.key === "ArrowLeft" ? -1 : 1) },
    { keys: ["Alt+Shift+ArrowLeft", "Alt+Shift+ArrowRight"], what: "phase end one frame earlier, later", group: G.label, run: (s, e) => nudge(s, "end", e.key === "ArrowLeft" ? -1 : 1) },
    { keys: ["Ctrl+ArrowLeft", "Ctrl+ArrowRight"], what: "whole phase, or event, one frame earlier, later (Shift: ten)", group: G.label, when: (s) => !boxSelected(s), run: (s, e) => move(s, (e.key === "ArrowLeft" ? -1 : 1) * (e.shiftKey ? 10 : 1)) },
    { keys: ["j"], what: "cursor to the next change point of the signals (Shift+J: previous)", group: G.label, run: (s) => toChangePoint(s, 1) },
    { keys: ["Shift+j"], what: "", group: "", run: (s) => toChangePoint(s, -1) },
    {
      keys: ["s"],
      what: "split the phase at the cursor",
      group: G.label,
      when: (s) => !boxSelected(s),
      run: (s) => {
        const phase = s.selected<Phase>("phases") ?? phases.inTier(s, s.tier).find((p) => p.start_ns < s.clock.t && s.clock.t < p.end_ns);
        if (phase && (!phaseSelected(s) || own(s))) void s.layers.edit(phases.splitAt(phase, s.clock.t));
      },
    },
    {
      keys: ["m"],
      what: "merge the phase with the next",
      group: G.label,
      when: phaseSelected,
      run: (s) => {
        const phase = s.selected<Phase>("phases");
        if (phase && own(s)) void s.layers.edit(phases.mergeNext(s, phase));
      },
    },
    { keys: ["y"], what: "outcome of the phase: unknown, success, failure", group: G.label, run: outcome },
    { keys: ["i"], what: "instruction of the episode", group: G.label, run: instruction },
    { keys: ["t"], what: "tier that keys label: the next one", group: G.label, run: cycleTier },
    { keys: ["ArrowDown", "ArrowUp"], what: "next, previous phase or event", group: G.label, when: (s) => !boxSelected(s), run: (s, e) => cycle(s, e.key === "ArrowDown" ? 1 : -1) },
    { keys: ["ArrowLeft", "ArrowRight"], what: "one frame back, on", group: G.time, when: (s) => !boxSelected(s), run: (s, e) => step(s, e.key === "ArrowLeft" ? -1 : 1) },

    { keys: ["b"], what: "new box where you look", group: G.box, run: addBox },
    { keys: ["w"], what: "next object (Shift+W: previous)", group: G.box, run: (s) => nextObject(s, 1) },
    { keys: ["Shift+w"], what: "", group: "", run: (s) => nextObject(s, -1) },
    { keys: ["ArrowUp", "ArrowDown"], what: "move along its length by 0.1 m (Shift: 0.01 m)", group: G.box, when: boxSelected, run: (s, e) => box(0, e.key === "ArrowUp" ? 1 : -1)(s, e) },
    { keys: ["ArrowLeft", "ArrowRight"], what: "move sideways", group: G.box, when: boxSelected, run: (s, e) => box(1, e.key === "ArrowLeft" ? 1 : -1)(s, e) },
    { keys: ["PageUp", "PageDown"], what: "move up, down", group: G.box, when: boxSelected, run: (s, e) => box(2, e.key === "PageUp" ? 1 : -1)(s, e) },
    { keys: ["q", "e"], what: "turn left, right by 5° (Shift: 1°)", group: G.box, when: boxSelected, run: (s, e) => turn(s, e, 2, "q") },
    { keys: ["Alt+q", "Alt+e"], what: "roll left, right by 5° (Shift: 1°)", group: G.box, when: boxSelected, run: (s, e) => turn(s, e, 0, "e") },
    { keys: ["Alt+PageUp", "Alt+PageDown"], what: "pitch up, down by 5° (Shift: 1°)", group: G.box, when: boxSelected, run: (s, e) => turn(s, e, 1, "pagedown") },
    { keys: ["r"], what: "turn half way round (wrong heading)", group: G.box, when: boxSelected, run: (s) => adjust(s, "turn", 2, Math.PI) },
    { keys: ["Ctrl+ArrowUp", "Ctrl+ArrowDown"], what: "longer, shorter", group: G.box, when: boxSelected, run: (s, e) => size(0, e.key === "ArrowUp" ? 1 : -1)(s, e) },
    { keys: ["Ctrl+ArrowRight", "Ctrl+ArrowLeft"], what: "wider, narrower", group: G.box, when: boxSelected, run: (s, e) => size(1, e.key === "ArrowRight" ? 1 : -1)(s, e) },
    { keys: ["Ctrl+PageUp", "Ctrl+PageDown"], what: "taller, flatter", group: G.box, when: boxSelected, run: (s, e) => size(2, e.key === "PageUp" ? 1 : -1)(s, e) },
    { keys: ["f"], what: "fit to the points inside and near", group: G.box, when: boxSelected, run: fitSelected },
    { keys: ["k"], what: "keyframe here (Shift+K: remove it)", group: G.box, when: boxSelected, run: keyframeHere },
    { keys: ["Shift+k"], what: "", group: "", when: boxSelected, run: removeKeyframeHere },
    { keys: ["g"], what: "object is gone after this keyframe, or not", group: G.box, when: boxSelected, run: toggleGap },
    { keys: ["s"], what: "split the track at the cursor", group: G.box, when: boxSelected, run: splitTrack },
    { keys: ["m"], what: "merge another track into this one", group: G.box, when: boxSelected, run: mergeTracks },
    { keys: ["d"], what: "copy of the box beside it", group: G.box, when: boxSelected, run: cloneTrack },

    { keys: ["c"], what: "label or class of the selection", group: G.all, run: relabel },
    { keys: ["Enter"], what: "accept: copy the selection of another layer into yours", group: G.all, run: (s) => copyToOwn(s) },
    { keys: ["Shift+Enter"], what: "accept everything of that layer's tier", group: G.all, run: (s) => copyToOwn(s, true) },
    { keys: ["Delete", "Backspace"], what: "remove the selection", group: G.all, run: deleteSelected },
    { keys: ["Ctrl+z"], what: "undo", group: G.all, run: (s) => s.layers.undo() },
    { keys: ["Ctrl+y", "Ctrl+Shift+z"], what: "redo", group: G.all, run: (s) => s.layers.redo() },
    { keys: ["p"], what: "comment here", group: G.all, run: comment },
    { keys: ["Escape"], what: "select nothing, stop the loop", group: G.all, run: (s) => { s.select(null); s.clock.loop = null; s.touch(); } },
    { keys: ["x"], what: "next finding (Shift+X: previous)", group: G.all, run: () => actions.nextFinding() },
    { keys: ["Shift+x"], what: "", group: "", run: () => actions.previousFinding() },
    { keys: ["Ctrl+s"], what: "publish the layer beside the episode", group: G.all, run: () => actions.publish() },
    { keys: ["z"], what: "camera in focus large, or not", group: G.all, run: () => actions.enlarge() },
    { keys: ["h"], what: "dark or light", group: G.all, run: () => actions.theme() },
    { keys: ["a"], what: "sound on or off", group: G.all, run: () => actions.sound() },
    { keys: ["?"], what: "this sheet", group: G.all, run: () => showSheet(actions) },
  ];
}

function showSheet(actions: Record<string, () => unknown>): void {
  const groups = new Map<string, [string, string][]>();
  for (const c of commands(actions)) {
    if (!c.group) continue;
    if (!groups.has(c.group)) groups.set(c.group, []);
    groups.get(c.group)!.push([c.keys.map(pretty).join(" / "), c.what]);
  }
  sheet([...groups].map(([title, rows]) => ({ title, rows })));
}

const NAMES: Record<string, string> = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", PageUp: "PgUp", PageDown: "PgDn" };
const pretty = (key: string) =>
  key.split("+").map((k) => NAMES[k] ?? (k.length === 1 ? k.toUpperCase() : k)).join("+") || "+";

function loop(session: Session): void {
  const { clock } = session;
  const phase = session.selected<Phase>("phases");
  if (clock.loop) clock.loop = null;
  else clock.loop = phase ? [phase.start_ns, phase.end_ns] : [Math.max(0, clock.view[0]), Math.min(clock.duration, clock.view[1])];
  session.touch();
}

function focusNext(session: Session): void {
  const names = session.streams.filter((s) => s.count).map((s) => s.name);
  session.focus = names[(names.indexOf(session.focus) + 1) % names.length];
  session.say(`frame steps follow ${session.focus}`);
}

function matches(key: string, event: KeyboardEvent): boolean {
  if (key === "+" || key === "-" || key === "=") return event.key === key && !event.ctrlKey && !event.metaKey;
  const parts = key.split("+");
  const name = parts.pop()!;
  const ctrl = parts.includes("Ctrl");
  const alt = parts.includes("Alt");
  if (ctrl !== (event.ctrlKey || event.metaKey) || alt !== event.altKey) return false;
  const got = event.key === " " ? "Space" : event.key;
  if (parts.includes("Shift") && !event.shiftKey) return false;
  return got.length === 1 ? got.toLowerCase() === name.toLowerCase() : got === name;
}

export function listen(session: Session, timeline: TimelinePanel, actions: Record<string, () => unknown>): void {
  const all = commands(actions);
  // Commands with Shift stand before those that leave it open.
  const ordered = [...all.filter((c) => c.keys.some((k) => k.includes("Shift+"))), ...all.filter((c) => !c.keys.some((k) => k.includes("Shift+")))];
  let held: { key: string; label: string; start: number } | null = null;

  const finish = () => {
    const g = timeline.growing;
    held = null;
    timeline.growing = null;
    if (!g || session.clock.t - g.start < 2e7) return;
    phases.useLabel(session.tier, g.label);
    const phase = phases.newPhase(session, session.tier, g.start, session.clock.t, g.label);
    void session.layers.edit(phases.paint(session, phase.tier, phase));
    session.select({ layer: session.layers.active, collection: "phases", id: phase.id });
  };

  window.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName) && (target as HTMLInputElement).type !== "checkbox") return;
    const typed = target.closest("button, summary, a, [role=tab]");
    // What is selected already is not selected again: there Enter accepts it.
    const chosen = typed?.getAttribute("aria-selected") === "true" && typed.getAttribute("role") !== "tab";
    if (typed && (event.key === " " || (event.key === "Enter" && !chosen))) return;
    if (/^[1-9]$/.test(event.key) && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      const label = phases.labels(session, session.tier)[Number(event.key) - 1];
      if (!label || event.repeat) return;
      if (session.clock.playing) {
        if (held) finish();
        held = { key: event.key, label, start: session.clock.t };
        timeline.growing = { label, start: session.clock.t };
      } else {
        const phase = session.selected<Phase>("phases");
        if (phase && own(session)) void session.layers.edit([phases.put({ ...phase, label })]);
      }
      return;
    }
    for (const command of ordered) {
      if (!command.keys.some((k) => matches(k, event)) || (command.when && !command.when(session))) continue;
      event.preventDefault();
      Promise.resolve(command.run(session, event)).catch((error) => session.say(String(error.message ?? error), "bad"));
      return;
    }
  });
  window.addEventListener("keyup", (event) => {
    if (held && event.key === held.key) finish();
  });
  window.addEventListener("blur", () => held && finish());
}
