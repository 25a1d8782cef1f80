// The 3D scene: clouds, depth as points, camera frustums, trajectories, robot and boxes, in one
// frame; beside it, while a box is selected, its top, side and front views.

import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { commitBox, countPoints, current, look } from "./boxes";
import { CloudObject, CloudSource } from "./clouds";
import { colourOf, fit, h, theme } from "./dom";
import { Lens } from "./lens";
import { add, apply, corners, EDGES, heading, invert, moveBox, type Pose, qInv, qRotate, sub } from "./math";
import { drawSideViews, type SideView, sideViews, startSideDrag } from "./sideviews";
import type { Panel, Session } from "./session";
import { placeAt, putKeyframe } from "./tracks";
import type { Annotation, Box, StreamInfo, Track3D, Vec3 } from "./types";
import { Robot } from "./urdf";

const MOST_TRAJECTORY = 4000;
const SOFTWARE_BUDGET = 50_000;
const BUDGET = 1_000_000;

interface Joints {
  stream: string;
  names: string[];
  values: Float64Array;
}

export class ScenePanel implements Panel {
  readonly element: HTMLElement;
  readonly renderer: THREE.WebGLRenderer;
  private readonly scene = new THREE.Scene();
  private readonly camera = new THREE.PerspectiveCamera(55, 1, 0.02, 5000);
  private readonly controls: OrbitControls;
  private readonly canvas: HTMLCanvasElement;
  private readonly overlay: HTMLCanvasElement;
  private readonly info: HTMLElement;
  private readonly clouds: { stream: StreamInfo; frame: string; source: CloudSource; object: CloudObject; loading: number; failed: boolean }[] = [];
  private readonly frustums: { frame: string; stream: string; lines: THREE.LineSegments }[] = [];
  private readonly lines = new THREE.LineSegments(new THREE.BufferGeometry(), new THREE.LineBasicMaterial({ vertexColors: true }));
  private readonly trajectories: { frame: string; line: THREE.Line }[] = [];
  private robot: Robot | null = null;
  private joints: Joints[] = [];
  private origin: Vec3 = [0, 0, 0];
  private mode = 1;
  private key = "";
  private dirty = true;
  private views: SideView[] = [];
  private placedCamera = false;
  private counted = { key: "", text: "" };
  readonly software: boolean;
  frame: string;
  // Milliseconds of the last render, for measuring.
  lastRenderMs = 0;
  renders = 0;

  constructor(private readonly session: Session) {
    this.canvas = h("canvas", { class: "gl", "aria-label": "3D scene" });
    this.overlay = h("canvas", { class: "overlay", tabIndex: 0, "aria-label": "3D scene, labels" });
    this.info = h("span", { class: "delta" });
    const frames = session.frames.all();
    const cloud = session.cloudStreams().find((s) => s.kind === "sweep") ?? session.cloudStreams()[0];
    const start = cloud?.frame_id ?? session.sensorOf(session.cameraStreams()[0] ?? ({} as StreamInfo))?.frame_id;
    this.frame = start ? session.frames.root(start) : (frames[0] ?? "");
    const frameSelect = h("select", { "aria-label": "frame that stands still", onchange: () => this.setFrame(frameSelect.value) }, ...frames.map((name) => h("option", { value: name, selected: name === this.frame }, name)));
    const colourSelect = h(
      "select",
      { "aria-label": "colour of points", onchange: () => { this.mode = colourSelect.selectedIndex; this.dirty = true; } },
      ...["intensity", "height", "distance"].map((name, i) => h("option", { selected: i === this.mode }, name)),
    );
    this.element = h(
      "section",
      { class: "scene", "aria-label": "3D scene" },
      this.canvas,
      this.overlay,
      h("div", { class: "scene-bar" }, frameSelect, colourSelect, this.info),
    );
    this.renderer = new THREE.WebGLRenderer({ canvas: this.canvas, antialias: true, preserveDrawingBuffer: true, powerPreference: "high-performance" });
    const gl = this.renderer.getContext();
    const debug = gl.getExtension("WEBGL_debug_renderer_info");
    const name = debug ? String(gl.getParameter(debug.UNMASKED_RENDERER_WEBGL)) : "";
    this.software = /swiftshader|llvmpipe|software/i.test(name);
    // Software rendering costs about 0.3 µs a point: show fewer unless asked.
    const budget = session.preferences.budget ?? (this.software ? SOFTWARE_BUDGET : BUDGET);
    const budgetSelect = h(
      "select",
      { "aria-label": "most points shown", onchange: () => this.setBudget(Number(budgetSelect.value)) },
      ...[50_000, 200_000, 1_000_000].map((n) => h("option", { value: n, selected: n === budget }, n >= 1e6 ? "1 M points" : `${n / 1000} k points`)),
    );
    this.info.before(budgetSelect);
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.camera.up.set(0, 0, 1);
    this.controls = new OrbitControls(this.camera, this.overlay);
    this.controls.enableDamping = false;
    this.controls.addEventListener("change", () => { this.dirty = true; this.lookHere(); });
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x556677, 2.5), this.lines);
    this.lines.frustumCulled = false;
    for (const stream of session.cloudStreams()) {
      const frame = session.sensorOf(stream)?.frame_id ?? stream.frame_id ?? "";
      const object = new CloudObject(stream.name);
      this.scene.add(object.points);
      this.clouds.push({ stream, frame, source: new CloudSource(session.api, stream.name, budget), object, loading: -1, failed: false });
    }
    for (const stream of session.cameraStreams()) this.addFrustum(stream);
    void this.addTrajectories();
    void this.addRobot();
    this.setFrame(this.frame);
    this.overlay.addEventListener("pointerdown", (e) => this.down(e));
    this.overlay.addEventListener("dblclick", (e) => this.centreOn(e));
    this.overlay.addEventListener("pointerenter", () => { if (cloud) session.focus = cloud.name; });
  }

  get empty(): boolean {
    return !this.clouds.length && !this.frustums.length && !this.trajectories.length && !this.robot && !this.session.tracks().length;
  }

  setBudget(budget: number): void {
    this.session.preferences.budget = budget;
    for (const cloud of this.clouds) {
      cloud.source.setBudget(budget);
      cloud.object.shown = -1;
    }
    this.session.touch();
  }

  setFrame(frame: string): void {
    this.frame = frame;
    // Far from the origin float32 loses centimetres: the scene is drawn about where it begins.
    const first = this.clouds[0]?.frame ?? this.frustums[0]?.frame;
    const pose = first ? this.session.frames.transform(frame, first, 0) : null;
    this.origin = pose && Math.hypot(...pose.p) > 100 ? (pose.p.map(Math.round) as Vec3) : [0, 0, 0];
    this.placedCamera = false;
    this.dirty = true;
    this.session.touch();
  }

  // Pose of a frame in the scene's coordinates.
  private pose(frame: string, t: number): Pose | null {
    const pose = this.session.frames.transform(this.frame, frame, t);
    return pose && { p: sub(pose.p, this.origin), q: pose.q };
  }

  private toMatrix(pose: Pose, matrix: THREE.Matrix4): void {
    const [w, x, y, z] = pose.q;
    matrix.compose(new THREE.Vector3(...pose.p), new THREE.Quaternion(x, y, z, w), new THREE.Vector3(1, 1, 1));
  }

  private addFrustum(stream: StreamInfo): void {
    const sensor = this.session.sensorOf(stream);
    if (!sensor?.K) return;
    const lens = new Lens(sensor);
    const far = this.session.streams.some((s) => s.moves) ? 1.5 : 0.15;
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
    lines.matrixAutoUpdate = false;
    lines.frustumCulled = false;
    this.scene.add(lines);
    this.frustums.push({ frame: sensor.frame_id, stream: stream.name, lines });
  }

  private async addTrajectories(): Promise<void> {
    const { api } = this.session;
    for (const stream of this.session.streams) {
      if (!stream.position || !stream.frame_id || !stream.count) continue;
      const step = Math.max(1, Math.ceil(stream.count / MOST_TRAJECTORY));
      const data = await api.api.binary(`${api.data("values", stream.name, stream.position)}&step=${step}`);
      const values = new Float64Array(data, 8);
      const base = values.slice(0, 3);
      const positions = Float32Array.from(values, (v, i) => v - base[i % 3]);
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.BufferAttribute(positions, 3));
      const line = new THREE.Line(geometry, new THREE.LineBasicMaterial({ color: colourOf(`stream ${stream.name}`) }));
      line.matrixAutoUpdate = false;
      line.frustumCulled = false;
      line.userData.base = base;
      this.scene.add(line);
      this.trajectories.push({ frame: stream.frame_id, line });
      this.session.touch();
    }
  }

  private async addRobot(): Promise<void> {
    const { api } = this.session;
    for (const stream of this.session.streams.filter((s) => s.kind === "text" && s.count))
      try {
        const text = await (await api.api.blob(api.data("text", stream.name, 0))).text();
        if (!text.includes("<robot")) continue;
        this.robot = new Robot(text);
        this.scene.add(this.robot.object);
        break;
      } catch (error) {
        console.warn(`${stream.name}:`, error);
      }
    if (!this.robot) return;
    for (const stream of this.session.streams) {
      const field = stream.fields.position ?? stream.fields.data;
      const names = field?.channels;
      if (stream.kind !== "signal" || !names?.some((n) => this.robot!.joints.has(n)) || stream.count * names.length > 4e6) continue;
      const data = await api.api.binary(api.data("values", stream.name, stream.fields.position ? "position" : "data"));
      this.joints.push({ stream: stream.name, names, values: new Float64Array(data, 8) });
    }
    this.session.touch();
  }

  settled(): boolean {
    return !this.element.clientWidth || this.clouds.every((c) => c.failed || c.object.shown === (this.session.stamps.get(c.stream.name)?.nearest(this.session.clock.t) ?? -1));
  }

  update(): void {
    const { session } = this;
    if (!this.element.clientWidth) return;
    for (const cloud of this.clouds) {
      const want = session.stamps.get(cloud.stream.name)!.nearest(session.clock.t);
      if (want < 0 || want === cloud.object.shown) continue;
      const ready = cloud.source.peek(want);
      if (ready) {
        cloud.object.set(want, ready);
        this.dirty = true;
      } else if (cloud.loading < 0) {
        cloud.loading = want;
        cloud.source.get(want).then(
          () => { cloud.loading = -1; cloud.failed = false; },
          (error) => { cloud.loading = -1; cloud.failed = true; cloud.object.shown = want; session.say(`${cloud.stream.name}: ${error.message}`, "bad"); },
        );
      }
    }
    const key = `${session.clock.t} ${session.revision} ${this.element.clientWidth}x${this.element.clientHeight} ${theme().panel}`;
    if (key !== this.key) {
      this.key = key;
      this.dirty = true;
    }
    if (this.dirty) {
      this.dirty = false;
      this.render();
    }
  }

  // Boxes as they stand at the cursor, in scene coordinates.
  private boxes(): { layer: string; track: Track3D; box: Box; ghost: boolean; selected: boolean }[] {
    const { session } = this;
    const out = [];
    for (const { layer, item } of session.tracks()) {
      const placed = placeAt(item, session.clock.t, session.frames, session.tolerance(item));
      const selected = session.isSelected(item.id);
      if (!placed || (placed.ghost && !selected)) continue;
      const pose = this.pose(item.frame_id, session.clock.t);
      if (pose) out.push({ layer, track: item, box: moveBox(pose, placed.box), ghost: placed.ghost, selected });
    }
    return out;
  }

  private render(): void {
    const started = performance.now();
    const { session } = this;
    const { t } = session.clock;
    const width = this.element.clientWidth;
    const height = this.element.clientHeight;
    const size = this.renderer.getSize(new THREE.Vector2());
    if (size.x !== width || size.y !== height) this.renderer.setSize(width, height, false);
    this.scene.background = new THREE.Color(theme().panel);
    let far = 1;
    for (const cloud of this.clouds) {
      const stamps = session.stamps.get(cloud.stream.name)!;
      const pose = cloud.object.shown >= 0 ? this.pose(cloud.frame, stamps.ns[cloud.object.shown]) : null;
      cloud.object.points.visible = pose !== null && cloud.object.cloud !== null;
      if (!pose) continue;
      this.toMatrix(pose, cloud.object.points.matrix);
      cloud.object.points.matrixWorldNeedsUpdate = true;
      if (cloud.object.cloud) far = Math.max(far, cloud.object.cloud.step * 32_000);
      const sweep = cloud.stream.kind === "sweep";
      const ground = sweep ? pose.p[2] - 2.2 : 0;
      // In a camera's own frame height means nothing.
      const mode = this.mode === 1 && this.optical() ? 2 : this.mode;
      cloud.object.style(mode, (sweep ? 2 : 3) * this.renderer.getPixelRatio(), ground, ground + (sweep ? 4.5 : 0.6), sweep ? far : far * 1.5);
    }
    for (const f of this.frustums) {
      const stamps = session.stamps.get(f.stream)!;
      const i = stamps.nearest(t);
      const pose = this.pose(f.frame, i >= 0 ? stamps.ns[i] : t);
      f.lines.visible = pose !== null;
      if (pose) this.toMatrix(pose, f.lines.matrix);
      f.lines.matrixWorldNeedsUpdate = true;
    }
    for (const { frame, line } of this.trajectories) {
      const pose = this.pose(frame, t);
      line.visible = pose !== null;
      if (pose) this.toMatrix({ p: apply(pose, [...(line.userData.base as Float64Array)] as Vec3), q: pose.q }, line.matrix);
      line.matrixWorldNeedsUpdate = true;
    }
    if (this.robot) this.placeRobot(t);
    const boxes = this.boxes();
    this.drawBoxes(boxes);
    if (!this.placedCamera) this.placeCamera(boxes);
    const selected = boxes.find((b) => b.selected);
    this.views = selected && width > 260 ? sideViews(width, height, selected.box) : [];
    const main = this.views.length ? this.views[0].left : width;
    this.camera.aspect = main / height;
    this.camera.updateProjectionMatrix();
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
    this.drawOverlay(boxes, main);
    this.lastRenderMs = performance.now() - started;
    this.renders++;
    const shown = this.clouds.reduce((n, c) => n + (c.object.cloud?.count ?? 0), 0);
    const total = this.clouds.reduce((n, c) => n + (c.object.cloud?.total ?? 0), 0);
    const share = total ? `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} points` : "";
    this.info.textContent = share + (this.software ? " · software rendering" : "");
  }

  private placeRobot(t: number): void {
    const robot = this.robot!;
    const values = new Map<string, number>();
    for (const joints of this.joints) {
      const i = this.session.stamps.get(joints.stream)!.nearest(t);
      if (i >= 0) joints.names.forEach((name, k) => values.set(name, joints.values[i * joints.names.length + k]));
    }
    robot.set(values);
    const pose = this.pose(robot.base, t) ?? (this.session.frames.all().includes(robot.base) ? null : this.pose(this.frame, t));
    robot.object.visible = pose !== null;
    if (pose) this.toMatrix(pose, robot.object.matrix);
    robot.object.matrixWorldNeedsUpdate = true;
  }

  private drawBoxes(boxes: ReturnType<ScenePanel["boxes"]>): void {
    const points: number[] = [];
    const colours: number[] = [];
    for (const { track, box, ghost, selected } of boxes) {
      const colour = new THREE.Color(colourOf(track.label)).multiplyScalar(ghost ? 0.5 : 1);
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
    this.lines.geometry.dispose();
    this.lines.geometry = new THREE.BufferGeometry();
    this.lines.geometry.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
    this.lines.geometry.setAttribute("color", new THREE.Float32BufferAttribute(colours, 3));
  }

  // Whether the standing frame is a camera's own.
  private optical(): boolean {
    return this.session.cameraStreams().some((s) => this.session.sensorOf(s)?.frame_id === this.frame);
  }

  // From behind and above whatever there is.
  private placeCamera(boxes: ReturnType<ScenePanel["boxes"]>): void {
    const cloud = this.clouds.find((c) => c.object.cloud && c.object.points.visible);
    if (this.clouds.some((c) => !c.failed && c.object.shown < 0)) return;
    this.camera.up.set(0, this.optical() ? -1 : 0, this.optical() ? 0 : 1);
    this.controls.object = this.camera;
    if (cloud?.stream.kind === "sweep") {
      const pose = this.pose(cloud.frame, 0)!;
      const back = qRotate(pose.q, [-14, 0, 0]);
      this.controls.target.set(...add(pose.p, qRotate(pose.q, [6, 0, -1.5])));
      this.camera.position.set(pose.p[0] + back[0], pose.p[1] + back[1], pose.p[2] + 10);
    } else if (this.optical()) {
      // A frame that looks along z with y down: from behind and beside the camera.
      this.controls.target.set(0, 0.1, 0.7);
      this.camera.position.set(0.55, -0.55, -0.5);
    } else {
      const points: Vec3[] = boxes.flatMap((b) => corners(b.box));
      const bounds = new THREE.Box3();
      for (const p of points) bounds.expandByPoint(new THREE.Vector3(...p));
      for (const f of this.frustums) bounds.expandByPoint(new THREE.Vector3().setFromMatrixPosition(f.lines.matrix));
      for (const { line } of this.trajectories) {
        line.geometry.computeBoundingBox();
        bounds.union(line.geometry.boundingBox!.clone().applyMatrix4(line.matrix));
      }
      if (bounds.isEmpty()) bounds.set(new THREE.Vector3(-1, -1, 0), new THREE.Vector3(1, 1, 1));
      const centre = bounds.getCenter(new THREE.Vector3());
      const reach = Math.max(0.4, bounds.getSize(new THREE.Vector3()).length());
      this.controls.target.copy(centre);
      this.camera.position.set(centre.x + 0.55 * reach, centre.y - 0.8 * reach, centre.z + 0.55 * reach);
    }
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

  private drawOverlay(boxes: ReturnType<ScenePanel["boxes"]>, main: number): void {
    const g = fit(this.overlay);
    if (!g) return;
    const height = this.overlay.clientHeight;
    g.font = "12px system-ui";
    g.save();
    g.beginPath();
    g.rect(0, 0, main, height);
    g.clip();
    for (const { track, box, selected } of boxes) {
      const top = add(box.center_m, [0, 0, Math.max(...box.size_lwh_m) / 2]);
      const at = this.project(top, main, height);
      if (!at) continue;
      const text = selected ? `${track.label} ${track.object_id}` : track.label;
      const wide = g.measureText(text).width;
      g.fillStyle = "rgba(0,0,0,0.6)";
      g.fillRect(at[0] - wide / 2 - 3, at[1] - 18, wide + 6, 15);
      g.fillStyle = selected ? "#fff" : colourOf(track.label);
      g.fillText(text, at[0] - wide / 2, at[1] - 7);
    }
    g.restore();
    const chosen = boxes.find((b) => b.selected);
    if (chosen && this.views.length) drawSideViews(g, this.views, chosen.box, colourOf(chosen.track.label), this.count(chosen.track));
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

  private ray(e: PointerEvent | MouseEvent, main: number): { from: Vec3; along: Vec3 } {
    const box = this.overlay.getBoundingClientRect();
    const x = ((e.clientX - box.left) / main) * 2 - 1;
    const y = 1 - ((e.clientY - box.top) / box.height) * 2;
    const v = new THREE.Vector3(x, y, 0.5).unproject(this.camera).sub(this.camera.position).normalize();
    const c = this.camera.position;
    return { from: [c.x, c.y, c.z], along: [v.x, v.y, v.z] };
  }

  // Selecting, and moving the selected box on the ground (Shift: up and down).
  private down(e: PointerEvent): void {
    if (e.button !== 0) return;
    this.overlay.focus();
    const { session } = this;
    const rect = this.overlay.getBoundingClientRect();
    const [x, y] = [e.clientX - rect.left, e.clientY - rect.top];
    const boxes = this.boxes();
    const main = this.views.length ? this.views[0].left : rect.width;
    const chosen = boxes.find((b) => b.selected);
    if (x > main) {
      this.controls.enabled = false;
      const view = this.views.find((v) => x >= v.left && y >= v.top && y < v.top + v.height);
      if (view && chosen && chosen.layer === session.layers.active)
        startSideDrag(this.overlay, view, chosen.box, e, (box, done) => this.propose(chosen.track, box, done));
      window.addEventListener("pointerup", () => (this.controls.enabled = true), { once: true });
      return;
    }
    const ray = this.ray(e, main);
    let best: (typeof boxes)[number] | null = null;
    let nearest = Infinity;
    for (const candidate of boxes) {
      const distance = hitBox(candidate.box, ray.from, ray.along);
      if (distance !== null && distance < nearest) [nearest, best] = [distance, candidate];
    }
    if (!best) {
      // A plain click beside everything selects nothing; a drag turns the view.
      const still = (up: PointerEvent) => {
        if (Math.hypot(up.clientX - e.clientX, up.clientY - e.clientY) < 3 && session.selection?.collection === "tracks_3d") session.select(null);
      };
      window.addEventListener("pointerup", still, { once: true });
      return;
    }
    if (!best.selected) return session.select({ layer: best.layer, collection: best.track.id.includes("@") ? "boxes_3d" : "tracks_3d", id: best.track.id });
    if (best.layer !== session.layers.active) return;
    this.controls.enabled = false;
    const { track, box } = best;
    const at = add(ray.from, ray.along.map((v) => v * nearest) as Vec3);
    let moved: Box | null = null;
    const onMove = (event: PointerEvent) => {
      const r = this.ray(event, main);
      // Shift: on the upright plane that faces the viewer.
      const face: Vec3 = event.shiftKey ? normal([ray.along[0], ray.along[1], 0]) : [0, 0, 1];
      const slope = r.along[0] * face[0] + r.along[1] * face[1] + r.along[2] * face[2];
      const reach = ((at[0] - r.from[0]) * face[0] + (at[1] - r.from[1]) * face[1] + (at[2] - r.from[2]) * face[2]) / slope;
      if (!(reach > 0) || reach > 500) return;
      const delta = sub(add(r.from, r.along.map((v) => v * reach) as Vec3), at);
      moved = { ...box, center_m: add(box.center_m, event.shiftKey ? [0, 0, delta[2]] : [delta[0], delta[1], 0]) };
      this.propose(track, moved, false);
    };
    const onEnd = () => {
      this.controls.enabled = true;
      window.removeEventListener("pointermove", onMove);
      if (moved) this.propose(track, moved, true);
    };
    window.addEventListener("pointermove", onMove);
    window.addEventListener("pointerup", onEnd, { once: true });
  }

  // A box in scene coordinates becomes the track's keyframe: previewed, then journalled.
  private propose(track: Track3D, box: Box, done: boolean): void {
    const { session } = this;
    const at = current(session);
    const pose = this.pose(track.frame_id, session.clock.t);
    if (!at || !pose) return;
    const base = (session.layers.get(session.layers.active, "tracks_3d", track.id) as Track3D | undefined) ?? track;
    let local = moveBox(invert(pose), box);
    // The keyframe is set at the cloud's stamp: what the object did since is taken off again.
    const then = placeAt(base, at.stamp, session.frames);
    const now = placeAt(base, session.clock.t, session.frames, session.tolerance(base));
    if (then && now && at.stamp !== session.clock.t) local = { ...local, center_m: add(local.center_m, sub(then.box.center_m, now.box.center_m)) };
    if (done) commitBox(session, base, at.stamp, local);
    else session.layers.preview("tracks_3d", track.id, putKeyframe(base, at.stamp, local) as Annotation);
  }

  // Double click: look at the point under the pointer.
  private centreOn(e: MouseEvent): void {
    const rect = this.overlay.getBoundingClientRect();
    const main = this.views.length ? this.views[0].left : rect.width;
    if (e.clientX - rect.left > main) return;
    const { from, along } = this.ray(e, main);
    let best: Vec3 | null = null;
    let least = 0.02;
    for (const { object, frame, stream } of this.clouds) {
      const cloud = object.cloud;
      const pose = cloud && this.pose(frame, this.session.stamps.get(stream.name)!.ns[object.shown]);
      if (!cloud || !pose) continue;
      for (let k = 0; k < cloud.count; k++) {
        const p = apply(pose, [0, 1, 2].map((a) => cloud.xyz[3 * k + a] * cloud.step + cloud.origin[a]) as Vec3);
        const d = sub(p, from);
        const reach = d[0] * along[0] + d[1] * along[1] + d[2] * along[2];
        if (reach < 0.05) continue;
        const angle = Math.hypot(d[0] - along[0] * reach, d[1] - along[1] * reach, d[2] - along[2] * reach) / reach;
        if (angle < least) [least, best] = [angle, p];
      }
    }
    if (!best) return;
    this.controls.target.set(...best);
    this.controls.update();
    this.lookHere();
    this.dirty = true;
  }
}

function normal(v: Vec3): Vec3 {
  const n = Math.hypot(...v) || 1;
  return [v[0] / n, v[1] / n, v[2] / n];
}

// Distance along a ray to a box, null when it is missed.
function hitBox(box: Box, from: Vec3, along: Vec3): number | null {
  const q = qInv(box.quaternion_wxyz);
  const o = qRotate(q, sub(from, box.center_m));
  const d = qRotate(q, along);
  let [enter, leave] = [-Infinity, Infinity];
  for (let k = 0; k < 3; k++) {
    const half = Math.max(box.size_lwh_m[k] / 2, 0.01);
    const [a, b] = [(-half - o[k]) / d[k], (half - o[k]) / d[k]];
    enter = Math.max(enter, Math.min(a, b));
    leave = Math.min(leave, Math.max(a, b));
  }
  return leave >= Math.max(enter, 0) ? Math.max(enter, 0) : null;
}

