// Boxes in the 3D scene: their lines, and their names beside them.

import * as THREE from "three";
import { colourOf, lineColourOf, theme } from "./dom";
import { add, corners, EDGES, heading } from "./math";
import type { Box, Track3D, Vec3 } from "./types";

// A box as it stands at the cursor, in scene coordinates.
export interface SceneBox {
  layer: string;
  collection: string;
  track: Track3D;
  box: Box;
  ghost: boolean;
  selected: boolean;
}

export class BoxLines {
  readonly object = new THREE.LineSegments(new THREE.BufferGeometry(), new THREE.LineBasicMaterial({ vertexColors: true }));

  constructor() {
    this.object.frustumCulled = false;
  }

  set(boxes: SceneBox[]): void {
    const points: number[] = [];
    const colours: number[] = [];
    for (const { track, box, ghost, selected } of boxes) {
      const colour = new THREE.Color(lineColourOf(track.label)).multiplyScalar(ghost ? 0.5 : 1);
      if (selected) colour.lerp(new THREE.Color(theme().text), 0.35);
      const c = corners(box);
      const [tail, tip] = heading(box);
      const segments: [Vec3, Vec3][] = [...EDGES.map(([i, j]): [Vec3, Vec3] => [c[i], c[j]]), [tail, tip]];
      // A cross on the front face tells the heading from any side.
      segments.push([c[0], c[7]], [c[3], c[4]]);
      for (const [a, b] of segments) {
        points.push(...a, ...b);
        for (let k = 0; k < 2; k++) colours.push(colour.r, colour.g, colour.b);
      }
    }
    this.object.geometry.dispose();
    this.object.geometry = new THREE.BufferGeometry();
    this.object.geometry.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
    this.object.geometry.setAttribute("color", new THREE.Float32BufferAttribute(colours, 3));
  }
}

// Names above the boxes, in the part of the canvas that is `main` wide. project: from the scene to
// its pixels, null behind the viewer.
export function drawNames(g: CanvasRenderingContext2D, boxes: SceneBox[], main: number, height: number, project: (p: Vec3) => [number, number] | null): void {
  g.font = "12px system-ui";
  g.save();
  g.beginPath();
  g.rect(0, 0, main, height);
  g.clip();
  for (const { track, box, selected } of boxes) {
    const at = project(add(box.center_m, [0, 0, Math.max(...box.size_lwh_m) / 2]));
    if (!at) continue;
    const [x, y] = at;
    const text = selected ? `${track.label} ${track.object_id}` : track.label;
    const wide = g.measureText(text).width;
    g.fillStyle = "rgba(0,0,0,0.6)";
    g.fillRect(x - wide / 2 - 3, y - 18, wide + 6, 15);
    g.fillStyle = selected ? "#fff" : colourOf(track.label);
    g.fillText(text, x - wide / 2, y - 7);
  }
  g.restore();
}
