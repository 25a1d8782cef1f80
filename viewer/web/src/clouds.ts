// Point clouds of one stream: fetched, decoded, a few kept; one GPU buffer reused for all of them.

import * as THREE from "three";
import type { EpisodeApi } from "./api";

const MAGIC = 0x50444d4d;
const KEPT_BYTES = 96 << 20;

export interface Cloud {
  count: number;
  total: number;
  origin: [number, number, number];
  step: number;
  xyz: Int16Array;
  intensity: Uint8Array | null;
}

export function decode(data: ArrayBuffer): Cloud {
  const head = new DataView(data);
  if (head.getUint32(0, true) !== MAGIC) throw new Error("not a point cloud");
  const [count, total, shaded] = [4, 8, 12].map((o) => head.getUint32(o, true));
  const at = 48;
  const origin = [16, 24, 32].map((o) => head.getFloat64(o, true)) as Cloud["origin"];
  const bytes = 6 * count;
  const after = at + bytes + ((4 - (bytes % 4)) % 4);
  return {
    count,
    total,
    origin,
    step: head.getFloat64(40, true),
    xyz: new Int16Array(data, at, 3 * count),
    intensity: shaded ? new Uint8Array(data, after, count) : null,
  };
}

export class CloudSource {
  private kept = new Map<number, Cloud>();
  private waiting = new Map<number, Promise<Cloud>>();
  private bytes = 0;

  constructor(
    private readonly api: EpisodeApi,
    private readonly stream: string,
    private budget: number,
  ) {}

  setBudget(budget: number): void {
    this.budget = budget;
    this.kept.clear();
    this.bytes = 0;
  }

  peek(i: number): Cloud | undefined {
    return this.kept.get(i);
  }

  get(i: number): Promise<Cloud> {
    const known = this.kept.get(i);
    if (known) return Promise.resolve(known);
    let promise = this.waiting.get(i);
    if (!promise) {
      promise = this.load(i).finally(() => this.waiting.delete(i));
      this.waiting.set(i, promise);
    }
    return promise;
  }

  private async load(i: number): Promise<Cloud> {
    const path = `${this.api.data("points", this.stream, i)}&budget=${this.budget}`;
    const cloud = decode(await this.api.api.binary(path));
    this.kept.set(i, cloud);
    this.bytes += cloud.count * 7;
    for (const [old, c] of this.kept) {
      if (this.bytes <= KEPT_BYTES || this.kept.size <= 1) break;
      this.kept.delete(old);
      this.bytes -= c.count * 7;
    }
    return cloud;
  }
}

const VERTEX = `
precision highp float;
uniform mat4 modelViewMatrix, projectionMatrix, modelMatrix;
uniform vec3 origin, range;
uniform float step, size;
uniform int mode;
in vec3 position;
in float intensity;
out vec3 colour;
vec3 viridis(float t) {
  t = clamp(t, 0.0, 1.0);
  const vec3 c0 = vec3(0.2777, 0.0054, 0.3341), c1 = vec3(0.1050, 1.4046, 1.3845),
    c2 = vec3(-0.3308, 0.2148, 0.0950), c3 = vec3(-4.6342, -5.7991, -19.3324),
    c4 = vec3(6.2282, 14.1799, 56.6905), c5 = vec3(4.7763, -13.7451, -65.3530),
    c6 = vec3(-5.4354, 4.6458, 26.3124);
  return c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * (c5 + t * c6)))));
}
void main() {
  vec3 p = position * step + origin;
  vec4 world = modelMatrix * vec4(p, 1.0);
  float t = mode == 0 ? intensity / 255.0
    : mode == 1 ? (world.z - range.x) / (range.y - range.x)
    : length(p) / range.z;
  colour = viridis(0.12 + 0.88 * t);
  gl_Position = projectionMatrix * modelViewMatrix * vec4(p, 1.0);
  gl_PointSize = size;
}`;

const FRAGMENT = `
precision mediump float;
in vec3 colour;
out vec4 fragment;
void main() { fragment = vec4(colour, 1.0); }`;

export class CloudObject {
  readonly points: THREE.Points;
  shown = -1;
  cloud: Cloud | null = null;
  private readonly material: THREE.RawShaderMaterial;
  private capacity = 0;

  constructor(readonly name: string) {
    this.material = new THREE.RawShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      glslVersion: THREE.GLSL3,
      uniforms: {
        origin: { value: new THREE.Vector3() },
        range: { value: new THREE.Vector3(-2, 4, 60) },
        step: { value: 1 },
        size: { value: 2 },
        mode: { value: 1 },
      },
    });
    this.points = new THREE.Points(new THREE.BufferGeometry(), this.material);
    this.points.frustumCulled = false;
    this.points.matrixAutoUpdate = false;
  }

  set(i: number, cloud: Cloud): void {
    const geometry = this.points.geometry;
    if (cloud.count > this.capacity) {
      // Grown, never shrunk: old buffers are freed, and playing allocates nothing.
      this.capacity = Math.ceil(cloud.count * 1.2);
      geometry.dispose();
      const xyz = new THREE.BufferAttribute(new Int16Array(3 * this.capacity), 3);
      const intensity = new THREE.BufferAttribute(new Uint8Array(this.capacity), 1);
      for (const attribute of [xyz, intensity]) attribute.setUsage(THREE.DynamicDrawUsage);
      geometry.setAttribute("position", xyz);
      geometry.setAttribute("intensity", intensity);
    }
    if (this.capacity) {
      const xyz = geometry.getAttribute("position") as THREE.BufferAttribute;
      (xyz.array as Int16Array).set(cloud.xyz);
      xyz.clearUpdateRanges();
      xyz.addUpdateRange(0, 3 * cloud.count);
      xyz.needsUpdate = true;
      const intensity = geometry.getAttribute("intensity") as THREE.BufferAttribute;
      if (cloud.intensity) (intensity.array as Uint8Array).set(cloud.intensity);
      intensity.clearUpdateRanges();
      intensity.addUpdateRange(0, cloud.count);
      intensity.needsUpdate = true;
    }
    geometry.setDrawRange(0, cloud.count);
    const u = this.material.uniforms;
    u.origin.value.set(...cloud.origin);
    u.step.value = cloud.step;
    this.shown = i;
    this.cloud = cloud;
  }

  clear(): void {
    this.points.geometry.setDrawRange(0, 0);
    this.shown = -1;
    this.cloud = null;
  }

  style(mode: number, size: number, low: number, high: number, far: number): void {
    const u = this.material.uniforms;
    u.mode.value = mode === 0 && !this.cloud?.intensity ? 1 : mode;
    u.size.value = size;
    u.range.value.set(low, high, far);
  }

  dispose(): void {
    this.points.geometry.dispose();
    this.material.dispose();
  }
}
