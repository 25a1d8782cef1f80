// Quaternions (qw, qx, qy, qz), rigid transforms and boxes, in doubles.

import type { Box, Quat, Vec3 } from "./types";

export const add = (a: Vec3, b: Vec3): Vec3 => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
export const sub = (a: Vec3, b: Vec3): Vec3 => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
export const scale = (a: Vec3, s: number): Vec3 => [a[0] * s, a[1] * s, a[2] * s];
export const dot = (a: Vec3, b: Vec3): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const norm = (a: Vec3): number => Math.hypot(a[0], a[1], a[2]);
export const lerp = (a: Vec3, b: Vec3, t: number): Vec3 => [
  a[0] + (b[0] - a[0]) * t,
  a[1] + (b[1] - a[1]) * t,
  a[2] + (b[2] - a[2]) * t,
];

export function qMul(a: Quat, b: Quat): Quat {
  return [
    a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
    a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
    a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
    a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
  ];
}

export const qInv = (q: Quat): Quat => [q[0], -q[1], -q[2], -q[3]];

export function qUnit(q: Quat): Quat {
  const n = Math.hypot(...q);
  return n > 0 ? [q[0] / n, q[1] / n, q[2] / n, q[3] / n] : [1, 0, 0, 0];
}

export function qRotate(q: Quat, v: Vec3): Vec3 {
  const [w, x, y, z] = q;
  const tx = 2 * (y * v[2] - z * v[1]);
  const ty = 2 * (z * v[0] - x * v[2]);
  const tz = 2 * (x * v[1] - y * v[0]);
  return [
    v[0] + w * tx + y * tz - z * ty,
    v[1] + w * ty + z * tx - x * tz,
    v[2] + w * tz + x * ty - y * tx,
  ];
}

export function qAxis(axis: Vec3, angle: number): Quat {
  const s = Math.sin(angle / 2);
  return [Math.cos(angle / 2), axis[0] * s, axis[1] * s, axis[2] * s];
}

// Along the shorter arc; the half-angle form stays exact for tiny angles.
export function slerp(a: Quat, b: Quat, t: number): Quat {
  const d = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  const c: Quat = d < 0 ? [-b[0], -b[1], -b[2], -b[3]] : b;
  const diff = Math.hypot(c[0] - a[0], c[1] - a[1], c[2] - a[2], c[3] - a[3]);
  const sum = Math.hypot(c[0] + a[0], c[1] + a[1], c[2] + a[2], c[3] + a[3]);
  const angle = 2 * Math.atan2(diff, sum);
  if (angle < 1e-12) return a;
  const s = Math.sin(angle);
  const wa = Math.sin((1 - t) * angle) / s;
  const wb = Math.sin(t * angle) / s;
  return qUnit([
    wa * a[0] + wb * c[0],
    wa * a[1] + wb * c[1],
    wa * a[2] + wb * c[2],
    wa * a[3] + wb * c[3],
  ]);
}

// a_SE3_b: maps points of b's frame into a's.
export interface Pose {
  p: Vec3;
  q: Quat;
}

export const IDENTITY: Pose = { p: [0, 0, 0], q: [1, 0, 0, 0] };

export const apply = (pose: Pose, v: Vec3): Vec3 => add(qRotate(pose.q, v), pose.p);

export const compose = (a: Pose, b: Pose): Pose => ({ p: apply(a, b.p), q: qMul(a.q, b.q) });

export function invert(pose: Pose): Pose {
  const q = qInv(pose.q);
  return { p: scale(qRotate(q, pose.p), -1), q };
}

export const moveBox = (pose: Pose, box: Box): Box => ({
  center_m: apply(pose, box.center_m),
  size_lwh_m: box.size_lwh_m,
  quaternion_wxyz: qUnit(qMul(pose.q, box.quaternion_wxyz)),
});

const SIGNS: Vec3[] = [];
for (const z of [-1, 1])
  for (const [x, y] of [
    [1, 1],
    [-1, 1],
    [-1, -1],
    [1, -1],
  ])
    SIGNS.push([x, y, z]);

// Bottom ring (z-) then top ring, counter-clockwise from (+, +).
export function corners(box: Box): Vec3[] {
  const [l, w, hgt] = box.size_lwh_m;
  return SIGNS.map((s) =>
    add(
      box.center_m,
      qRotate(box.quaternion_wxyz, [(s[0] * l) / 2, (s[1] * w) / 2, (s[2] * hgt) / 2]),
    ),
  );
}

export const EDGES: [number, number][] = [
  [0, 1],
  [1, 2],
  [2, 3],
  [3, 0],
  [4, 5],
  [5, 6],
  [6, 7],
  [7, 4],
  [0, 4],
  [1, 5],
  [2, 6],
  [3, 7],
];

// Where the heading arrow starts and ends: from the bottom's centre out over the front.
export function heading(box: Box): [Vec3, Vec3] {
  const [l, , hgt] = box.size_lwh_m;
  const at = (x: number): Vec3 =>
    add(box.center_m, qRotate(box.quaternion_wxyz, [x, 0, -hgt / 2]));
  return [at(0), at(l / 2 + Math.max(0.15 * l, 0.02))];
}
