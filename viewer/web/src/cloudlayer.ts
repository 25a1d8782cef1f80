// One cloud stream in the 3D scene: the sample nearest to the cursor, or several around it merged,
// each where its sensor stood when it measured.

import * as THREE from "three";
import { ApiError, RETRY_MS } from "./api";
import { type Cloud, CloudObject, CloudSource } from "./clouds";
import { compose, type Pose } from "./math";
import { type PoseOf, setPose } from "./scenery";
import type { Session } from "./session";
import type { Stamps } from "./stamps";
import type { StreamInfo } from "./types";

// Requests under way at once; the browser has six lines to the server, and pictures come first.
const MOST_LOADING = 2;
const AHEAD = 2;

export class CloudLayer {
  readonly group = new THREE.Group();
  readonly objects: CloudObject[] = [];
  readonly frame: string;
  private readonly source: CloudSource;
  private readonly stamps: Stamps;
  private readonly root: string;
  private readonly loading = new Set<number>();
  // Samples that could not be read: said once, and not asked for again.
  private readonly broken = new Set<number>();

  constructor(
    private readonly session: Session,
    readonly stream: StreamInfo,
    private budget: number,
    private merged: number,
  ) {
    this.frame = session.sensorOf(stream)?.frame_id ?? stream.frame_id ?? "";
    this.root = session.frames.root(this.frame);
    this.stamps = session.stamps.get(stream.name)!;
    this.source = new CloudSource(session.api, stream.name, budget);
    this.resize();
  }

  // Most points shown, and of how many samples together.
  limit(budget: number, merged: number): void {
    [this.budget, this.merged] = [budget, merged];
    this.resize();
    for (const object of this.objects) object.shown = -1;
  }

  private resize(): void {
    this.source.setBudget(Math.ceil(this.budget / this.merged));
    while (this.objects.length < this.merged) {
      const object = new CloudObject(this.stream.name);
      this.objects.push(object);
      this.group.add(object.points);
    }
    for (const object of this.objects.splice(this.merged)) {
      this.group.remove(object.points);
      object.dispose();
    }
  }

  // Samples that belong to the cursor, the nearest first.
  wanted(t: number): number[] {
    const middle = this.stamps.nearest(t);
    if (middle < 0) return [];
    const near = [];
    for (let k = 0; near.length < this.merged && k < this.merged; k++)
      for (const i of k ? [middle - k, middle + k] : [middle])
        if (i >= 0 && i < this.stamps.length && near.length < this.merged) near.push(i);
    return near;
  }

  settled(t: number): boolean {
    const shown = new Set([...this.broken, ...this.objects.map((o) => o.shown)]);
    return this.wanted(t).every((i) => shown.has(i));
  }

  // Shows what has arrived and asks for the rest; says whether something changed.
  load(t: number): boolean {
    const wanted = this.wanted(t);
    const missing = wanted.filter((i) => !this.broken.has(i) && !this.objects.some((o) => o.shown === i));
    const free = this.objects.filter((o) => !wanted.includes(o.shown));
    let changed = false;
    for (const object of free)
      // A sample stays until its successor is there, unless there is none or others are merged with it.
      if (object.shown >= 0 && (this.merged > 1 || this.broken.has(wanted[0]))) {
        object.clear();
        changed = true;
      }
    for (const i of missing) {
      const ready = this.source.peek(i);
      const object = ready && free.pop();
      if (!ready || !object) this.ask(i);
      else {
        object.set(i, ready);
        changed = true;
      }
    }
    if (this.session.clock.playing && wanted.length)
      for (let k = 1; k <= AHEAD; k++) if (wanted[0] + k < this.stamps.length) this.ask(wanted[0] + k);
    return changed;
  }

  private ask(i: number): void {
    if (this.loading.has(i) || this.loading.size >= MOST_LOADING || this.source.peek(i)) return;
    this.loading.add(i);
    this.source.get(i).then(
      () => this.loading.delete(i),
      (error) => {
        // A server that is gone says nothing about the sample.
        if (!(error instanceof ApiError)) return void setTimeout(() => this.loading.delete(i), RETRY_MS);
        this.loading.delete(i);
        this.broken.add(i);
        this.session.say(`${this.stream.name} #${i}: ${error.message}`, "bad");
      },
    );
  }

  // Where a shown sample stands in the scene. Things stand still in the frame on top, so a sweep is
  // taken there at its own stamp and from there into the scene's frame at the cursor.
  private poseOf(object: CloudObject, t: number, poseOf: PoseOf): Pose | null {
    const then = this.session.frames.transform(this.root, this.frame, this.stamps.ns[object.shown]);
    const root = poseOf(this.root, t);
    return then && root && compose(root, then);
  }

  place(t: number, poseOf: PoseOf): void {
    for (const object of this.objects) setPose(object.points, object.cloud ? this.poseOf(object, t, poseOf) : null);
  }

  // mode 0: intensity, 1: height, 2: distance from the sensor. Heights are above the ground the
  // sensor is taken to stand over.
  style(mode: number, ratio: number): void {
    const sweep = this.stream.kind === "sweep";
    const far = Math.max(1, ...this.clouds().map((c) => c.step * 32_000));
    for (const object of this.objects) {
      const ground = sweep ? object.points.matrix.elements[14] - 2.2 : 0;
      object.style(mode, (sweep ? 2 : 3) * ratio, ground, ground + (sweep ? 4.5 : 0.6), sweep ? far : far * 1.5);
    }
  }

  clouds(): Cloud[] {
    return this.objects.map((o) => o.cloud).filter((c): c is Cloud => c !== null);
  }

  // Calls back with every shown point, in the scene's coordinates.
  eachPoint(see: (x: number, y: number, z: number) => void): void {
    const at = new THREE.Vector3();
    for (const { cloud, points } of this.objects) {
      if (!cloud || !points.visible) continue;
      const { xyz, step, origin } = cloud;
      for (let k = 0; k < cloud.count; k++) {
        at.set(xyz[3 * k] * step + origin[0], xyz[3 * k + 1] * step + origin[1], xyz[3 * k + 2] * step + origin[2]).applyMatrix4(points.matrix);
        see(at.x, at.y, at.z);
      }
    }
  }
}

