// Tracks of 3D boxes: what lies between keyframes, and changing keyframes.

import type { Frames } from "./frames";
import { invert, lerp, moveBox, slerp } from "./math";
import type { Box, Track3D } from "./types";

export interface Placed {
  box: Box;
  keyframe: boolean;
  // Outside the track's span, or in a gap: where it was last, for orientation only.
  ghost: boolean;
}

export const keyframe = (track: Track3D, i: number): Box => ({
  center_m: track.center_m[i],
  size_lwh_m: track.size_lwh_m[i],
  quaternion_wxyz: track.quaternion_wxyz[i],
});

// Where the object is at t in the track's frame. Between keyframes centre and size go linearly and
// rotation along the shorter arc; where the track's frame moves, in the frame that stands still, so
// that a parked car stays parked while the sensor drives by. Within `tolerance` of a keyframe at an
// end it still counts; beyond, it is a ghost at that end.
export function placeAt(track: Track3D, t: number, frames: Frames, tolerance = 0): Placed | null {
  const n = track.stamp_ns.length;
  let right = 0;
  while (right < n && track.stamp_ns[right] < t) right++;
  if (right < n && track.stamp_ns[right] === t)
    return { box: keyframe(track, right), keyframe: true, ghost: false };
  const left = right - 1;
  if (left < 0 || right >= n || track.gap_after?.[left]) {
    const near =
      left < 0 || (right < n && track.stamp_ns[right] - t < t - track.stamp_ns[left]) ? right : left;
    const distance = Math.abs(track.stamp_ns[near] - t);
    return { box: keyframe(track, near), keyframe: false, ghost: distance > tolerance };
  }
  const [t0, t1] = [track.stamp_ns[left], track.stamp_ns[right]];
  const w = (t - t0) / (t1 - t0);
  let [a, b] = [keyframe(track, left), keyframe(track, right)];
  const root = frames.root(track.frame_id);
  let back = null;
  if (root !== frames.name(track.frame_id)) {
    const poses = [t0, t1, t].map((at) => frames.transform(root, track.frame_id, at));
    if (poses.every((p) => p !== null)) {
      [a, b] = [moveBox(poses[0]!, a), moveBox(poses[1]!, b)];
      back = invert(poses[2]!);
    }
  }
  const mixed: Box = {
    center_m: lerp(a.center_m, b.center_m, w),
    size_lwh_m: lerp(a.size_lwh_m, b.size_lwh_m, w),
    quaternion_wxyz: slerp(a.quaternion_wxyz, b.quaternion_wxyz, w),
  };
  return { box: back ? moveBox(back, mixed) : mixed, keyframe: false, ghost: false };
}

const COLUMNS = [
  "center_m",
  "size_lwh_m",
  "quaternion_wxyz",
  "interpolated",
  "visibility",
  "keyframe_confidence",
  "gap_after",
];

type Row = Record<string, unknown>;

// The track as rows, one per keyframe; columns it lacks stay absent.
function rows(track: Track3D): Row[] {
  const attributes = (track.keyframe_attributes ?? {}) as Record<string, unknown[]>;
  return track.stamp_ns.map((stamp, i) => {
    const row: Row = { stamp_ns: stamp };
    for (const name of COLUMNS) {
      const column = track[name] as unknown[] | undefined | null;
      if (column) row[name] = column[i];
    }
    for (const name of Object.keys(attributes)) row[`@${name}`] = attributes[name][i];
    return row;
  });
}

function fromRows(track: Track3D, list: Row[]): Track3D {
  const out: Track3D = { ...track, stamp_ns: list.map((r) => r.stamp_ns as number) };
  for (const name of COLUMNS) {
    if (!list.some((r) => name in r)) continue;
    const unknown = name === "gap_after" ? false : null;
    out[name] = list.map((r) => r[name] ?? unknown);
  }
  const names = new Set(list.flatMap((r) => Object.keys(r).filter((k) => k.startsWith("@"))));
  if (names.size)
    out.keyframe_attributes = Object.fromEntries(
      [...names].map((name) => [name.slice(1), list.map((r) => r[name] ?? null)]),
    );
  return out;
}

export function putKeyframe(track: Track3D, t: number, box: Box, drawn = true): Track3D {
  const list = rows(track).filter((r) => r.stamp_ns !== t);
  const old = rows(track).find((r) => r.stamp_ns === t) ?? {};
  const row: Row = { ...old, stamp_ns: t, ...box };
  if (track.interpolated) row.interpolated = !drawn;
  // A keyframe set inside a gap starts a stretch of its own.
  list.push(row);
  list.sort((a, b) => (a.stamp_ns as number) - (b.stamp_ns as number));
  return fromRows(track, list);
}

export function removeKeyframe(track: Track3D, t: number): Track3D | null {
  const list = rows(track).filter((r) => r.stamp_ns !== t);
  return list.length ? fromRows(track, list) : null;
}

export function setGap(track: Track3D, t: number, gap: boolean): Track3D {
  const list = rows(track);
  for (const row of list) if (row.stamp_ns === t) row.gap_after = gap;
  return fromRows(track, list);
}

// Everything from t on becomes a track of its own with a new identity.
export function split(track: Track3D, t: number, id: string, object: string): [Track3D, Track3D] | null {
  const list = rows(track);
  const before = list.filter((r) => (r.stamp_ns as number) < t);
  const after = list.filter((r) => (r.stamp_ns as number) >= t);
  if (!before.length || !after.length) return null;
  return [
    fromRows(track, before),
    { ...fromRows(track, after), id, object_id: object },
  ];
}

// Both tracks' keyframes under the first one's identity; where both have one, the first's counts.
export function merge(a: Track3D, b: Track3D, frames: Frames): Track3D | null {
  const moved = rows(b).map((row) => {
    if (frames.name(a.frame_id) === frames.name(b.frame_id)) return row;
    const pose = frames.transform(a.frame_id, b.frame_id, row.stamp_ns as number);
    return pose && { ...row, ...moveBox(pose, row as unknown as Box) };
  });
  if (moved.some((r) => r === null)) return null;
  const own = rows(a);
  const taken = new Set(own.map((r) => r.stamp_ns));
  const list = [...own, ...(moved as Row[]).filter((r) => !taken.has(r.stamp_ns))];
  list.sort((x, y) => (x.stamp_ns as number) - (y.stamp_ns as number));
  return fromRows(a, list);
}
