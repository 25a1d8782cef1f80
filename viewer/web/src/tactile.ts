// Tactile arrays as heat maps, one per finger, on a scale fixed over the episode.

import { type EpisodeApi, RETRY_MS } from "./api";
import { deviation, h } from "./dom";
import type { Panel, Session } from "./session";
import type { StreamInfo } from "./types";

const CHUNK = 128;

class HeatMap {
  readonly element: HTMLElement;
  private readonly canvas = h("canvas", { class: "heat" });
  private readonly caption = h("figcaption", {});
  private readonly chunks = new Map<number, Float64Array | null>();
  private readonly field: string;
  private readonly maps: number;
  private readonly rows: number;
  private readonly columns: number;
  private high = 0;
  private shown = -1;
  // The chunk that could not be read last.
  private failed = -1;

  constructor(
    private readonly session: Session,
    private readonly stream: StreamInfo,
  ) {
    this.field = Object.keys(stream.fields)[0];
    const shape = stream.fields[this.field].shape;
    const size = shape.reduce((a, b) => a * b, 1);
    if (shape.length >= 3) [this.maps, this.rows, this.columns] = [size / shape.at(-1)! / shape.at(-2)!, shape.at(-2)!, shape.at(-1)!];
    else if (shape.length === 2) [this.maps, this.rows, this.columns] = [1, shape[0], shape[1]];
    else [this.maps, this.rows, this.columns] = flat(size);
    this.canvas.width = (this.columns + 1) * this.maps - 1;
    this.canvas.height = this.rows;
    this.element = h("figure", { class: "tactile", "data-stream": stream.name }, this.canvas, this.caption);
    this.scale().catch((error) => session.say(`${stream.name}: ${error.message ?? error}`, "bad"));
  }

  private get width(): number {
    return this.maps * this.rows * this.columns;
  }

  private async scale(): Promise<void> {
    const { api } = this.session;
    const step = Math.max(1, Math.ceil((this.stream.count * this.width) / 400_000));
    const values = await read(api, this.stream.name, this.field, `&step=${step}`);
    for (const value of values) if (value > this.high) this.high = value;
    this.shown = -1;
  }

  private row(i: number): Float64Array | null {
    const chunk = Math.floor(i / CHUNK);
    const known = this.chunks.get(chunk);
    if (known === undefined) {
      this.chunks.set(chunk, null);
      if (this.chunks.size > 40) this.chunks.delete(this.chunks.keys().next().value!);
      read(this.session.api, this.stream.name, this.field, `&start=${chunk * CHUNK}&stop=${(chunk + 1) * CHUNK}`).then(
        (values) => this.chunks.set(chunk, values),
        (error) => {
          this.caption.textContent = `${this.stream.name}\n${error.message ?? error}`;
          this.failed = chunk;
          setTimeout(() => this.chunks.delete(chunk), RETRY_MS);
        },
      );
    }
    return known ? known.subarray((i % CHUNK) * this.width, ((i % CHUNK) + 1) * this.width) : null;
  }

  settled(): boolean {
    const wanted = this.session.stamps.get(this.stream.name)!.nearest(this.session.clock.t);
    return this.shown === wanted || this.failed === Math.floor(wanted / CHUNK);
  }

  update(): void {
    const stamps = this.session.stamps.get(this.stream.name)!;
    const i = stamps.nearest(this.session.clock.t);
    if (i < 0 || i === this.shown) return;
    const values = this.row(i);
    if (!values || values.length < this.width) return;
    this.shown = i;
    this.failed = -1;
    const g = this.canvas.getContext("2d")!;
    g.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const image = g.createImageData(this.canvas.width, this.rows);
    let most = 0;
    for (let m = 0; m < this.maps; m++)
      for (let r = 0; r < this.rows; r++)
        for (let c = 0; c < this.columns; c++) {
          const value = values[(m * this.rows + r) * this.columns + c];
          if (value > most) most = value;
          const at = 4 * (r * this.canvas.width + m * (this.columns + 1) + c);
          image.data.set(inferno(this.high > 0 ? value / this.high : 0), at);
        }
    g.putImageData(image, 0, 0);
    const unit = this.stream.fields[this.field].unit ?? "";
    this.caption.textContent = `${this.stream.name}\nmax ${most.toPrecision(3)} ${unit} of ${this.high.toPrecision(3)}\nΔ ${deviation(stamps.ns[i] - this.session.clock.t)}`;
  }
}

// Flat arrays: the squarest maps that fill them, 32 as two of 4 x 4.
function flat(size: number): [number, number, number] {
  for (const maps of [1, 2, 3, 4, 5]) {
    const side = Math.sqrt(size / maps);
    if (Number.isInteger(side)) return [maps, side, side];
  }
  let rows = Math.floor(Math.sqrt(size));
  while (rows > 1 && size % rows) rows--;
  return [1, rows, size / rows];
}

async function read(api: EpisodeApi, stream: string, field: string, query: string): Promise<Float64Array> {
  const data = await api.api.binary(api.data("values", stream, field) + query);
  return new Float64Array(data, 8);
}

// Dark to bright in even steps of lightness, as Matplotlib's inferno.
const STOPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
function inferno(value: number): [number, number, number, number] {
  const x = Math.min(Math.max(value || 0, 0), 1) * (STOPS.length - 1);
  const i = Math.min(Math.floor(x), STOPS.length - 2);
  const [a, b] = [STOPS[i], STOPS[i + 1]];
  const mix = (k: number) => a[k] + (b[k] - a[k]) * (x - i);
  return [mix(0), mix(1), mix(2), 255];
}

export class TactilePanel implements Panel {
  readonly element: HTMLElement;
  private readonly maps: HeatMap[];

  constructor(session: Session) {
    this.maps = session.streams.filter((s) => s.kind === "tactile" && s.count && Object.values(s.fields).some((f) => !f.ragged)).map((s) => new HeatMap(session, s));
    this.element = h("section", { class: "tactiles", "aria-label": "tactile" }, ...this.maps.map((m) => m.element));
    this.element.hidden = !this.maps.length;
  }

  settled(): boolean {
    return this.maps.every((m) => m.settled());
  }

  update(): void {
    for (const map of this.maps) map.update();
  }
}
