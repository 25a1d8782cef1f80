// What a pointer pressed on the timeline does until it is released.

import { followPointer } from "./dom";
import * as edit from "./phases";
import type { Session } from "./session";
import type { Hit, TimelinePanel } from "./timeline";
import type { Change, EventMark, Phase } from "./types";

// `move` gets the instant under the pointer; `end` comes once.
interface Drag {
  move?: (t: number, e: PointerEvent) => void;
  end?: () => void;
}

// The instant a boundary goes to when the pointer is at t.
type Snap = (t: number, e: { altKey: boolean }) => number;

const CLICK_PX = 3;
const SNAP_PX = 8;
const SHORTEST_LOOP_NS = 1e7;

export function startTimelineDrag(session: Session, timeline: TimelinePanel, canvas: HTMLCanvasElement, e: PointerEvent): void {
  const hit = timeline.hit(e.offsetX, e.offsetY);
  if (!hit || e.button !== 0) return;
  canvas.focus();
  const drag = begin(session, timeline, hit, timeline.time(e.offsetX), e.shiftKey);
  if (!drag) return;
  canvas.setPointerCapture(e.pointerId);
  followPointer(canvas, (event) => drag.move?.(timeline.time(event.offsetX), event), () => {
    drag.end?.();
    session.layers.preview();
  });
}

function begin(session: Session, timeline: TimelinePanel, hit: NonNullable<Hit>, start: number, shift: boolean): Drag | null {
  const { clock, layers } = session;
  // Dragging a boundary takes the cursor along: what it snaps to is where the cursor was before.
  const cursor = clock.t;
  const snap: Snap = (t, e) => {
    const inside = Math.min(Math.max(t, 0), clock.duration);
    // With Alt, exactly where the pointer is.
    if (e.altKey) return Math.round(inside);
    const [a, b] = clock.view;
    return edit.snap(session, inside, (SNAP_PX / timeline.width) * (b - a), cursor);
  };
  const scrub = (): Drag => {
    clock.seek(start);
    return { move: (t) => clock.seek(t) };
  };
  switch (hit.kind) {
    case "ruler":
      return shift ? dragLoop(session, start) : scrub();
    case "phase":
      session.select({ layer: hit.layer, collection: "phases", id: hit.phase.id });
      if (hit.layer === layers.active) return dragPhase(session, timeline, snap, hit.phase, hit.edge, start);
      clock.seek(start);
      return null;
    case "event":
      session.select({ layer: hit.layer, collection: "events", id: hit.event.id });
      clock.seek(hit.event.stamp_ns);
      return hit.layer === layers.active ? dragEvent(session, snap, hit.event) : null;
    case "finding":
      timeline.onFinding(hit.finding, hit.place);
      return null;
    case "gutter":
      if (hit.lane.stream) session.focus = hit.lane.stream;
      if (hit.lane.tier && hit.lane.layer === layers.active) session.tier = hit.lane.tier;
      session.touch();
      return null;
    case "lane":
      return hit.lane.kind === "tier" && hit.lane.layer === layers.active ? dragNew(session, timeline, snap, hit.lane.tier!, start) : scrub();
  }
}

function dragLoop(session: Session, start: number): Drag {
  const { clock } = session;
  clock.loop = null;
  return {
    move: (t) => {
      clock.loop = [Math.max(0, Math.min(start, t)), Math.min(clock.duration, Math.max(start, t))];
    },
    end: () => {
      if (clock.loop && clock.loop[1] - clock.loop[0] < SHORTEST_LOOP_NS) clock.loop = null;
    },
  };
}

// An edge, and with it the neighbour's that lies on it; or the whole phase.
function dragPhase(session: Session, timeline: TimelinePanel, snap: Snap, phase: Phase, edge: "start" | "end" | null, start: number): Drag {
  let changes: Change[] = [];
  let moved = false;
  return {
    move: (t, e) => {
      moved ||= Math.abs(timeline.x(t) - timeline.x(start)) >= CLICK_PX;
      if (!moved) return;
      if (edge) {
        const at = snap(t, e);
        changes = edit.moveEdge(session, phase, edge, at, !e.altKey);
        session.clock.seek(at);
      } else changes = edit.movePhase(session, phase, snap(phase.start_ns + t - start, e));
      session.layers.preview(...changes);
    },
    end: () => {
      if (changes.length) void session.layers.edit(changes);
      else if (!edge && !moved) session.clock.seek(start);
    },
  };
}

function dragEvent(session: Session, snap: Snap, event: EventMark): Drag {
  let change: Change | null = null;
  return {
    move: (t, e) => {
      const at = snap(t, e);
      session.clock.seek(at);
      change = at === event.stamp_ns ? null : { collection: "events", id: event.id, after: { ...event, stamp_ns: at } };
      session.layers.preview(...(change ? [change] : []));
    },
    end: () => {
      if (change) void session.layers.edit([change]);
    },
  };
}

function dragNew(session: Session, timeline: TimelinePanel, snap: Snap, tier: string, start: number): Drag {
  session.tier = tier;
  session.select(null);
  let made: Phase | null = null;
  return {
    move: (t, e) => {
      const [a, b] = [Math.min(start, t), Math.max(start, t)].map((at) => snap(at, e));
      made = b > a ? { ...(made ?? edit.newPhase(session, tier, a, b)), start_ns: a, end_ns: b } : null;
      session.layers.preview(...(made ? edit.paint(session, tier, made) : []));
    },
    end: () => {
      if (!made || timeline.x(made.end_ns) - timeline.x(made.start_ns) <= CLICK_PX) return session.clock.seek(start);
      void session.layers.edit(edit.paint(session, tier, made));
      session.select({ layer: session.layers.active, collection: "phases", id: made.id });
    },
  };
}
