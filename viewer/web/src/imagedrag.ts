// Selecting and moving a cuboid inside a camera image. Dragging keeps the box at its distance from
// the camera; with Shift it slides on the horizontal plane through its centre.

import { followPointer } from "./dom";
import type { CameraTile } from "./cameras";
import type { Pixel } from "./lens";
import { apply, dot, invert, norm, qRotate, scale, sub } from "./math";
import type { Session } from "./session";
import { placeAt, putKeyframe } from "./tracks";
import type { Annotation, Track3D, Vec3 } from "./types";

export function startImageDrag(session: Session, tile: CameraTile, event: PointerEvent): void {
  const at = (e: PointerEvent): Pixel => {
    const box = tile.overlay.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  };
  const hit = pick(tile, at(event));
  if (!hit) {
    if (session.selection?.collection === "tracks_3d") session.select(null);
    return;
  }
  session.select({ layer: hit.layer, collection: "tracks_3d", id: hit.id });
  const track = session.layers.get(hit.layer, "tracks_3d", hit.id) as Track3D | undefined;
  if (!track || hit.layer !== session.layers.active || !tile.lens) return;
  const stamp = tile.stamp;
  const placed = placeAt(track, stamp, session.frames);
  const camera_SE3_frame = session.frames.transform(tile.frame, track.frame_id, stamp);
  if (!placed || !camera_SE3_frame) return;
  const frame_SE3_camera = invert(camera_SE3_frame);
  const centre = apply(camera_SE3_frame, placed.box.center_m);
  const grabbed = at(event);
  const centrePixel = tile.lens.project(centre);
  if (!centrePixel) return;
  const [cx, cy] = tile.toScreen(centrePixel);
  let next: Track3D | null = null;
  tile.overlay.setPointerCapture(event.pointerId);

  const move = (e: PointerEvent) => {
    const [x, y] = at(e);
    const ray = tile.lens!.unproject(tile.toPixel(cx + x - grabbed[0], cy + y - grabbed[1]));
    if (!ray) return;
    let where: Vec3 | null;
    if (e.shiftKey) {
      const up = qRotate(camera_SE3_frame.q, [0, 0, 1]);
      const slope = dot(ray, up);
      const reach = dot(centre, up) / slope;
      where = Math.abs(slope) > 1e-3 && reach > 0 ? scale(ray, reach) : null;
    } else where = scale(ray, norm(centre));
    if (!where || norm(sub(where, centre)) > 200) return;
    next = putKeyframe(track, stamp, { ...placed.box, center_m: apply(frame_SE3_camera, where) });
    session.layers.preview({ collection: "tracks_3d", id: track.id, after: next as Annotation });
  };
  followPointer(tile.overlay, move, () => {
    if (next) void session.layers.edit([{ collection: "tracks_3d", id: track.id, after: next }]);
  });
}

// The box whose outline holds the point; of several the one with the smallest extent.
function pick(tile: CameraTile, [x, y]: Pixel): { layer: string; id: string } | null {
  let best: { layer: string; id: string } | null = null;
  let smallest = Infinity;
  for (const box of tile.boxes()) {
    const points = box.lines.flat().map((p) => tile.toScreen(p));
    const xs = points.map((p) => p[0]);
    const ys = points.map((p) => p[1]);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const area = (x1 - x0) * (y1 - y0) * (box.selected ? 0.25 : 1);
    if (x >= x0 - 4 && x <= x1 + 4 && y >= y0 - 4 && y <= y1 + 4 && area < smallest) {
      smallest = area;
      best = box;
    }
  }
  return best;
}
