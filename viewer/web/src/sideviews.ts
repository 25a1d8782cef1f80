// Top, side and front views of the selected box, along its own axes, with handles.

import * as THREE from "three";
import { followPointer, theme } from "./dom";
import { add, qAxis, qMul, qRotate, qUnit } from "./math";
import type { Box, Vec3 } from "./types";

export interface SideView {
  name: string;
  left: number;
  top: number;
  width: number;
  height: number;
  camera: THREE.OrthographicCamera;
  // Which axis of the box goes right (u), up (v) and to the viewer (n), with its sign.
  u: [0 | 1 | 2, 1 | -1];
  v: [0 | 1 | 2, 1 | -1];
  n: [0 | 1 | 2, 1 | -1];
  scale: number; // pixels per metre
}

const KINDS: Pick<SideView, "name" | "u" | "v" | "n">[] = [
  { name: "top", u: [1, -1], v: [0, 1], n: [2, 1] },
  { name: "side", u: [0, 1], v: [2, 1], n: [1, -1] },
  { name: "front", u: [1, 1], v: [2, 1], n: [0, 1] },
];
const HANDLE = 7;
const TURN_PX = 26;
// Points shown in front of and behind the box, in metres.
const SLAB_M = 1;

const axis = ([k, sign]: [number, number]): Vec3 => {
  const v: Vec3 = [0, 0, 0];
  v[k] = sign;
  return v;
};

let zoom = 1;
export function zoomSideViews(factor: number): void {
  zoom = Math.min(4, Math.max(0.25, zoom * factor));
}

export function sideViews(width: number, height: number, box: Box): SideView[] {
  const wide = Math.min(Math.round(width * 0.34), 260);
  const high = height / 3;
  return KINDS.map((kind, i) => {
    const [su, sv] = [box.size_lwh_m[kind.u[0]], box.size_lwh_m[kind.v[0]]];
    const scale = (0.45 * Math.min(wide / Math.max(su, 0.02), high / Math.max(sv, 0.02))) * zoom;
    const depth = box.size_lwh_m[kind.n[0]] / 2 + SLAB_M;
    const camera = new THREE.OrthographicCamera(-wide / 2 / scale, wide / 2 / scale, high / 2 / scale, -high / 2 / scale, 0, 2 * depth);
    const rotate = (v: Vec3) => qRotate(box.quaternion_wxyz, v);
    const n = rotate(axis(kind.n));
    camera.position.set(...add(box.center_m, n.map((x) => x * depth) as Vec3));
    const basis = new THREE.Matrix4().makeBasis(
      new THREE.Vector3(...rotate(axis(kind.u))),
      new THREE.Vector3(...rotate(axis(kind.v))),
      new THREE.Vector3(...n),
    );
    camera.quaternion.setFromRotationMatrix(basis);
    camera.updateMatrixWorld();
    return { ...kind, left: width - wide, top: i * high, width: wide, height: high, camera, scale };
  });
}

interface Grip {
  u: -1 | 0 | 1;
  v: -1 | 0 | 1;
}

function rectangle(view: SideView, box: Box): [number, number, number, number] {
  const [w, hgt] = [box.size_lwh_m[view.u[0]] * view.scale, box.size_lwh_m[view.v[0]] * view.scale];
  const [cx, cy] = [view.left + view.width / 2, view.top + view.height / 2];
  return [cx - w / 2, cy - hgt / 2, w, hgt];
}

export function drawSideViews(g: CanvasRenderingContext2D, views: SideView[], box: Box, colour: string, count: string): void {
  const c = theme();
  g.font = "11px system-ui";
  for (const view of views) {
    g.strokeStyle = c.line;
    g.strokeRect(view.left + 0.5, view.top + 0.5, view.width - 1, view.height - 1);
    const [x, y, w, hgt] = rectangle(view, box);
    g.strokeStyle = colour;
    g.lineWidth = 2;
    g.strokeRect(x, y, w, hgt);
    g.lineWidth = 1;
    g.fillStyle = colour;
    for (const u of [0, 0.5, 1])
      for (const v of [0, 0.5, 1])
        if (u !== 0.5 || v !== 0.5) g.fillRect(x + u * w - HANDLE / 2, y + v * hgt - HANDLE / 2, HANDLE, HANDLE);
    g.beginPath();
    g.moveTo(x + w / 2, y);
    g.lineTo(x + w / 2, y - TURN_PX + 6);
    g.stroke();
    g.beginPath();
    g.arc(x + w / 2, y - TURN_PX, 6, 0, 2 * Math.PI);
    g.fill();
    const [su, sv] = [box.size_lwh_m[view.u[0]], box.size_lwh_m[view.v[0]]];
    const words = `${view.name} ${su.toFixed(2)}×${sv.toFixed(2)} m`;
    g.fillStyle = c.panel;
    g.fillRect(view.left + 1, view.top + view.height - 19, view.width - 2, 18);
    g.fillStyle = c.text;
    g.fillText(words, view.left + 6, view.top + view.height - 6);
    if (view.name === "top" && count) {
      g.fillStyle = c.panel;
      g.fillRect(view.left + 1, view.top + 1, g.measureText(count).width + 10, 17);
      g.fillStyle = c.text;
      g.fillText(count, view.left + 6, view.top + 13);
    }
  }
}

export function startSideDrag(
  target: HTMLElement,
  view: SideView,
  box: Box,
  event: PointerEvent,
  propose: (box: Box, done: boolean) => void,
): void {
  const rect = target.getBoundingClientRect();
  const at = (e: PointerEvent) => [e.clientX - rect.left, e.clientY - rect.top];
  const [sx, sy] = at(event);
  const [x, y, w, hgt] = rectangle(view, box);
  const [cx, cy] = [x + w / 2, y + hgt / 2];
  const turning = Math.hypot(sx - cx, sy - (y - TURN_PX)) < 11;
  const near = (value: number, edge: number) => Math.abs(value - edge) < HANDLE + 2;
  const across = sx > x - HANDLE && sx < x + w + HANDLE;
  const along = sy > y - HANDLE && sy < y + hgt + HANDLE;
  const grip: Grip = {
    u: along && near(sx, x) ? -1 : along && near(sx, x + w) ? 1 : 0,
    v: across && near(sy, y) ? 1 : across && near(sy, y + hgt) ? -1 : 0,
  };
  const inside = across && along;
  if (!turning && !inside) return;
  let next: Box | null = null;
  const move = (e: PointerEvent) => {
    const [mx, my] = at(e);
    if (turning) {
      const angle = Math.atan2(mx - cx, -(my - cy));
      // Turning clockwise on screen is negative about the axis that points to the viewer.
      next = { ...box, quaternion_wxyz: qUnit(qMul(box.quaternion_wxyz, qAxis(axis(view.n), -angle))) };
    } else {
      const du = (mx - sx) / view.scale;
      const dv = -(my - sy) / view.scale;
      next = grip.u || grip.v ? resized(box, view, grip, du, dv) : shifted(box, view, du, dv);
    }
    propose(next, false);
  };
  followPointer(window, move, () => {
    if (next) propose(next, true);
  });
}

function shifted(box: Box, view: SideView, du: number, dv: number): Box {
  const local: Vec3 = [0, 0, 0];
  local[view.u[0]] += du * view.u[1];
  local[view.v[0]] += dv * view.v[1];
  return { ...box, center_m: add(box.center_m, qRotate(box.quaternion_wxyz, local)) };
}

// The side that is not held stays where it is.
function resized(box: Box, view: SideView, grip: Grip, du: number, dv: number): Box {
  const size = [...box.size_lwh_m] as Vec3;
  const local: Vec3 = [0, 0, 0];
  for (const [side, by, [k, sign]] of [
    [grip.u, du, view.u],
    [grip.v, dv, view.v],
  ] as [number, number, [number, number]][]) {
    if (!side) continue;
    const grown = Math.max(0.005, size[k] + side * by);
    local[k] = ((grown - size[k]) / 2) * side * sign;
    size[k] = grown;
  }
  return { ...box, size_lwh_m: size, center_m: add(box.center_m, qRotate(box.quaternion_wxyz, local)) };
}
