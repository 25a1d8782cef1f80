// Actions on 3D tracks: every one a single operation of the journal.

import { choose } from "./dialogs";
import { randomId } from "./layers";
import { add, invert, moveBox, qAxis, qMul, qRotate, qUnit } from "./math";
import { paint } from "./phases";
import type { Session } from "./session";
import { merge, placeAt, putKeyframe, removeKeyframe, setGap, split } from "./tracks";
import type { Annotation, Box, Change, Phase, Track3D, Vec3 } from "./types";

// Typical sizes (length, width, height), to begin with.
const SIZES: Record<string, Vec3> = {
  car: [4.5, 1.9, 1.6],
  truck: [8, 2.6, 3.2],
  bus: [11, 2.9, 3.4],
  pedestrian: [0.7, 0.7, 1.75],
  bicycle: [1.8, 0.6, 1.6],
  cyclist: [1.8, 0.7, 1.75],
  motorcycle: [2.2, 0.9, 1.6],
};

// Classes to choose from: those in use here come first. The vocabulary begins with road users; what a
// robot has to do with begins at itself.
function classes(session: Session): string[] {
  const known = session.taxonomy.object_classes.map((c) => c.label);
  const robot = session.hasArm ? Math.max(0, known.indexOf("robot")) : 0;
  const used = session.layers.all<Track3D>("tracks_3d").map((t) => t.item.label);
  return [...new Set([...used, ...known.slice(robot), ...known.slice(0, robot)])];
}

// Where the 3D view looks, in its frame; the scene sets it.
export const look: { frame: string; point: Vec3 } = { frame: "", point: [0, 0, 0] };

// The instant an edit of 3D labels belongs to: the sample of the cloud nearest to the cursor,
// or the frame of the camera in focus where there is no cloud.
export function editStamp(session: Session, track?: Track3D): number {
  const name = track?.stream ?? session.cloudStreams().find((s) => s.kind === "sweep")?.name ?? session.cloudStreams()[0]?.name ?? session.cameraStreams()[0]?.name;
  const stamps = session.stamps.get(name ?? "");
  const i = stamps?.nearest(session.clock.t) ?? -1;
  // An existing keyframe nearby is meant, whatever stream it was set on.
  if (track) {
    const near = track.stamp_ns.find((t) => Math.abs(t - session.clock.t) < 1e6);
    if (near !== undefined) return near;
  }
  return i >= 0 && stamps ? stamps.ns[i] : session.clock.t;
}

const put = (track: Track3D): Change => ({ collection: "tracks_3d", id: track.id, after: track as Annotation });

function mine(session: Session): Track3D | null {
  const track = session.selected<Track3D>("tracks_3d");
  if (!track) return null;
  if (session.selection!.layer === session.layers.active) return track;
  session.say(`this belongs to layer ${session.selection!.layer}; Enter copies it into yours`);
  return null;
}

export async function addBox(session: Session): Promise<void> {
  const label = await choose("New box: class", classes(session));
  if (!label) return;
  const size: Vec3 = SIZES[label] ?? (session.hasArm ? [0.05, 0.05, 0.05] : [1, 1, 1]);
  const stream = session.cloudStreams().find((s) => s.kind === "sweep") ?? session.cloudStreams()[0];
  const frame = look.frame || (stream ? session.frames.name(stream.frame_id ?? "") : (session.frames.all()[0] ?? "world"));
  const stamp = editStamp(session);
  const box: Box = { center_m: add(look.point, [0, 0, size[2] / 2]), size_lwh_m: size, quaternion_wxyz: [1, 0, 0, 0] };
  const track: Track3D = {
    id: `track-${randomId()}`,
    object_id: `${label}-${randomId().slice(0, 6)}`,
    label,
    frame_id: frame,
    ...(stream ? { stream: stream.name } : {}),
    stamp_ns: [stamp],
    center_m: [box.center_m],
    size_lwh_m: [box.size_lwh_m],
    quaternion_wxyz: [box.quaternion_wxyz],
  };
  void session.layers.edit([put(track)]);
  session.select({ layer: session.layers.active, collection: "tracks_3d", id: track.id });
}

// The selected track's box at the instant an edit belongs to.
export function current(session: Session): { track: Track3D; stamp: number; box: Box } | null {
  const track = session.selected<Track3D>("tracks_3d");
  if (!track) return null;
  const stamp = editStamp(session, track);
  const placed = placeAt(track, stamp, session.frames);
  return placed && { track, stamp, box: placed.box };
}

export function adjust(session: Session, what: "move" | "size" | "turn", axis: 0 | 1 | 2, by: number): void {
  if (!mine(session)) return;
  const at = current(session);
  if (!at) return;
  const { track, stamp, box } = at;
  // Small things move in small steps: a tenth of the size at most.
  const step = what === "turn" ? by : Math.sign(by) * Math.min(Math.abs(by), Math.abs(by) * Math.max(...box.size_lwh_m));
  let next: Box;
  const about: Vec3 = [0, 0, 0];
  about[axis] = 1;
  if (what === "turn") next = { ...box, quaternion_wxyz: qUnit(qMul(box.quaternion_wxyz, qAxis(about, by))) };
  else if (what === "move") {
    const v: Vec3 = [0, 0, 0];
    v[axis] = step;
    next = { ...box, center_m: add(box.center_m, qRotate(box.quaternion_wxyz, v)) };
  } else {
    const size = [...box.size_lwh_m] as Vec3;
    size[axis] = Math.max(0.005, size[axis] + step);
    next = { ...box, size_lwh_m: size };
  }
  void session.layers.edit([put(putKeyframe(track, stamp, next))]);
}

export function commitBox(session: Session, track: Track3D, stamp: number, box: Box): void {
  void session.layers.edit([put(putKeyframe(track, stamp, box))]);
}

export function keyframeHere(session: Session): void {
  const track = mine(session);
  const at = current(session);
  if (track && at) void session.layers.edit([put(putKeyframe(track, at.stamp, at.box))]);
}

export function removeKeyframeHere(session: Session): void {
  const track = mine(session);
  if (!track) return;
  const stamp = editStamp(session, track);
  if (!track.stamp_ns.includes(stamp)) return session.say("no keyframe here");
  const left = removeKeyframe(track, stamp);
  void session.layers.edit([left ? put(left) : { collection: "tracks_3d", id: track.id, after: null }]);
}

export function toggleGap(session: Session): void {
  const track = mine(session);
  if (!track) return;
  const before = track.stamp_ns.filter((t) => t <= session.clock.t + 1e6).pop();
  if (before === undefined) return session.say("no keyframe before the cursor");
  const i = track.stamp_ns.indexOf(before);
  void session.layers.edit([put(setGap(track, before, !track.gap_after?.[i]))]);
}

export function splitTrack(session: Session): void {
  const track = mine(session);
  if (!track) return;
  const parts = split(track, editStamp(session, track), `track-${randomId()}`, `${track.label}-${randomId().slice(0, 6)}`);
  if (!parts) return session.say("there must be keyframes before and after the cursor");
  void session.layers.edit(parts.map(put));
}

export async function mergeTracks(session: Session): Promise<void> {
  const track = mine(session);
  if (!track) return;
  const others = session.layers.all<Track3D>("tracks_3d", session.layers.active).filter((t) => t.item.id !== track.id);
  const names = new Map(others.map((o) => [`${o.item.object_id} (${o.item.label}, ${o.item.stamp_ns.length} keyframes)`, o.item]));
  if (!names.size) return session.say("there is no other track in your layer");
  const chosen = await choose(`Merge into ${track.object_id}`, [...names.keys()], { closed: true });
  const other = chosen && names.get(chosen);
  if (!other) return;
  const merged = merge(track, other, session.frames);
  if (!merged) return session.say("no known transform joins the frames of the two tracks");
  void session.layers.edit([put(merged), { collection: "tracks_3d", id: other.id, after: null }]);
}

export function cloneTrack(session: Session): void {
  const at = current(session);
  if (!at) return;
  const { track, stamp, box } = at;
  const beside = add(box.center_m, qRotate(box.quaternion_wxyz, [0, box.size_lwh_m[1] * 1.5, 0]));
  const copy: Track3D = {
    ...track,
    id: `track-${randomId()}`,
    object_id: `${track.label}-${randomId().slice(0, 6)}`,
    stamp_ns: [stamp],
    center_m: [beside],
    size_lwh_m: [box.size_lwh_m],
    quaternion_wxyz: [box.quaternion_wxyz],
  };
  for (const name of ["gap_after", "interpolated", "visibility", "keyframe_confidence", "keyframe_attributes"]) delete copy[name];
  void session.layers.edit([put(copy)]);
  session.select({ layer: session.layers.active, collection: "tracks_3d", id: copy.id });
}

export async function setClass(session: Session): Promise<void> {
  const track = mine(session);
  if (!track) return;
  const label = await choose("Class", classes(session));
  if (label) void session.layers.edit([put({ ...track, label })]);
}

export function nextObject(session: Session, by: number): void {
  const rows = session.tracks().filter((r) => r.collection === "tracks_3d");
  if (!rows.length) return session.say("no 3D objects");
  rows.sort((a, b) => a.item.object_id.localeCompare(b.item.object_id));
  const now = rows.findIndex((r) => r.item.id === session.selection?.id);
  const row = rows[(now + by + rows.length) % rows.length];
  session.select({ layer: row.layer, collection: "tracks_3d", id: row.item.id });
  const placed = placeAt(row.item, session.clock.t, session.frames, session.tolerance(row.item));
  if (!placed || placed.ghost) session.clock.seek(row.item.stamp_ns[0]);
}

// The cloud whose points decide about a box, and the transform into its frame at its sample.
function evidence(session: Session, track: Track3D, t: number) {
  const stream = session.cloudStreams().find((s) => s.name === track.stream) ?? session.cloudStreams().find((s) => s.kind === "sweep") ?? session.cloudStreams()[0];
  const stamps = stream && session.stamps.get(stream.name);
  if (!stream || !stamps?.length) return null;
  const i = stamps.nearest(t);
  const frame = session.sensorOf(stream)?.frame_id ?? stream.frame_id ?? "";
  const cloud_SE3_track = session.frames.transform(frame, track.frame_id, stamps.ns[i]);
  return cloud_SE3_track && { stream: stream.name, i, cloud_SE3_track, stamp: stamps.ns[i] };
}

// Points inside the box at t, counted by the server on the full cloud; null where there is no cloud.
// The last count asked for: the inspector and the side views want the same one.
let counted: { key: string; count: Promise<number> } | null = null;

export async function countPoints(session: Session, track: Track3D, t: number): Promise<number | null> {
  const seen = evidence(session, track, t);
  // Where the object was when the points were measured, not where it is at the cursor.
  const placed = seen && placeAt(track, seen.stamp, session.frames);
  if (!placed || !seen) return null;
  const box = moveBox(seen.cloud_SE3_track, placed.box);
  const asked = { stream: seen.stream, i: seen.i, ...box };
  const key = JSON.stringify(asked);
  if (counted?.key !== key) {
    counted = { key, count: session.api.call<{ count: number }>("count", asked).then((answer) => answer.count) };
    counted.count.catch(() => (counted = null));
  }
  return counted.count;
}

export async function fitSelected(session: Session): Promise<void> {
  const track = mine(session);
  const at = current(session);
  const seen = at && evidence(session, at.track, at.stamp);
  if (!track || !at) return;
  if (!seen) return session.say("no point cloud to fit to");
  const body = { stream: seen.stream, i: seen.i, ...moveBox(seen.cloud_SE3_track, at.box) };
  const { box } = await session.api.call<{ box: Box | null }>("fit", body);
  if (!box) return session.say("fewer than five points in and near the box");
  commitBox(session, track, at.stamp, moveBox(invert(seen.cloud_SE3_track), box));
}

export function deleteSelected(session: Session): void {
  const s = session.selection;
  if (!s) return;
  if (s.layer !== session.layers.active) return session.say(`this belongs to layer ${s.layer}`);
  void session.layers.edit([{ collection: s.collection, id: s.id, after: null }]);
  session.select(null);
}

// Accepts a proposal: a copy in the own layer that says where it came from. Phases are laid over
// what the own tier holds there; a 3D object takes the place of the own track of the same object.
export function copyToOwn(session: Session, all = false): void {
  const s = session.selection;
  if (!s) return;
  const { layers } = session;
  if (s.layer === layers.active) return session.say("this is in your layer already");
  const chosen = layers.get(s.layer, s.collection, s.id);
  if (!chosen) return;
  const theirs = layers.all(s.collection, s.layer).map((row) => row.item);
  const items = all ? theirs.filter((item) => item.tier === chosen.tier) : [chosen];
  const revision = layers.rows.find((r) => r.name === s.layer)?.revision ?? layers.docs.get(s.layer)?.standing.revision ?? 0;
  const provenance = { author: session.api.api.user, derived_from: [{ layer: s.layer, revision }] };
  const own = layers.all<Track3D>("tracks_3d", layers.active).map((row) => row.item);
  const copies = items.map((item): Annotation => {
    const same = s.collection === "tracks_3d" ? own.find((t) => t.object_id === item.object_id) : undefined;
    const copy = { ...item, id: same?.id ?? `${item.id.split("@")[0]}-${randomId().slice(0, 6)}`, provenance };
    delete (copy as Annotation).parent_id; // the parent of another layer is not in this one
    return copy;
  });
  const changes =
    s.collection === "phases"
      ? paint(session, (chosen as Phase).tier, ...(copies as Phase[]))
      : copies.map((after) => ({ collection: s.collection, id: after.id, after }));
  const replaced = copies.filter((copy) => layers.get(layers.active, s.collection, copy.id)).length;
  if (replaced) session.say(replaced === 1 ? `replaces your ${chosen.object_id}` : `replaces ${replaced} of your tracks`);
  void layers.edit(changes);
  session.select({ layer: layers.active, collection: s.collection, id: copies[items.indexOf(chosen)].id });
}
