// Decoded frames of image streams by sample index, made by a worker. Memory is bounded: what was used
// longest ago is closed.

import type { EpisodeApi } from "./api";
import type { FromWorker, ToWorker } from "./picturework";
import type { StreamInfo } from "./types";

const MOST_BYTES = 96 << 20;
const MOST_PREFETCHED = 3;

class Cache {
  private frames = new Map<number, ImageBitmap>();
  private bytes = 0;

  get(i: number): ImageBitmap | undefined {
    const frame = this.frames.get(i);
    if (frame) {
      this.frames.delete(i);
      this.frames.set(i, frame);
    }
    return frame;
  }

  has(i: number): boolean {
    return this.frames.has(i);
  }

  put(i: number, frame: ImageBitmap): void {
    this.frames.get(i)?.close();
    if (!this.frames.delete(i)) this.bytes += size(frame);
    this.frames.set(i, frame);
    for (const [old, image] of this.frames) {
      if (this.bytes <= MOST_BYTES || this.frames.size <= 2) break;
      this.bytes -= size(image);
      image.close();
      this.frames.delete(old);
    }
  }
}

const size = (frame: ImageBitmap) => frame.width * frame.height * 4;

interface Waiting {
  promise: Promise<ImageBitmap>;
  take: (frame: ImageBitmap) => void;
  fail: (error: Error) => void;
}

export class FrameSource {
  // How pictures are made, once the first is there.
  how = "";
  private cache = new Cache();
  private waiting = new Map<number, Waiting>();

  constructor(
    private readonly count: number,
    private readonly ask: (i: number) => void,
  ) {}

  peek(i: number): ImageBitmap | undefined {
    return this.cache.get(i);
  }

  get(i: number): Promise<ImageBitmap> {
    const known = this.cache.get(i);
    if (known) return Promise.resolve(known);
    let waiting = this.waiting.get(i);
    if (!waiting) {
      let settle!: Omit<Waiting, "promise">;
      const promise = new Promise<ImageBitmap>((take, fail) => (settle = { take, fail }));
      this.waiting.set(i, (waiting = { promise, ...settle }));
      this.ask(i);
    }
    return waiting.promise;
  }

  prefetch(i: number): void {
    if (i >= 0 && i < this.count && !this.cache.has(i) && this.waiting.size < MOST_PREFETCHED)
      this.get(i).catch(() => {});
  }

  arrived({ i, bitmap, error, how }: FromWorker): void {
    this.how = how;
    const waiting = this.waiting.get(i);
    this.waiting.delete(i);
    if (!bitmap) return waiting?.fail(new Error(error));
    this.cache.put(i, bitmap);
    waiting?.take(bitmap);
  }
}

// The worker and its sources. What is asked for in one turn goes to it together.
export class Pictures {
  private readonly worker = new Worker(new URL("picturework.js", import.meta.url), { type: "module" });
  private readonly sources: FrameSource[] = [];
  private asked: [number, number][] = [];

  constructor(private readonly api: EpisodeApi) {
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.sources[data.source].arrived(data);
  }

  open(stream: StreamInfo): FrameSource {
    const source = this.sources.length;
    const address = new URL(this.api.data("pictures"), location.href).href;
    const { name, encoding } = stream;
    // A depth image is drawn by the server, whatever it is stored as.
    this.send({ open: { source, address, stream: name, encoding: stream.kind === "image" ? (encoding ?? "raw") : "raw" } });
    const opened = new FrameSource(stream.count, (i) => this.want(source, i));
    this.sources.push(opened);
    return opened;
  }

  private want(source: number, i: number): void {
    if (!this.asked.length) queueMicrotask(() => this.send({ ask: this.asked.splice(0) }));
    this.asked.push([source, i]);
  }

  private send(message: ToWorker): void {
    this.worker.postMessage(message);
  }
}
