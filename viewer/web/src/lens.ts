// Camera models as OpenCV defines them (pinhole, Brown-Conrady, Kannala-Brandt fisheye), with the
// same limits as mmdata.geometry: points behind the camera, or beyond the radius where the
// distortion folds back, do not project.

import { lerp } from "./math";
import type { SensorInfo, Vec3 } from "./types";

export type Pixel = [number, number];
const MIN_DEPTH_M = 1e-6;
const NEAR_M = 0.1;

export class Lens {
  readonly width: number;
  readonly height: number;
  private readonly fisheye: boolean;
  private readonly fx: number;
  private readonly fy: number;
  private readonly cx: number;
  private readonly cy: number;
  private readonly skew: number;
  private readonly c: number[];
  // Largest usable radius squared (pinhole, Brown-Conrady) or angle (fisheye).
  private readonly limit: number;

  constructor(sensor: SensorInfo) {
    const K = sensor.K!;
    [this.fx, this.fy] = [K[0][0], K[1][1]];
    [this.cx, this.cy] = [K[0][2], K[1][2]];
    this.skew = K[0][1];
    this.width = sensor.width!;
    this.height = sensor.height!;
    this.fisheye = sensor.model === "fisheye";
    const d = sensor.distortion ?? [];
    this.c = Array.from({ length: 8 }, (_, i) => d[i] ?? 0);
    if (this.fisheye) {
      const [k1, k2, k3, k4] = this.c;
      const root = firstRoot((s) => 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4))));
      this.limit = Math.min(Math.PI, Math.sqrt(root));
    } else if (sensor.model === "brown_conrady") {
      const [k1, k2, , , k3, k4, k5, k6] = this.c;
      const n = (s: number) => 1 + s * (k1 + s * (k2 + s * k3));
      const dn = (s: number) => k1 + s * (2 * k2 + s * 3 * k3);
      const m = (s: number) => 1 + s * (k4 + s * (k5 + s * k6));
      const dm = (s: number) => k4 + s * (2 * k5 + s * 3 * k6);
      const slope = (s: number) => (n(s) + 2 * s * dn(s)) * m(s) - 2 * s * n(s) * dm(s);
      this.limit = Math.min(firstRoot(slope), firstRoot(m));
    } else this.limit = Infinity;
  }

  // Pixel of a point in the camera frame (x right, y down, z forward); null where it cannot be seen.
  project(p: Vec3): Pixel | null {
    let x: number;
    let y: number;
    if (this.fisheye) {
      const r = Math.hypot(p[0], p[1]);
      const theta = Math.atan2(r, p[2]);
      if (!(theta < this.limit) || (r === 0 && p[2] <= 0)) return null;
      const s = r > 0 ? this.bend(theta) / r : 0;
      [x, y] = [p[0] * s, p[1] * s];
    } else {
      if (!(p[2] > MIN_DEPTH_M)) return null;
      const a = p[0] / p[2];
      const b = p[1] / p[2];
      if (!(a * a + b * b < this.limit)) return null;
      [x, y] = this.distort(a, b);
    }
    return [this.fx * x + this.skew * y + this.cx, this.fy * y + this.cy];
  }

  // Unit ray of the camera frame through a pixel; null where the lens sees none.
  unproject([u, v]: Pixel): Vec3 | null {
    const ty = (v - this.cy) / this.fy;
    const tx = (u - this.cx - this.skew * ty) / this.fx;
    if (this.fisheye) return this.unprojectFisheye(tx, ty);
    let [x, y] = [tx, ty];
    if (this.limit !== Infinity || this.c.some((c) => c)) {
      // Newton's method with a numerical Jacobian; steps stay inside the lens's range.
      const most = Math.sqrt(this.limit) * 0.999;
      [x, y] = shrink(x, y, most);
      for (let k = 0; k < 50; k++) {
        const [dx, dy] = this.distort(x, y);
        const ex = dx - tx;
        const ey = dy - ty;
        if (Math.abs(ex) + Math.abs(ey) < 1e-13) break;
        const e = 1e-6;
        const [ax, ay] = this.distort(x + e, y);
        const [bx, by] = this.distort(x, y + e);
        const [j00, j10, j01, j11] = [(ax - dx) / e, (ay - dy) / e, (bx - dx) / e, (by - dy) / e];
        const det = j00 * j11 - j01 * j10;
        if (Math.abs(det) < 1e-12) break;
        const [sx, sy] = shrink((j11 * ex - j01 * ey) / det, (j00 * ey - j10 * ex) / det, 0.5);
        [x, y] = shrink(x - sx, y - sy, most);
      }
      const [dx, dy] = this.distort(x, y);
      if (Math.abs(dx - tx) + Math.abs(dy - ty) > 1e-6) return null;
    }
    const n = Math.hypot(x, y, 1);
    return [x / n, y / n, 1 / n];
  }

  // Visible pieces of the segment a-b as pixel polylines: clipped at the near plane and at the
  // lens's range, sampled because distortion bends lines. At most one piece.
  segment(a: Vec3, b: Vec3, samples = 16): Pixel[] | null {
    let [first, last] = [0, 1];
    if (!this.fisheye) {
      if (Math.max(a[2], b[2]) < NEAR_M) return null;
      const slope = b[2] - a[2];
      if (slope !== 0) {
        const crossing = Math.min(Math.max((NEAR_M - a[2]) / slope, 0), 1);
        if (slope > 0) first = crossing;
        else last = crossing;
      }
    }
    const at = (t: number): Vec3 => lerp(a, b, t);
    const times = Array.from({ length: samples }, (_, i) => first + ((last - first) * i) / (samples - 1));
    const seen = times.map((t) => this.project(at(t)) !== null);
    if (!seen.includes(true)) return null;
    if (seen.includes(false)) {
      const [i, j] = longestRun(seen);
      const bisect = (inside: number, outside: number): number => {
        for (let k = 0; k < 40; k++) {
          const middle = 0.5 * (inside + outside);
          if (this.project(at(middle))) inside = middle;
          else outside = middle;
        }
        return inside;
      };
      first = i > 0 ? bisect(times[i], times[i - 1]) : times[i];
      last = j < samples - 1 ? bisect(times[j], times[j + 1]) : times[j];
    }
    const out: Pixel[] = [];
    for (let i = 0; i < samples; i++) {
      const pixel = this.project(at(first + ((last - first) * i) / (samples - 1)));
      if (pixel) out.push(pixel);
    }
    return out.length > 1 ? out : null;
  }

  private distort(x: number, y: number): Pixel {
    const [k1, k2, p1, p2, k3, k4, k5, k6] = this.c;
    const s = x * x + y * y;
    const radial = (1 + s * (k1 + s * (k2 + s * k3))) / (1 + s * (k4 + s * (k5 + s * k6)));
    return [
      x * radial + 2 * p1 * x * y + p2 * (s + 2 * x * x),
      y * radial + p1 * (s + 2 * y * y) + 2 * p2 * x * y,
    ];
  }

  private bend(theta: number): number {
    const [k1, k2, k3, k4] = this.c;
    const s = theta * theta;
    return theta * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))));
  }

  private unprojectFisheye(tx: number, ty: number): Vec3 | null {
    const radius = Math.hypot(tx, ty);
    if (radius > this.bend(this.limit)) return null;
    let [low, high] = [0, this.limit];
    for (let k = 0; k < 60; k++) {
      const middle = 0.5 * (low + high);
      if (this.bend(middle) < radius) low = middle;
      else high = middle;
    }
    const theta = 0.5 * (low + high);
    const s = radius > 0 ? Math.sin(theta) / radius : 0;
    return [tx * s, ty * s, Math.cos(theta)];
  }
}

function shrink(x: number, y: number, most: number): Pixel {
  const length = Math.hypot(x, y);
  return length > most ? [(x * most) / length, (y * most) / length] : [x, y];
}

// Smallest positive root of a function that is 1 at 0, looked for up to 1e4; infinity if none.
function firstRoot(f: (s: number) => number): number {
  let low = 0;
  let step = 1e-3;
  while (low < 1e4) {
    const high = low + step;
    if (f(high) <= 0) {
      let [a, b] = [low, high];
      for (let k = 0; k < 80; k++) {
        const middle = 0.5 * (a + b);
        if (f(middle) > 0) a = middle;
        else b = middle;
      }
      return a;
    }
    low = high;
    step *= 1.01;
  }
  return Infinity;
}

function longestRun(mask: boolean[]): [number, number] {
  let best: [number, number] = [0, -1];
  let start = -1;
  mask.forEach((on, i) => {
    if (on && start < 0) start = i;
    if (!on) start = -1;
    if (on && i - start > best[1] - best[0]) best = [start, i];
  });
  return best;
}
