// Decoded frames of one image stream, by sample index: JPEG over HTTP, or stored video packets
// through WebCodecs. Memory is bounded: what was used longest ago is closed.

import type { EpisodeApi } from "./api";
import type { StreamInfo } from "./types";

export interface FrameSource {
  readonly how: string;
  peek(i: number): ImageBitmap | undefined;
  get(i: number): Promise<ImageBitmap>;
  prefetch(i: number): void;
  close(): void;
}

const MOST_BYTES = 96 << 20;

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

  clear(): void {
    for (const frame of this.frames.values()) frame.close();
    this.frames.clear();
    this.bytes = 0;
  }
}

const size = (frame: ImageBitmap) => frame.width * frame.height * 4;

class JpegSource implements FrameSource {
  readonly how = "image";
  private cache = new Cache();
  private waiting = new Map<number, Promise<ImageBitmap>>();

  constructor(
    private readonly api: EpisodeApi,
    private readonly stream: StreamInfo,
  ) {}

  peek(i: number): ImageBitmap | undefined {
    return this.cache.get(i);
  }

  get(i: number): Promise<ImageBitmap> {
    const known = this.cache.get(i);
    if (known) return Promise.resolve(known);
    let promise = this.waiting.get(i);
    if (!promise) {
      promise = this.load(i).finally(() => this.waiting.delete(i));
      this.waiting.set(i, promise);
    }
    return promise;
  }

  prefetch(i: number): void {
    if (i >= 0 && i < this.stream.count && !this.cache.has(i) && this.waiting.size < 3)
      this.get(i).catch(() => {});
  }

  close(): void {
    this.cache.clear();
  }

  private async load(i: number): Promise<ImageBitmap> {
    const blob = await this.api.api.blob(this.api.data("frame", this.stream.name, i));
    const frame = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    this.cache.put(i, frame);
    return frame;
  }
}

interface Packet {
  sample: number;
  key: boolean;
  data: Uint8Array;
}

// How many frames past the wanted one are decoded along with it.
const AHEAD = 8;

class VideoSource implements FrameSource {
  readonly how: string;
  private cache = new Cache();
  private groups = new Map<number, Packet[]>();
  private lane: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly api: EpisodeApi,
    private readonly stream: StreamInfo,
  ) {
    this.how = `${stream.encoding} WebCodecs`;
  }

  peek(i: number): ImageBitmap | undefined {
    return this.cache.get(i);
  }

  get(i: number): Promise<ImageBitmap> {
    const known = this.cache.get(i);
    if (known) return Promise.resolve(known);
    // One decoder at a time; a request that was overtaken finds its frame in the cache.
    const result = this.lane.then(async () => {
      const early = this.cache.get(i);
      if (early) return early;
      await this.decode(i);
      const frame = this.cache.get(i);
      if (!frame) throw new Error(`the decoder gave no frame ${i}`);
      return frame;
    });
    this.lane = result.catch(() => {});
    return result;
  }

  prefetch(i: number): void {
    if (i >= 0 && i < this.stream.count && !this.cache.has(i)) this.get(i).catch(() => {});
  }

  close(): void {
    this.cache.clear();
    this.groups.clear();
  }

  private async packets(i: number): Promise<Packet[]> {
    const known = this.groups.get(i);
    if (known) return known;
    const data = await this.api.api.binary(this.api.data("packets", this.stream.name, i));
    const view = new DataView(data);
    const count = view.getUint32(0, true);
    let at = 4 + 12 * count;
    const packets: Packet[] = [];
    for (let k = 0; k < count; k++) {
      const [sample, key, length] = [0, 4, 8].map((o) => view.getUint32(4 + 12 * k + o, true));
      packets.push({ sample, key: key === 1, data: new Uint8Array(data, at, length) });
      at += length;
    }
    if (this.groups.size > 400) this.groups.clear();
    for (const packet of packets) this.groups.set(packet.sample, packets);
    return packets;
  }

  private async decode(i: number): Promise<void> {
    const packets = await this.packets(i);
    const wanted = packets.findIndex((p) => p.sample === i);
    const jobs: Promise<void>[] = [];
    let failure: unknown = null;
    const decoder = new VideoDecoder({
      output: (frame) => {
        const sample = frame.timestamp;
        jobs.push(
          createImageBitmap(frame)
            .then((bitmap) => this.cache.put(sample, bitmap))
            .finally(() => frame.close()),
        );
      },
      error: (error) => {
        failure = error;
      },
    });
    try {
      decoder.configure({
        codec: codecString(this.stream.encoding!, packets[0].data),
        optimizeForLatency: true,
      });
      for (const packet of packets.slice(0, wanted + 1 + AHEAD))
        decoder.decode(
          new EncodedVideoChunk({
            type: packet.key ? "key" : "delta",
            timestamp: packet.sample,
            data: packet.data,
          }),
        );
      await decoder.flush();
      await Promise.all(jobs);
    } catch (error) {
      throw failure ?? error;
    } finally {
      if (decoder.state !== "closed") decoder.close();
    }
  }
}

// What WebCodecs wants to know before the first packet.
function codecString(encoding: string, packet: Uint8Array): string {
  if (encoding === "av1") return "av01.0.08M.08";
  if (encoding === "vp9") return "vp09.00.40.08";
  // H.264 Annex B: profile, constraints and level stand right after the SPS header.
  for (let k = 0; k + 6 < packet.length; k++)
    if (packet[k] === 0 && packet[k + 1] === 0 && packet[k + 2] === 1 && (packet[k + 3] & 31) === 7)
      return `avc1.${[4, 5, 6].map((o) => packet[k + o].toString(16).padStart(2, "0")).join("")}`;
  return "avc1.42e01f";
}

const VIDEO = ["h264", "av1", "vp9"];

// WebCodecs where the browser has it and takes the codec, else JPEG made by the server.
export async function openSource(api: EpisodeApi, stream: StreamInfo): Promise<FrameSource> {
  if (stream.encoding && VIDEO.includes(stream.encoding) && "VideoDecoder" in window) {
    const source = new VideoSource(api, stream);
    try {
      if (stream.count) await source.get(0);
      return source;
    } catch (error) {
      console.warn(`${stream.name}: falling back to JPEG`, error);
      source.close();
    }
  }
  return new JpegSource(api, stream);
}
