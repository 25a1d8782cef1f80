// One plotted field: fetches tiles of its min/max pyramid as the view needs them.

import { type EpisodeApi, RETRY_MS } from "./api";
import type { Stamps } from "./stamps";

const FACTOR_BITS = 3; // a bucket of one level holds eight of the level below
const TILE = 2048;
const MOST_TILES = 200;

interface Tile {
  count: number;
  t: Float64Array;
  low: Float32Array;
  high: Float32Array | null;
}

export class Series {
  channels = 0;
  version = 0;
  failed = "";
  private counts: number[] = [];
  private tiles = new Map<string, Tile | null>(); // null: on its way

  constructor(
    private readonly api: EpisodeApi,
    private readonly stream: string,
    private readonly field: string,
    readonly stamps: Stamps,
  ) {
    api.api.json(api.data("pyramid", stream, field)).then(
      (answer) => {
        this.channels = answer.channels;
        this.counts = answer.counts;
        this.version++;
      },
      (error) => {
        this.failed = String(error.message);
        this.version++;
      },
    );
  }

  get ready(): boolean {
    return this.channels > 0;
  }

  // Whether every tile the last `window` asked for has arrived.
  complete = false;

  // What to draw between two instants: x in seconds, one row of values per channel. Where samples
  // are denser than pixels, each bucket gives its lowest and highest value.
  window(start: number, end: number, pixels: number): { x: number[]; y: (number | null)[][] } {
    const first = Math.max(0, this.stamps.lower(start) - 1);
    const last = Math.min(this.stamps.length, this.stamps.lower(end) + 1);
    let level = 0;
    while ((last - first) >> (FACTOR_BITS * level) > 2 * pixels && level < this.counts.length - 1)
      level++;
    const shift = FACTOR_BITS * level;
    const [from, to] = [first >> shift, Math.min((last - 1) >> shift, this.counts[level] - 1)];
    const x: number[] = [];
    const y: (number | null)[][] = Array.from({ length: this.channels }, () => []);
    this.complete = true;
    for (let number = Math.floor(from / TILE); number <= Math.floor(to / TILE); number++) {
      const tile = this.tile(level, number);
      if (!tile) {
        this.complete = false;
        continue;
      }
      const [a, b] = [Math.max(from - number * TILE, 0), Math.min(to - number * TILE, tile.count - 1)];
      for (let k = a; k <= b; k++) {
        x.push(tile.t[k] / 1e9);
        if (tile.high) x.push(tile.t[k] / 1e9);
        for (let c = 0; c < this.channels; c++) {
          const at = k * this.channels + c;
          y[c].push(number_(tile.low[at]));
          if (tile.high) y[c].push(number_(tile.high[at]));
        }
      }
    }
    return { x, y };
  }

  // The sample at an index, or null while it is on its way.
  sample(i: number): Float32Array | null {
    if (!this.ready || i < 0) return null;
    const tile = this.tile(0, Math.floor(i / TILE));
    if (!tile) return null;
    const at = (i % TILE) * this.channels;
    return tile.low.subarray(at, at + this.channels);
  }

  private tile(level: number, number: number): Tile | null {
    const key = `${level}/${number}`;
    const known = this.tiles.get(key);
    if (known !== undefined) return known;
    this.tiles.set(key, null);
    if (this.tiles.size > MOST_TILES)
      for (const [old, tile] of this.tiles) {
        if (this.tiles.size <= MOST_TILES / 2) break;
        if (tile) this.tiles.delete(old);
      }
    this.api.api.binary(this.api.data("pyramid", this.stream, this.field, level, number)).then(
      (data) => {
        const [count, channels] = new Uint32Array(data, 0, 2);
        const t = new Float64Array(data.slice(8, 8 + 8 * count));
        const low = new Float32Array(data, 8 + 8 * count, count * channels);
        const high =
          level > 0 ? new Float32Array(data, 8 + 8 * count + 4 * count * channels, count * channels) : null;
        this.tiles.set(key, { count, t, low, high });
        this.version++;
      },
      () => setTimeout(() => this.tiles.delete(key), RETRY_MS),
    );
    return null;
  }
}

const number_ = (value: number): number | null => (Number.isFinite(value) ? value : null);
