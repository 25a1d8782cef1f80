// The 3D scene: clouds, depth as points, camera frustums, trajectories, robot and boxes, in one
// frame; beside it, while a box is selected, its top, side and front views.

import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { countPoints, current, look } from "./boxes";
import { CloudLayer } from "./cloudlayer";
import { fit, followPointer, h, lineColourOf, Size, theme } from "./dom";
import { add, moveBox, type Pose, sub } from "./math";
import { BoxLines, drawNames, type SceneBox } from "./sceneboxes";
import { pickBox, proposeBox, type Ray, startGroundDrag } from "./scenedrag";
import { SceneCanvas } from "./scenecanvas";
import { Scenery } from "./scenery";
import type { Panel, Session } from "./session";
import { drawSideViews, type SideView, sideViews, startSideDrag, zoomSideViews } from "./sideviews";
import { placeAt } from "./tracks";
import { viewpoint } from "./viewpoint";
import type { Box, StreamInfo, Track3D, Vec3 } from "./types";

const SOFTWARE_BUDGET = 50_000;
const BUDGETS = [50_000, 200_000, 1_000_000];
const MERGED = [1, 5, 15, 41];
const COLOURS = ["intensity", "height", "distance"];

export class ScenePanel implements Panel {
  readonly element: HTMLElement;
  readonly renderer: THREE.WebGLRenderer;
  private readonly scene = new THREE.Scene();
  private readonly camera = new THREE.PerspectiveCamera(55, 1, 0.02, 5000);
  private readonly controls: OrbitControls;
  private readonly canvas = new SceneCanvas();
  private readonly overlay: HTMLCanvasElement;
  private readonly info: HTMLElement;
  private readonly bar: HTMLElement;
  private readonly size: Size;
  readonly clouds: CloudLayer[];
  private readonly scenery: Scenery;
  private readonly lines = new BoxLines();
  private origin: Vec3 = [0, 0, 0];
  private mode = 1;
  private key = "";
  private dirty = true;
  private views: SideView[] = [];
  private placedCamera = false;
  private turned = false; // by hand
  private counted = { key: "", text: "" };
  private limits: { budget: number; merged: number };
  readonly software: boolean;
  // Called when trajectories or a robot have come into a scene that may have been empty.
  filled: () => void = () => {};
  frame: string;

  constructor(private readonly session: Session) {
    this.overlay = h("canvas", { class: "overlay", tabIndex: 0, "aria-label": "3D scene, labels" });
    this.info = h("span", { class: "delta" });
    this.software = this.canvas.software;
    this.renderer = this.canvas.renderer;
    this.canvas.element.className = "gl";
    const frames = session.frames.all();
    const streams = session.cloudStreams();
    const cloud = streams.find((s) => s.kind === "sweep") ?? streams[0];
    const start = cloud?.frame_id ?? session.sensorOf(session.cameraStreams()[0] ?? ({} as StreamInfo))?.frame_id;
    this.frame = start ? session.frames.root(start) : (frames[0] ?? "");
    const budget = session.preferences.budget ?? (this.software ? SOFTWARE_BUDGET : BUDGETS.at(-1)!);
    this.limits = { budget, merged: 1 };
    this.clouds = streams.map((stream) => new CloudLayer(session, stream, budget, 1));
    this.scenery = new Scenery(session, () => {
      if (!this.turned) this.placedCamera = false;
      session.touch();
      this.filled();
    });
    this.element = h("section", { class: "scene", "aria-label": "3D scene" }, this.canvas.element, this.overlay, (this.bar = this.controlsBar(frames)));
    this.size = new Size(this.element);
    this.camera.up.set(0, 0, 1);
    this.controls = new OrbitControls(this.camera, this.overlay);
    this.controls.enableDamping = false;
    this.controls.addEventListener("start", () => (this.turned = true));
    this.controls.addEventListener("change", () => { this.dirty = true; this.lookHere(); });
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x556677, 2.5), this.lines.object, this.scenery.object, ...this.clouds.map((c) => c.group));
    this.setFrame(this.frame);
    this.overlay.addEventListener("pointerdown", (e) => this.down(e));
    this.overlay.addEventListener("dblclick", (e) => this.centreOn(e));
    this.overlay.addEventListener("pointerenter", () => { if (cloud) session.focus = cloud.name; });
    // Before the controls of the perspective view see it.
    this.element.addEventListener("wheel", (e) => this.wheel(e), { capture: true, passive: false });
  }

  private controlsBar(frames: string[]): HTMLElement {
    const select = <T>(title: string, options: T[], now: T, name: (option: T) => string, set: (option: T) => void) => {
      const element = h("select", { "aria-label": title, title, onchange: () => set(options[element.selectedIndex]) }, ...options.map((o) => h("option", { selected: o === now }, name(o))));
      return element;
    };
    const parts: HTMLElement[] = [select("frame that stands still", frames, this.frame, (f) => f, (f) => this.setFrame(f))];
    if (this.clouds.length) {
      const points = (n: number) => (n >= 1e6 ? "1 M points" : `${n / 1000} k points`);
      parts.push(
        select("colour of points", COLOURS, COLOURS[this.mode], (c) => c, (c) => { this.mode = COLOURS.indexOf(c); this.dirty = true; }),
        select("most points shown", BUDGETS, this.limits.budget, points, (n) => this.limit({ ...this.limits, budget: n })),
        select("samples merged", MERGED, 1, (n) => (n === 1 ? "1 cloud" : `${n} clouds merged`), (n) => this.limit({ ...this.limits, merged: n })),
      );
    }
    return h("div", { class: "scene-bar" }, ...parts, this.info);
  }

  get empty(): boolean {
    return !this.clouds.length && this.scenery.empty && !this.session.tracks().length;
  }

  // How many points are shown at most, and of how many samples around the cursor together: what
  // stands still is seen best in many, what moves leaves a trace.
  limit(limits: { budget: number; merged: number }): void {
    this.limits = limits;
    this.session.preferences.budget = limits.budget;
    for (const cloud of this.clouds) cloud.limit(limits.budget, limits.merged);
    this.session.touch();
  }

  setFrame(frame: string): void {
    this.frame = frame;
    // Far from the origin float32 loses centimetres: the scene is drawn about where it begins.
    const first = this.clouds[0]?.frame ?? this.scenery.frame;
    const pose = first ? this.session.frames.transform(frame, first, 0) : null;
    this.origin = pose && Math.hypot(...pose.p) > 100 ? (pose.p.map(Math.round) as Vec3) : [0, 0, 0];
    this.placedCamera = false;
    this.dirty = true;
    this.session.touch();
  }

  // Pose of a frame in the scene's coordinates.
  private readonly pose = (frame: string, t: number): Pose | null => {
    const pose = this.session.frames.transform(this.frame, frame, t);
    return pose && { p: sub(pose.p, this.origin), q: pose.q };
  };

  settled(): boolean {
    return !this.size.width || (!this.dirty && !this.canvas.busy && this.clouds.every((cloud) => cloud.settled(this.session.clock.t)));
  }

  update(): void {
    const { session } = this;
    const { width, height } = this.size;
    if (!width) return;
    for (const cloud of this.clouds) if (cloud.load(session.clock.t)) this.dirty = true;
    const key = `${session.clock.t} ${session.revision} ${width}x${height} ${theme().panel}`;
    if (key !== this.key) {
      this.key = key;
      this.dirty = true;
    }
    if (!this.canvas.busy && this.dirty) {
      this.dirty = false;
      this.render();
    }
  }

  private boxes(): SceneBox[] {
    const { session } = this;
    const out: SceneBox[] = [];
    for (const { layer, item, collection } of session.tracks()) {
      const placed = placeAt(item, session.clock.t, session.frames, session.tolerance(item));
      const selected = session.isSelected(item.id);
      if (!placed || (placed.ghost && !selected)) continue;
      const pose = this.pose(item.frame_id, session.clock.t);
      if (pose) out.push({ layer, collection, track: item, box: moveBox(pose, placed.box), ghost: placed.ghost, selected });
    }
    return out;
  }

  private render(): void {
    const { t } = this.session.clock;
    const { width, height } = this.size;
    this.canvas.resize(width, height);
    this.scene.background = new THREE.Color(theme().panel);
    // In a camera's own frame height means nothing.
    const mode = this.mode === 1 && this.optical() ? 2 : this.mode;
    for (const cloud of this.clouds) {
      cloud.place(t, this.pose);
      cloud.style(mode, this.renderer.getPixelRatio());
    }
    this.scenery.place(t, this.pose, this.frame);
    const boxes = this.boxes();
    this.lines.set(boxes);
    if (!this.placedCamera) this.placeCamera(boxes);
    const selected = boxes.find((b) => b.selected);
    this.views = selected && width > 260 ? sideViews(width, height, selected.box) : [];
    const main = this.views.length ? this.views[0].left : width;
    this.camera.aspect = main / height;
    this.camera.updateProjectionMatrix();
    this.bar.style.maxWidth = `${main - 12}px`;
    this.renderer.setScissorTest(true);
    this.renderer.setViewport(0, 0, main, height);
    this.renderer.setScissor(0, 0, main, height);
    this.renderer.render(this.scene, this.camera);
    for (const view of this.views) {
      const bottom = height - view.top - view.height;
      this.renderer.setViewport(view.left, bottom, view.width, view.height);
      this.renderer.setScissor(view.left, bottom, view.width, view.height);
      this.renderer.render(this.scene, view.camera);
    }
    this.renderer.setScissorTest(false);
    this.canvas.show();
    this.drawOverlay(boxes, main);
    const clouds = this.clouds.flatMap((c) => c.clouds());
    const shown = clouds.reduce((n, c) => n + c.count, 0);
    const total = clouds.reduce((n, c) => n + c.total, 0);
    const share = total ? `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} points` : "";
    this.info.textContent = share + (this.software ? " · software rendering" : "");
  }

  // Whether the standing frame is a camera's own.
  private optical(): boolean {
    return this.session.cameraStreams().some((s) => this.session.sensorOf(s)?.frame_id === this.frame);
  }

  private placeCamera(boxes: SceneBox[]): void {
    const { t, duration } = this.session.clock;
    if (!this.clouds.every((c) => c.settled(t))) return;
    const { position, target, up } = viewpoint(this.clouds, boxes, this.scenery, this.pose, duration, this.optical());
    this.camera.up.set(...up);
    this.camera.position.set(...position);
    this.controls.target.set(...target);
    this.controls.object = this.camera;
    this.placedCamera = true;
    this.controls.update();
    this.lookHere();
  }

  private lookHere(): void {
    const target = this.controls.target;
    look.frame = this.frame;
    look.point = add([target.x, target.y, target.z], this.origin);
  }

  private project(p: Vec3, main: number, height: number): [number, number] | null {
    const v = new THREE.Vector3(...p).project(this.camera);
    return v.z < 1 ? [((v.x + 1) / 2) * main, ((1 - v.y) / 2) * height] : null;
  }

  private drawOverlay(boxes: SceneBox[], main: number): void {
    const g = fit(this.overlay, this.size);
    if (!g) return;
    const { height } = this.size;
    drawNames(g, boxes, main, height, (p) => this.project(p, main, height));
    const chosen = boxes.find((b) => b.selected);
    if (chosen && this.views.length) drawSideViews(g, this.views, chosen.box, lineColourOf(chosen.track.label), this.count(chosen.track));
  }

  // "123 points", asked from the server when box or sample changed.
  private count(track: Track3D): string {
    const { session } = this;
    const at = current(session);
    const key = `${JSON.stringify(at?.box)} ${session.clock.t}`;
    if (key !== this.counted.key && this.clouds.length) {
      this.counted = { key, text: this.counted.text };
      countPoints(session, track, session.clock.t).then(
        (n) => {
          if (this.counted.key !== key) return;
          this.counted.text = n === null ? "" : `${n.toLocaleString("en")} points inside`;
          this.dirty = true;
        },
        () => {},
      );
    }
    return this.counted.text;
  }

  private ray(e: MouseEvent, main: number): Ray {
    const box = this.overlay.getBoundingClientRect();
    const x = ((e.clientX - box.left) / main) * 2 - 1;
    const y = 1 - ((e.clientY - box.top) / box.height) * 2;
    const v = new THREE.Vector3(x, y, 0.5).unproject(this.camera).sub(this.camera.position).normalize();
    const c = this.camera.position;
    return { from: [c.x, c.y, c.z], along: [v.x, v.y, v.z] };
  }

  // Where the perspective view ends and the side views begin.
  private get main(): number {
    return this.views.length ? this.views[0].left : this.size.width;
  }

  private wheel(e: WheelEvent): void {
    if (e.clientX - this.overlay.getBoundingClientRect().left <= this.main) return;
    e.preventDefault();
    e.stopPropagation();
    zoomSideViews(Math.exp(-e.deltaY / 400));
    this.dirty = true;
  }

  // Selecting, and moving the selected box on the ground (Shift: up and down).
  private down(e: PointerEvent): void {
    if (e.button !== 0) return;
    this.overlay.focus();
    const { session, main } = this;
    const rect = this.overlay.getBoundingClientRect();
    const [x, y] = [e.clientX - rect.left, e.clientY - rect.top];
    const boxes = this.boxes();
    const hold = () => {
      this.controls.enabled = false;
      followPointer(window, () => {}, () => (this.controls.enabled = true));
    };
    const propose = (b: SceneBox) => (box: Box, done: boolean) => {
      const pose = this.pose(b.track.frame_id, session.clock.t);
      if (pose) proposeBox(session, b.track, pose, box, done);
    };
    if (x > main) {
      hold();
      const view = this.views.find((v) => x >= v.left && y >= v.top && y < v.top + v.height);
      const chosen = boxes.find((b) => b.selected);
      if (view && chosen && chosen.layer === session.layers.active) startSideDrag(this.overlay, view, chosen.box, e, propose(chosen));
      return;
    }
    const ray = this.ray(e, main);
    const hit = pickBox(boxes, ray);
    if (!hit) {
      // A plain click beside everything selects nothing; a drag turns the view.
      const still = (up: PointerEvent) => {
        if (Math.hypot(up.clientX - e.clientX, up.clientY - e.clientY) < 3 && session.selection?.collection === "tracks_3d") session.select(null);
      };
      window.addEventListener("pointerup", still, { once: true });
      return;
    }
    if (!hit.box.selected) return session.select({ layer: hit.box.layer, collection: hit.box.collection, id: hit.box.track.id });
    if (hit.box.layer !== session.layers.active) return;
    hold();
    startGroundDrag(hit.box.box, ray, hit.distance, (event) => this.ray(event, main), propose(hit.box));
  }

  // Double click: look at the point under the pointer.
  private centreOn(e: MouseEvent): void {
    const { main } = this;
    if (e.clientX - this.overlay.getBoundingClientRect().left > main) return;
    const { from, along } = this.ray(e, main);
    let best: Vec3 | null = null;
    let least = 0.02;
    for (const cloud of this.clouds)
      cloud.eachPoint((x, y, z) => {
        const d: Vec3 = [x - from[0], y - from[1], z - from[2]];
        const reach = d[0] * along[0] + d[1] * along[1] + d[2] * along[2];
        if (reach < 0.05) return;
        const angle = Math.hypot(d[0] - along[0] * reach, d[1] - along[1] * reach, d[2] - along[2] * reach) / reach;
        if (angle < least) [least, best] = [angle, [x, y, z]];
      });
    if (!best) return;
    this.controls.target.set(...(best as Vec3));
    this.controls.update();
    this.lookHere();
    this.dirty = true;
  }
}
