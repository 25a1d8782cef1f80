// Editing phases and events: pure functions from the present layer to changes.

import { randomId } from "./layers";
import type { Session } from "./session";
import type { Change, EventMark, Phase } from "./types";

export const SHORTEST = 1_000_000;

let changePoints: { stamp_ns: number; label: string }[] = [];
export function setChangePoints(points: { stamp_ns: number; label: string }[]): void {
  changePoints = points;
}

// The change point nearest to an instant on one side of it; null where there is none.
export function nextChangePoint(t: number, by: 1 | -1): number | null {
  const beyond = changePoints.map((p) => p.stamp_ns).filter((at) => (at - t) * by > 0);
  return beyond.length ? (by > 0 ? Math.min : Math.max)(...beyond) : null;
}

// What a boundary is drawn to within `reach`: change points, other boundaries, events and `cursor`;
// else the nearest stamp of the stream in focus.
export function snap(session: Session, t: number, reach: number, cursor: number): number {
  const own = session.layers.all<Phase>("phases").flatMap((p) => [p.item.start_ns, p.item.end_ns]);
  const events = session.layers.all<EventMark>("events").map((e) => e.item.stamp_ns);
  const selected = session.selected<Phase>("phases");
  let best = t;
  let distance = reach;
  for (const at of [...changePoints.map((p) => p.stamp_ns), ...own, ...events, cursor]) {
    if (selected && (at === selected.start_ns || at === selected.end_ns)) continue;
    if (Math.abs(at - t) < distance) [best, distance] = [at, Math.abs(at - t)];
  }
  if (distance < reach) return best;
  const stamps = session.stamps.get(session.focus || session.cameraStreams()[0]?.name || "");
  if (stamps?.length) {
    const near = stamps.ns[stamps.nearest(t)];
    if (Math.abs(near - t) <= stamps.period) return near;
  }
  return Math.round(t);
}

export function inTier(session: Session, tier: string): Phase[] {
  return session.layers
    .all<Phase>("phases", session.layers.active)
    .map((p) => p.item)
    .filter((p) => p.tier === tier)
    .sort((a, b) => a.start_ns - b.start_ns);
}

// Two arms, or two views, have sequences of their own in a tier; only phases of one exclude each other.
const sameSequence = (a: Phase, b: Phase) => a.tier === b.tier && (a.actor ?? null) === (b.actor ?? null) && (a.stream ?? null) === (b.stream ?? null);

// Other phases of the own layer in the sequence of this one, in order of time.
const beside = (session: Session, phase: Phase) => inTier(session, phase.tier).filter((p) => p.id !== phase.id && sameSequence(p, phase));

export function labels(session: Session, tier: string): string[] {
  const known = session.taxonomy.tiers.find((t) => t.name === tier)?.labels.map((l) => l.label) ?? [];
  const used = inTier(session, tier).map((p) => p.label);
  return [...new Set([...known, ...used])];
}

let lastLabel = new Map<string, string>();
export const useLabel = (tier: string, label: string) => lastLabel.set(tier, label);

export function newPhase(session: Session, tier: string, start: number, end: number, label?: string): Phase {
  const chosen = label ?? lastLabel.get(tier) ?? labels(session, tier)[0] ?? "other";
  return { id: `phase-${randomId()}`, tier, label: chosen, start_ns: Math.round(start), end_ns: Math.round(end) };
}

const put = (phase: Phase): Change => ({ collection: "phases", id: phase.id, after: phase });
const drop = (phase: Phase): Change => ({ collection: "phases", id: phase.id, after: null });

// Moves one end; `together` moves the neighbour that shares it, or is run into, along.
export function moveEdge(session: Session, phase: Phase, edge: "start" | "end", t: number, together = true): Change[] {
  t = Math.round(t);
  const field = edge === "start" ? "start_ns" : "end_ns";
  const other = edge === "start" ? "end_ns" : "start_ns";
  const others = beside(session, phase);
  const neighbour = together ? others.find((p) => p[other] === phase[field]) : undefined;
  let [low, high] = edge === "start" ? [0, phase.end_ns - SHORTEST] : [phase.start_ns + SHORTEST, session.clock.duration];
  if (neighbour) {
    if (edge === "start") low = Math.max(low, neighbour.start_ns + SHORTEST);
    else high = Math.min(high, neighbour.end_ns - SHORTEST);
  } else {
    // Without a shared end the neighbour is a wall: phases of a tier do not overlap.
    for (const p of others) {
      if (edge === "start" && p.end_ns <= phase.start_ns) low = Math.max(low, p.end_ns);
      if (edge === "end" && p.start_ns >= phase.end_ns) high = Math.min(high, p.start_ns);
    }
  }
  t = Math.min(Math.max(t, low), high);
  if (t === phase[field]) return [];
  const changes = [put({ ...phase, [field]: t })];
  if (neighbour) changes.push(put({ ...neighbour, [other]: t }));
  return changes;
}

// Moves a whole phase, between its neighbours.
export function movePhase(session: Session, phase: Phase, start: number): Change[] {
  const length = phase.end_ns - phase.start_ns;
  let [low, high] = [0, session.clock.duration - length];
  for (const p of beside(session, phase)) {
    if (p.end_ns <= phase.start_ns) low = Math.max(low, p.end_ns);
    if (p.start_ns >= phase.end_ns) high = Math.min(high, p.start_ns - length);
  }
  const at = Math.min(Math.max(Math.round(start), low), Math.max(low, high));
  return at === phase.start_ns ? [] : [put({ ...phase, start_ns: at, end_ns: at + length })];
}

export function splitAt(phase: Phase, t: number): Change[] {
  if (t <= phase.start_ns + SHORTEST || t >= phase.end_ns - SHORTEST) return [];
  const second = { ...phase, id: `phase-${randomId()}`, start_ns: Math.round(t) };
  return [put({ ...phase, end_ns: Math.round(t) }), put(second)];
}

export function mergeNext(session: Session, phase: Phase): Change[] {
  const next = beside(session, phase).find((p) => p.start_ns >= phase.start_ns);
  return next ? [put({ ...phase, end_ns: next.end_ns }), drop(next)] : [];
}

// Phases laid over what is in their tier: neighbours are cut back, swallowed ones go. In a tier whose
// labels may overlap nothing is cut.
export function paint(session: Session, tier: string, ...laid: Phase[]): Change[] {
  const before = new Map(inTier(session, tier).map((p) => [p.id, p]));
  const ids = new Set(laid.map((p) => p.id));
  let rest = [...before.values()].filter((p) => !ids.has(p.id));
  if (session.taxonomy.tiers.find((t) => t.name === tier)?.exclusive !== false)
    for (const phase of laid) rest = rest.flatMap((p) => cut(p, phase));
  const left = new Set(rest.map((p) => p.id));
  const dropped = [...before.values()].filter((p) => !left.has(p.id) && !ids.has(p.id));
  const changed = rest.filter((p) => before.get(p.id) !== p);
  return [...dropped.map(drop), ...[...changed, ...laid].map(put)];
}

// What is left of a phase beside another.
function cut(p: Phase, by: Phase): Phase[] {
  if (!sameSequence(p, by) || p.end_ns <= by.start_ns || p.start_ns >= by.end_ns) return [p];
  const out: Phase[] = [];
  if (p.start_ns < by.start_ns) out.push({ ...p, end_ns: by.start_ns });
  if (p.end_ns > by.end_ns) out.push({ ...p, id: out.length ? `phase-${randomId()}` : p.id, start_ns: by.end_ns });
  return out;
}

export { drop, put };
