// The camera grid: for every image stream the frame nearest to the cursor by its own stamps, with
// the 3D boxes of all visible layers projected at that frame's exposure.

import { RETRY_MS } from "./api";
import { startImageDrag } from "./imagedrag";
import { colourOf, deviation, fit, h, Size, theme } from "./dom";
import { type FrameSource, Pictures } from "./framesource";
import { Lens, type Pixel } from "./lens";
import { apply, corners, EDGES, heading } from "./math";
import type { Panel, Session } from "./session";
import type { Stamps } from "./stamps";
import { placeAt } from "./tracks";
import type { StreamInfo, Vec3 } from "./types";

const PREFETCH = 3;

export class CameraTile {
  readonly element: HTMLElement;
  readonly image: HTMLCanvasElement;
  readonly overlay: HTMLCanvasElement;
  readonly lens: Lens | null;
  readonly frame: string;
  shown = -1;
  wanted = -1;
  private readonly picture: CanvasRenderingContext2D;
  private readonly label: HTMLElement;
  private readonly delta: HTMLElement;
  private readonly stamps: Stamps;
  private readonly source: FrameSource;
  private readonly size: Size;
  private loading = -1;
  // Why a sample is not shown, and from when on it may be asked for again.
  private failed: { sample: number; why: string; retryAt: number } | null = null;
  private how = "";
  private told = "";
  private drawnKey = "";

  constructor(
    private readonly session: Session,
    readonly stream: StreamInfo,
    pictures: Pictures,
  ) {
    this.source = pictures.open(stream);
    this.stamps = session.stamps.get(stream.name)!;
    const sensor = session.sensorOf(stream);
    this.lens = sensor?.K && stream.kind === "image" ? new Lens(sensor) : null;
    this.frame = sensor?.frame_id ?? stream.frame_id ?? "";
    this.image = h("canvas", { class: "frame", width: 4, height: 3 });
    this.picture = this.image.getContext("2d", { alpha: false })!;
    this.overlay = h("canvas", { class: "overlay" });
    this.label = h("span", { class: "name" }, stream.name);
    this.delta = h("span", { class: "delta", title: "frame stamp minus cursor" });
    this.element = h(
      "figure",
      {
        class: "camera",
        tabIndex: 0,
        "data-stream": stream.name,
        "aria-label": `camera ${stream.name}`,
        onpointerenter: () => (session.focus = stream.name),
        onfocus: () => (session.focus = stream.name),
      },
      this.image,
      this.overlay,
      h("figcaption", {}, this.label, this.delta),
    );
    this.overlay.addEventListener("pointerdown", (event) => startImageDrag(session, this, event));
    this.element.addEventListener("dblclick", () => this.enlarge());
    this.size = new Size(this.overlay);
  }

  // Large, or as the others.
  enlarge(): void {
    this.element.classList.toggle("large");
    this.element.scrollIntoView({ block: "nearest" });
  }

  // Stamp of the frame on screen; the cursor while there is none.
  get stamp(): number {
    return this.shown >= 0 ? this.stamps.ns[this.shown] : this.session.clock.t;
  }

  settled(): boolean {
    return this.shown === this.wanted || this.failed?.sample === this.wanted || !this.stamps.length;
  }

  // Shows the frame of the cursor, or asks for it. Nothing here is slow or waits for a layout.
  follow(): void {
    const { clock } = this.session;
    this.wanted = this.stamps.nearest(clock.t);
    if (this.wanted >= 0 && this.wanted !== this.shown) {
      const ready = this.source.peek(this.wanted);
      if (ready) this.show(this.wanted, ready);
      else if (this.loading < 0 && !this.waits()) this.load(this.wanted);
    }
    if (clock.playing && this.wanted >= 0 && !this.failed) for (let k = 1; k <= PREFETCH; k++) this.source.prefetch(this.wanted + k);
  }

  private waits(): boolean {
    return this.failed?.sample === this.wanted && performance.now() < this.failed.retryAt;
  }

  update(): void {
    this.follow();
    const key = `${this.shown} ${this.session.revision} ${this.size.width}x${this.size.height} ${this.failed?.why}`;
    if (key !== this.drawnKey) {
      this.drawnKey = key;
      this.drawOverlay();
    }
    this.element.classList.toggle("focus", this.session.focus === this.stream.name);
    this.readout();
  }

  private load(i: number): void {
    this.loading = i;
    this.source.get(i).then(
      (frame) => {
        this.loading = -1;
        // While playing, a frame that comes late is better than none; when paused only the right one.
        if (i === this.wanted || this.session.clock.playing) this.show(i, frame);
        else this.follow();
      },
      (error) => {
        this.loading = -1;
        this.failed = { sample: i, why: String(error.message ?? error), retryAt: performance.now() + RETRY_MS };
        this.shown = -1;
        this.picture.clearRect(0, 0, this.image.width, this.image.height);
      },
    );
  }

  private show(i: number, frame: ImageBitmap): void {
    if (this.image.width !== frame.width || this.image.height !== frame.height) {
      this.image.width = frame.width;
      this.image.height = frame.height;
    }
    this.picture.drawImage(frame, 0, 0);
    this.shown = i;
    this.failed = null;
    if (this.how !== this.source.how) {
      this.how = this.source.how;
      this.label.title = `${this.stream.encoding ?? this.stream.kind}, shown through ${this.how}. A double click (Z) makes it large.`;
    }
  }

  private readout(): void {
    const off = this.shown >= 0 ? this.stamp - this.session.clock.t : NaN;
    const text = this.shown < 0 ? "no frame" : `#${this.shown}  Δ ${deviation(off)}`;
    if (this.told === text) return;
    this.delta.textContent = this.told = text;
    this.delta.classList.toggle("far", !(Math.abs(off) <= 1.5 * (this.stamps.period || Infinity)));
  }

  // Where the image lies inside the overlay: it keeps its aspect and is centred.
  fitted(): { scale: number; x: number; y: number } {
    const { width: w, height: hgt } = this.size;
    const scale = Math.min(w / this.image.width, hgt / this.image.height) || 1;
    return { scale, x: (w - this.image.width * scale) / 2, y: (hgt - this.image.height * scale) / 2 };
  }

  // Pixel of the calibrated image (integer at pixel centres) to the overlay's CSS pixels.
  toScreen([u, v]: Pixel): Pixel {
    const { scale, x, y } = this.fitted();
    const s = this.lens ? this.image.width / this.lens.width : 1;
    return [x + (u + 0.5) * s * scale, y + (v + 0.5) * s * scale];
  }

  toPixel(sx: number, sy: number): Pixel {
    const { scale, x, y } = this.fitted();
    const s = this.lens ? this.image.width / this.lens.width : 1;
    return [(sx - x) / (s * scale) - 0.5, (sy - y) / (s * scale) - 0.5];
  }

  // Projected corners of a track's box at this frame, for hit testing, dragging and tests.
  boxes(): { layer: string; id: string; label: string; corners: (Pixel | null)[]; lines: Pixel[][]; arrow: Pixel[] | null; selected: boolean; ghost: boolean; keyframe: boolean }[] {
    if (!this.lens) return [];
    const out = [];
    for (const { layer, item } of this.session.tracks()) {
      const placed = placeAt(item, this.stamp, this.session.frames, this.session.tolerance(item));
      const selected = this.session.isSelected(item.id);
      if (!placed || (placed.ghost && !selected)) continue;
      const pose = this.session.frames.transform(this.frame, item.frame_id, this.stamp);
      if (!pose) continue;
      const points = corners(placed.box).map((c) => apply(pose, c));
      const lines = EDGES.map(([i, j]) => this.lens!.segment(points[i], points[j])).filter(
        (line): line is Pixel[] => line !== null,
      );
      if (!lines.length) continue;
      const [tail, tip] = heading(placed.box).map((c) => apply(pose, c)) as [Vec3, Vec3];
      out.push({
        layer,
        id: item.id,
        label: item.label,
        corners: points.map((p) => this.lens!.project(p)),
        lines,
        arrow: this.lens.segment(tail, tip),
        selected,
        ghost: placed.ghost,
        keyframe: placed.keyframe,
      });
    }
    return out;
  }

  private drawOverlay(): void {
    const g = fit(this.overlay, this.size);
    if (!g) return;
    const { text, bad } = theme();
    if (this.failed) {
      g.fillStyle = bad;
      g.font = "12px system-ui";
      g.fillText(this.failed.why.slice(0, 80), 8, 16);
      return;
    }
    if (this.shown < 0) return;
    const { scale, x, y } = this.fitted();
    g.save();
    g.beginPath();
    g.rect(x, y, this.image.width * scale, this.image.height * scale);
    g.clip();
    for (const box of this.boxes()) {
      const stroke = (lines: Pixel[][], colour: string, width: number) => {
        g.strokeStyle = colour;
        g.lineWidth = width;
        g.beginPath();
        for (const line of lines)
          line.forEach((p, k) => {
            const [sx, sy] = this.toScreen(p);
            if (k) g.lineTo(sx, sy);
            else g.moveTo(sx, sy);
          });
        g.stroke();
      };
      g.setLineDash(box.ghost ? [4, 4] : []);
      const lines = box.arrow ? [...box.lines, box.arrow] : box.lines;
      // A dark seam keeps lines readable on any picture.
      stroke(lines, "rgba(0,0,0,0.65)", box.selected ? 5 : 3.5);
      stroke(lines, colourOf(box.label), box.selected ? 2.5 : 1.5);
      g.setLineDash([]);
      const top = box.lines.flat().reduce((a, b) => (b[1] < a[1] ? b : a));
      const [tx, ty] = this.toScreen(top);
      const caption = box.selected ? `${box.label}${box.keyframe ? " ◆" : ""}` : box.label;
      g.font = `${box.selected ? "600 " : ""}12px system-ui`;
      const wide = g.measureText(caption).width;
      g.fillStyle = "rgba(0,0,0,0.7)";
      g.fillRect(tx - 3, ty - 17, wide + 6, 16);
      g.fillStyle = box.selected ? "#ffffff" : colourOf(box.label);
      g.fillText(caption, tx, ty - 5);
    }
    g.restore();
    if (document.activeElement === this.element) {
      g.strokeStyle = text;
      g.strokeRect(0.5, 0.5, this.size.width - 1, this.size.height - 1);
    }
  }
}

export class CameraPanel implements Panel {
  readonly element: HTMLElement;
  readonly tiles: CameraTile[];
  private readonly size: Size;

  constructor(session: Session) {
    const pictures = session.streams.filter((s) => s.kind === "image" || s.kind === "depth");
    const worker = new Pictures(session.api);
    this.tiles = pictures.map((stream) => new CameraTile(session, stream, worker));
    this.element = h("section", { class: "cameras", "aria-label": "cameras" });
    this.element.append(...this.tiles.map((tile) => tile.element));
    if (!pictures.length) this.element.append(h("p", { class: "empty" }, "no cameras in this episode"));
    this.size = new Size(this.element, () => this.arrange());
    // Asked for at once, not with the next animation frame.
    session.clock.onJump(() => {
      if (!this.hidden) for (const tile of this.tiles) tile.follow();
    });
  }

  // As many columns as make the pictures largest.
  private arrange(): void {
    const n = this.tiles.length;
    const { width: w, height: hgt } = this.size;
    let best = 1;
    let most = 0;
    for (let columns = 1; columns <= n; columns++) {
      const rows = Math.ceil(n / columns);
      const size = Math.min(w / columns / 4, hgt / rows / 3);
      if (size > most) [most, best] = [size, columns];
    }
    this.element.style.gridTemplateColumns = `repeat(${best}, minmax(0, 1fr))`;
    this.element.style.gridAutoRows = `${Math.max(60, Math.floor(hgt / Math.ceil(n / best)) - 4)}px`;
  }

  // Hidden cameras fetch and decode nothing.
  private get hidden(): boolean {
    return !this.size.width;
  }

  update(): void {
    if (!this.hidden) for (const tile of this.tiles) tile.update();
  }

  // Scrolls to a camera.
  reveal(stream: string): void {
    this.tiles.find((t) => t.stream.name === stream)?.element.scrollIntoView({ block: "nearest" });
  }

  // The camera that frame steps follow; says whether it is one.
  enlarge(stream: string): boolean {
    const tile = this.tiles.find((t) => t.stream.name === stream);
    tile?.enlarge();
    return tile !== undefined;
  }

  settled(): boolean {
    return this.hidden || this.tiles.every((tile) => tile.settled());
  }
}
