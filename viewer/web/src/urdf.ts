// A robot from its URDF: links with primitive shapes, joints driven by joint states. Meshes are not
// part of an episode; a link that has only meshes is drawn as the line from its joint to the next.

import * as THREE from "three";

interface Joint {
  group: THREE.Group;
  type: string;
  axis: THREE.Vector3;
  rest: { p: THREE.Vector3; q: THREE.Quaternion };
  mimic: { joint: string; multiplier: number; offset: number } | null;
}

const numbers = (text: string | null, fallback: number[]): number[] => {
  const values = (text ?? "").trim().split(/\s+/).map(Number);
  return values.length === fallback.length && values.every(Number.isFinite) ? values : fallback;
};

function place(element: Element | null, object: THREE.Object3D): void {
  const origin = element?.querySelector(":scope > origin") ?? null;
  const [x, y, z] = numbers(origin?.getAttribute("xyz") ?? null, [0, 0, 0]);
  const [roll, pitch, yaw] = numbers(origin?.getAttribute("rpy") ?? null, [0, 0, 0]);
  object.position.set(x, y, z);
  object.quaternion.setFromEuler(new THREE.Euler(roll, pitch, yaw, "ZYX"));
}

export class Robot {
  readonly object = new THREE.Group();
  readonly joints = new Map<string, Joint>();
  readonly base: string;

  // Throws when the text is no URDF.
  constructor(text: string) {
    const document_ = new DOMParser().parseFromString(text, "application/xml");
    const robot = document_.documentElement;
    if (robot.tagName !== "robot" || document_.querySelector("parsererror"))
      throw new Error("not a robot description");
    const links = new Map<string, THREE.Group>();
    for (const link of robot.querySelectorAll(":scope > link")) {
      const group = new THREE.Group();
      links.set(link.getAttribute("name") ?? "", group);
      for (const visual of link.querySelectorAll(":scope > visual")) {
        const mesh = shape(visual);
        if (mesh) {
          place(visual, mesh);
          // Cylinders lie along z in URDF, along y in three.js.
          if (visual.querySelector("cylinder")) mesh.rotateX(Math.PI / 2);
          group.add(mesh);
        }
      }
    }
    const children = new Set<string>();
    for (const joint of robot.querySelectorAll(":scope > joint")) {
      const parent = links.get(joint.querySelector("parent")?.getAttribute("link") ?? "");
      const childName = joint.querySelector("child")?.getAttribute("link") ?? "";
      const child = links.get(childName);
      if (!parent || !child || children.has(childName)) continue;
      children.add(childName);
      const group = new THREE.Group();
      place(joint, group);
      group.add(child);
      parent.add(group);
      const m = joint.querySelector("mimic");
      this.joints.set(joint.getAttribute("name") ?? "", {
        group,
        type: joint.getAttribute("type") ?? "fixed",
        axis: new THREE.Vector3(...numbers(joint.querySelector("axis")?.getAttribute("xyz") ?? null, [1, 0, 0])).normalize(),
        rest: { p: group.position.clone(), q: group.quaternion.clone() },
        mimic: m && {
          joint: m.getAttribute("joint") ?? "",
          multiplier: Number(m.getAttribute("multiplier") ?? 1),
          offset: Number(m.getAttribute("offset") ?? 0),
        },
      });
    }
    this.base = [...links.keys()].find((name) => !children.has(name)) ?? "";
    const root = links.get(this.base);
    if (root) this.object.add(root);
    this.object.matrixAutoUpdate = false;
  }

  set(values: Map<string, number>): void {
    for (const [name, joint] of this.joints) {
      let value = values.get(name);
      if (joint.mimic) {
        const other = values.get(joint.mimic.joint);
        if (other !== undefined) value = other * joint.mimic.multiplier + joint.mimic.offset;
      }
      if (value === undefined || !Number.isFinite(value)) continue;
      const { group, axis, rest } = joint;
      if (joint.type === "revolute" || joint.type === "continuous")
        group.quaternion.copy(rest.q).multiply(new THREE.Quaternion().setFromAxisAngle(axis, value));
      else if (joint.type === "prismatic")
        group.position.copy(rest.p).add(axis.clone().multiplyScalar(value).applyQuaternion(rest.q));
    }
  }
}

const SKIN = new THREE.MeshLambertMaterial({ color: 0xb9c2cc });

function shape(visual: Element): THREE.Mesh | null {
  const get = (tag: string, name: string) => Number(visual.querySelector(tag)?.getAttribute(name));
  if (visual.querySelector("box")) {
    const size = numbers(visual.querySelector("box")!.getAttribute("size"), [0.05, 0.05, 0.05]);
    return new THREE.Mesh(new THREE.BoxGeometry(...size), SKIN);
  }
  if (visual.querySelector("cylinder"))
    return new THREE.Mesh(new THREE.CylinderGeometry(get("cylinder", "radius"), get("cylinder", "radius"), get("cylinder", "length"), 20), SKIN);
  if (visual.querySelector("sphere"))
    return new THREE.Mesh(new THREE.SphereGeometry(get("sphere", "radius"), 20, 12), SKIN);
  return null;
}
