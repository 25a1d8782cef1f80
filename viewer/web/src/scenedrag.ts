// Selecting and moving boxes in the perspective view, and what a moved box means for its track.

import { commitBox, current } from "./boxes";
import { followPointer } from "./dom";
import { add, dot, invert, moveBox, type Pose, qInv, qRotate, scale, sub } from "./math";
import type { SceneBox } from "./sceneboxes";
import type { Session } from "./session";
import { placeAt, putKeyframe } from "./tracks";
import type { Annotation, Box, Track3D, Vec3 } from "./types";

// From a point along a direction of length one, in scene coordinates.
export interface Ray {
  from: Vec3;
  along: Vec3;
}

const FURTHEST_M = 500;

// The first box a ray meets.
export function pickBox(boxes: SceneBox[], ray: Ray): { box: SceneBox; distance: number } | null {
  let best: { box: SceneBox; distance: number } | null = null;
  for (const box of boxes) {
    const distance = hitBox(box.box, ray);
    if (distance !== null && distance < (best?.distance ?? Infinity)) best = { box, distance };
  }
  return best;
}

// Moves a box on the ground; with Shift up and down on the upright plane that faces the viewer.
export function startGroundDrag(box: Box, ray: Ray, distance: number, rayOf: (e: PointerEvent) => Ray, propose: (box: Box, done: boolean) => void): void {
  const at = add(ray.from, scale(ray.along, distance));
  let moved: Box | null = null;
  const move = (event: PointerEvent) => {
    const { from, along } = rayOf(event);
    const flat = Math.hypot(ray.along[0], ray.along[1]) || 1;
    const face: Vec3 = event.shiftKey ? [ray.along[0] / flat, ray.along[1] / flat, 0] : [0, 0, 1];
    const reach = dot(sub(at, from), face) / dot(along, face);
    if (!(reach > 0) || reach > FURTHEST_M) return;
    const by = sub(add(from, scale(along, reach)), at);
    moved = { ...box, center_m: add(box.center_m, event.shiftKey ? [0, 0, by[2]] : [by[0], by[1], 0]) };
    propose(moved, false);
  };
  followPointer(window, move, () => {
    if (moved) propose(moved, true);
  });
}

// A box in scene coordinates becomes the track's keyframe: previewed, then journalled.
// scene_SE3_track: pose of the track's frame in the scene at the cursor.
export function proposeBox(session: Session, track: Track3D, scene_SE3_track: Pose, box: Box, done: boolean): void {
  const at = current(session);
  if (!at) return;
  const base = (session.layers.get(session.layers.active, "tracks_3d", track.id) as Track3D | undefined) ?? track;
  let local = moveBox(invert(scene_SE3_track), box);
  // The keyframe is set at the cloud's stamp: what the object did since is taken off again.
  const then = placeAt(base, at.stamp, session.frames);
  const now = placeAt(base, session.clock.t, session.frames, session.tolerance(base));
  if (then && now && at.stamp !== session.clock.t) local = { ...local, center_m: add(local.center_m, sub(then.box.center_m, now.box.center_m)) };
  if (done) commitBox(session, base, at.stamp, local);
  else session.layers.preview({ collection: "tracks_3d", id: track.id, after: putKeyframe(base, at.stamp, local) as Annotation });
}

// Distance along a ray to a box, null when it is missed.
function hitBox(box: Box, ray: Ray): number | null {
  const q = qInv(box.quaternion_wxyz);
  const o = qRotate(q, sub(ray.from, box.center_m));
  const d = qRotate(q, ray.along);
  let [enter, leave] = [-Infinity, Infinity];
  for (let k = 0; k < 3; k++) {
    const half = Math.max(box.size_lwh_m[k] / 2, 0.01);
    const [a, b] = [(-half - o[k]) / d[k], (half - o[k]) / d[k]];
    enter = Math.max(enter, Math.min(a, b));
    leave = Math.min(leave, Math.max(a, b));
  }
  return leave >= Math.max(enter, 0) ? Math.max(enter, 0) : null;
}
