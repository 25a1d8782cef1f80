// Transforms between coordinate frames at an instant, as mmdata_viewer/frames.py on the server.

import { compose, IDENTITY, invert, lerp, type Pose, slerp } from "./math";
import type { Stamps } from "./stamps";
import type { Manifest, Quat, SensorInfo, Vec3 } from "./types";

export interface PoseSeries {
  stamps: Stamps;
  position: Float64Array; // (N, 3)
  orientation: Float64Array; // (N, 4)
}

export function poseAt(series: PoseSeries, t: number): Pose | null {
  const { stamps, position, orientation } = series;
  const n = stamps.length;
  if (!n) return null;
  const at = (i: number): Pose => ({
    p: [...position.subarray(3 * i, 3 * i + 3)] as Vec3,
    q: [...orientation.subarray(4 * i, 4 * i + 4)] as Quat,
  });
  const right = stamps.lower(t);
  let pose: Pose;
  // Outside its samples the nearest end is held: a camera may fire a moment before the first.
  if (right === 0) pose = at(0);
  else if (right === n) pose = at(n - 1);
  else {
    const [t0, t1] = [stamps.ns[right - 1], stamps.ns[right]];
    const w = t1 > t0 ? (t - t0) / (t1 - t0) : 1;
    const [a, b] = [at(right - 1), at(right)];
    pose = { p: lerp(a.p, b.p, w), q: slerp(a.q, b.q, w) };
  }
  return [...pose.p, ...pose.q].every(Number.isFinite) ? pose : null;
}

const toPose = (x: number[]): Pose => ({ p: x.slice(0, 3) as Vec3, q: x.slice(3) as Quat });

export class Frames {
  private frameOf = new Map<string, string>();
  private fixed: { parent: string; child: string; pose: Pose }[] = [];
  private moving: { parent: string; child: string; series: PoseSeries }[] = [];

  constructor(manifest: Manifest, series: Map<string, PoseSeries>) {
    const sensors = Object.entries<SensorInfo>(manifest.rig);
    for (const [name, sensor] of sensors) this.frameOf.set(name, sensor.frame_id);
    for (const [, sensor] of sensors)
      if (sensor.parent && sensor.parent_SE3_sensor) {
        const parent = this.frameOf.get(sensor.parent) ?? sensor.parent;
        if (!this.fixed.some((e) => e.parent === parent && e.child === sensor.frame_id))
          this.fixed.push({ parent, child: sensor.frame_id, pose: toPose(sensor.parent_SE3_sensor) });
      }
    for (const stream of manifest.streams) {
      const data = series.get(stream.name);
      const edge = stream.moves;
      if (!edge || !data) continue;
      const same = (e: { parent: string; child: string }) =>
        e.parent === edge.parent && e.child === edge.child;
      if (!this.fixed.some(same) && !this.moving.some(same))
        this.moving.push({ ...edge, series: data });
    }
  }

  name(sensorOrFrame: string): string {
    return this.frameOf.get(sensorOrFrame) ?? sensorOrFrame;
  }

  // a_SE3_b at t; null when no known path joins them.
  transform(a: string, b: string, t: number): Pose | null {
    [a, b] = [this.name(a), this.name(b)];
    const reached = new Map<string, Pose>([[b, IDENTITY]]);
    const queue = [b];
    while (queue.length) {
      const frame = queue.shift()!;
      const pose = reached.get(frame)!;
      if (frame === a) return pose;
      const go = (to: string, step: Pose | null) => {
        if (step && !reached.has(to)) {
          reached.set(to, compose(step, pose));
          queue.push(to);
        }
      };
      for (const e of this.fixed) {
        if (e.child === frame) go(e.parent, e.pose);
        else if (e.parent === frame) go(e.child, invert(e.pose));
      }
      for (const e of this.moving) {
        if (e.child !== frame && e.parent !== frame) continue;
        const at = poseAt(e.series, t);
        if (e.child === frame) go(e.parent, at);
        else go(e.child, at && invert(at));
      }
    }
    return null;
  }

  // All frames, the ones nothing is above first.
  all(): string[] {
    const edges = [...this.fixed, ...this.moving];
    const children = new Set(edges.map((e) => e.child));
    const names = new Set([...edges.flatMap((e) => [e.parent, e.child]), ...this.frameOf.values()]);
    return [...names].sort((a, b) => Number(children.has(a)) - Number(children.has(b)));
  }

  // The frame furthest up from the given one at the episode's start: where things stand still.
  root(frame: string): string {
    let at = this.name(frame);
    const seen = new Set([at]);
    for (;;) {
      const up = [...this.fixed, ...this.moving].find((e) => e.child === at);
      if (!up || seen.has(up.parent)) return at;
      at = up.parent;
      seen.add(at);
    }
  }
}
