// What stands around the clouds in the 3D scene: camera frustums, trajectories of signals that have
// a position, and the robot where a text stream holds its URDF.

import * as THREE from "three";
import { colourOf } from "./dom";
import { Lens } from "./lens";
import { apply, type Pose, sub } from "./math";
import type { Session } from "./session";
import type { StreamInfo, Vec3 } from "./types";
import { Robot } from "./urdf";

const MOST_TRAJECTORY = 4000;
const MOST_JOINT_VALUES = 4e6;

// Pose of a frame in the scene's coordinates at an instant; null where nothing tells it.
export type PoseOf = (frame: string, t: number) => Pose | null;

// Puts an object whose matrix is set by hand; hides it where its pose is not known.
export function setPose(object: THREE.Object3D, pose: Pose | null): void {
  object.visible = pose !== null;
  if (!pose) return;
  const [w, x, y, z] = pose.q;
  object.matrix.compose(new THREE.Vector3(...pose.p), new THREE.Quaternion(x, y, z, w), new THREE.Vector3(1, 1, 1));
  object.matrixWorldNeedsUpdate = true;
}

export class Scenery {
  readonly object = new THREE.Group();
  private readonly frustums: { frame: string; stream: string; lines: THREE.LineSegments }[] = [];
  private readonly trajectories: { frame: string; base: Vec3; line: THREE.Line }[] = [];
  private robot: Robot | null = null;
  private readonly joints: { stream: string; names: string[]; values: Float64Array }[] = [];

  // filled: called when something has arrived.
  constructor(private readonly session: Session, private readonly filled: () => void) {
    for (const stream of session.cameraStreams()) this.addFrustum(stream);
    const failed = (what: string) => (error: Error) => session.say(`${what}: ${error.message}`, "bad");
    this.addTrajectories().catch(failed("trajectories"));
    this.addRobot().catch(failed("robot"));
  }

  get empty(): boolean {
    return !this.frustums.length && !this.trajectories.length && !this.robot;
  }

  // Frame of the first camera that is drawn.
  get frame(): string | undefined {
    return this.frustums[0]?.frame;
  }

  place(t: number, poseOf: PoseOf, standing: string): void {
    for (const f of this.frustums) {
      const stamps = this.session.stamps.get(f.stream)!;
      const i = stamps.nearest(t);
      setPose(f.lines, poseOf(f.frame, i >= 0 ? stamps.ns[i] : t));
    }
    for (const { frame, base, line } of this.trajectories) {
      const pose = poseOf(frame, t);
      setPose(line, pose && { p: apply(pose, base), q: pose.q });
    }
    if (this.robot) this.placeRobot(this.robot, t, poseOf, standing);
  }

  // Grows the bounds by where cameras and trajectories are.
  bound(bounds: THREE.Box3): void {
    for (const { lines } of this.frustums) bounds.expandByPoint(new THREE.Vector3().setFromMatrixPosition(lines.matrix));
    for (const { line } of this.trajectories) {
      line.geometry.computeBoundingBox();
      bounds.union(line.geometry.boundingBox!.clone().applyMatrix4(line.matrix));
    }
  }

  private addLines(lines: THREE.Line): void {
    lines.matrixAutoUpdate = false;
    lines.frustumCulled = false;
    this.object.add(lines);
  }

  // Whether a sensor gets metres away in the course of the episode: as large as that is its scene.
  private travels(frame: string): boolean {
    const { frames, clock } = this.session;
    const [start, ...later] = [0, 0.5, 1].map((w) => frames.transform(frames.root(frame), frame, w * clock.duration)?.p);
    return !!start && later.some((p) => p && Math.hypot(...sub(p, start)) > 3);
  }

  private addFrustum(stream: StreamInfo): void {
    const sensor = this.session.sensorOf(stream);
    if (!sensor?.K) return;
    const lens = new Lens(sensor);
    const far = this.travels(sensor.frame_id) ? 1.5 : 0.15;
    const at = (u: number, v: number): Vec3 | null => {
      const ray = lens.unproject([u * (lens.width - 1), v * (lens.height - 1)]);
      return ray && (ray.map((x) => x * far) as Vec3);
    };
    const rim: Vec3[] = [];
    for (const [u0, v0, u1, v1] of [[0, 0, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 0, 0]])
      for (let k = 0; k < 8; k++) {
        const p = at(u0 + ((u1 - u0) * k) / 8, v0 + ((v1 - v0) * k) / 8);
        if (p) rim.push(p);
      }
    const points: number[] = [];
    rim.forEach((p, i) => {
      points.push(...p, ...rim[(i + 1) % rim.length]);
      if (i % 8 === 0) points.push(0, 0, 0, ...p);
    });
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
    const lines = new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ color: colourOf(`stream ${stream.name}`) }));
    this.addLines(lines);
    this.frustums.push({ frame: sensor.frame_id, stream: stream.name, lines });
  }

  private async addTrajectories(): Promise<void> {
    const { api } = this.session;
    for (const stream of this.session.streams) {
      if (!stream.position || !stream.frame_id || !stream.count) continue;
      const step = Math.max(1, Math.ceil(stream.count / MOST_TRAJECTORY));
      const data = await api.api.binary(`${api.data("values", stream.name, stream.position)}&step=${step}`);
      const values = new Float64Array(data, 8);
      // About its first point: far from the origin float32 loses centimetres.
      const base = [...values.slice(0, 3)] as Vec3;
      const positions = Float32Array.from(values, (v, i) => v - base[i % 3]);
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.BufferAttribute(positions, 3));
      const line = new THREE.Line(geometry, new THREE.LineBasicMaterial({ color: colourOf(`stream ${stream.name}`) }));
      this.addLines(line);
      this.trajectories.push({ frame: stream.frame_id, base, line });
      this.filled();
    }
  }

  private async addRobot(): Promise<void> {
    const { api } = this.session;
    for (const stream of this.session.streams.filter((s) => s.kind === "text" && s.count))
      try {
        const text = new TextDecoder().decode(await api.api.binary(api.data("text", stream.name, 0)));
        if (!text.includes("<robot")) continue;
        this.robot = new Robot(text);
        this.object.add(this.robot.object);
        break;
      } catch (error) {
        console.warn(`${stream.name}:`, error);
      }
    if (!this.robot) return;
    for (const stream of this.session.streams) {
      const name = stream.fields.position ? "position" : "data";
      const names = stream.fields[name]?.channels;
      if (stream.kind !== "signal" || !names?.some((n) => this.robot!.joints.has(n)) || stream.count * names.length > MOST_JOINT_VALUES) continue;
      const data = await api.api.binary(api.data("values", stream.name, name));
      this.joints.push({ stream: stream.name, names, values: new Float64Array(data, 8) });
    }
    this.filled();
  }

  private placeRobot(robot: Robot, t: number, poseOf: PoseOf, standing: string): void {
    const values = new Map<string, number>();
    for (const { stream, names, values: all } of this.joints) {
      const i = this.session.stamps.get(stream)!.nearest(t);
      if (i >= 0) names.forEach((name, k) => values.set(name, all[i * names.length + k]));
    }
    robot.set(values);
    // A base that the rig does not know stands where the scene begins.
    const known = this.session.frames.all().includes(robot.base);
    setPose(robot.object, poseOf(known ? robot.base : standing, t));
  }
}
