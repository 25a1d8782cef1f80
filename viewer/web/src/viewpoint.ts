// Where the perspective view of the 3D scene begins.

import * as THREE from "three";
import type { CloudLayer } from "./cloudlayer";
import { add, corners, qRotate, sub } from "./math";
import type { SceneBox } from "./sceneboxes";
import type { PoseOf, Scenery } from "./scenery";
import type { Vec3 } from "./types";

export interface Viewpoint {
  position: Vec3;
  target: Vec3;
  up: Vec3;
}

// From behind and above whatever there is. optical: the standing frame is a camera's own.
export function viewpoint(clouds: CloudLayer[], boxes: SceneBox[], scenery: Scenery, poseOf: PoseOf, duration: number, optical: boolean): Viewpoint {
  const up: Vec3 = optical ? [0, -1, 0] : [0, 0, 1];
  // Behind a vehicle; where the sensor stands still everything is looked at as a whole.
  const sweep = clouds.find((c) => c.stream.kind === "sweep" && c.clouds().length && drives(c.frame, poseOf, duration));
  const sensor = sweep && poseOf(sweep.frame, 0);
  if (sensor) {
    const back = qRotate(sensor.q, [-14, 0, 0]);
    return { up, target: add(sensor.p, qRotate(sensor.q, [6, 0, -1.5])), position: [sensor.p[0] + back[0], sensor.p[1] + back[1], sensor.p[2] + 10] };
  }
  // A frame that looks along z with y down: from behind and beside the camera.
  if (optical) return { up, target: [0, 0.1, 0.7], position: [0.55, -0.55, -0.5] };
  const bounds = new THREE.Box3();
  for (const p of boxes.flatMap((b) => corners(b.box))) bounds.expandByPoint(new THREE.Vector3(...p));
  scenery.bound(bounds);
  if (bounds.isEmpty()) boundPoints(bounds, clouds);
  if (bounds.isEmpty()) bounds.set(new THREE.Vector3(-1, -1, 0), new THREE.Vector3(1, 1, 1));
  const { x, y, z } = bounds.getCenter(new THREE.Vector3());
  const reach = Math.max(0.4, bounds.getSize(new THREE.Vector3()).length());
  return { up, target: [x, y, z], position: [x + 0.55 * reach, y - 0.8 * reach, z + 0.55 * reach] };
}

// Grows the bounds by where nine tenths of the points are, along each axis.
function boundPoints(bounds: THREE.Box3, clouds: CloudLayer[]): void {
  const axes: number[][] = [[], [], []];
  let seen = 0;
  for (const cloud of clouds)
    cloud.eachPoint((...p) => {
      if (seen++ % 97 === 0) p.forEach((value, k) => axes[k].push(value));
    });
  if (!axes[0].length) return;
  for (const values of axes) values.sort((a, b) => a - b);
  for (const share of [0.05, 0.95]) bounds.expandByPoint(new THREE.Vector3(...axes.map((values) => values[Math.floor(share * (values.length - 1))])));
}

// Whether a frame gets somewhere in the course of the episode.
function drives(frame: string, poseOf: PoseOf, duration: number): boolean {
  const [start, middle, end] = [0, 0.5, 1].map((w) => poseOf(frame, w * duration)?.p);
  return !!start && [middle, end].some((p) => p && Math.hypot(...sub(p, start)) > 0.5);
}
