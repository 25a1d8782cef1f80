// Frames of one video stream through WebCodecs, in the worker. The decoder stays where it stands: the
// next frames cost one step each, and only a jump starts again from a keyframe.

interface Packet {
  sample: number;
  key: boolean;
  data: Uint8Array<ArrayBuffer>;
}

interface Wanted {
  sample: number;
  take: (frame: VideoFrame) => void;
  fail: (error: Error) => void;
}

// Frames decoded on the way to the wanted one that are kept for stepping back. Few: a decoder in
// hardware stops when too many of its pictures are held.
const HELD = 3;
// Frames past the wanted one decoded along with it where the decoder cannot go on.
const AHEAD = 8;
// How long a decoder without work may hold a frame back until it is made to give it.
const PATIENCE_MS = 60;

export class VideoFrames {
  private decoder: VideoDecoder | null = null;
  private group: Packet[] = [];
  private fed = 0;
  // Whether frames come out only when the decoder is flushed; it then needs a keyframe to go on.
  private holdsBack = false;
  private wanted: Wanted | null = null;
  private held = new Map<number, VideoFrame>();
  private busy = 0;
  private lane: Promise<unknown> = Promise.resolve();

  // packets: the group of a sample as the server sends it; spare: takes frames nobody asked for yet.
  constructor(
    private readonly encoding: string,
    private readonly packets: (i: number) => Promise<ArrayBuffer>,
    private readonly spare: (i: number, frame: VideoFrame) => void,
  ) {}

  // One at a time: the decoder has one position. An idle one begins in this very turn.
  frame(i: number): Promise<VideoFrame> {
    const result = this.busy++ ? this.lane.then(() => this.decode(i)) : this.decode(i);
    this.lane = result.then(
      () => this.busy--,
      () => this.busy--,
    );
    return result;
  }

  private async decode(i: number): Promise<VideoFrame> {
    const held = this.held.get(i);
    if (held) {
      this.held.delete(i);
      return held;
    }
    let at = this.group.findIndex((p) => p.sample === i);
    if (at < 0) {
      this.group = unpack(await this.packets(i));
      this.fed = Infinity;
      at = this.group.findIndex((p) => p.sample === i);
      this.holdsBack ||= this.group.some((p, k) => k > 0 && p.sample < this.group[k - 1].sample);
    }
    if (at < this.fed && this.fed > 0) this.restart();
    return this.until(i, this.holdsBack ? at + AHEAD : at);
  }

  private restart(): void {
    for (const frame of this.held.values()) frame.close();
    this.held.clear();
    if (this.decoder && this.decoder.state !== "closed") this.decoder.reset();
    else
      this.decoder = new VideoDecoder({
        output: (frame) => this.output(frame),
        error: (error) => this.wanted?.fail(error),
      });
    this.decoder.configure({ codec: codecString(this.encoding, this.group[0].data), optimizeForLatency: true });
    this.fed = 0;
  }

  // Feeds packets up to a place and waits for the frame of a sample.
  private until(sample: number, place: number): Promise<VideoFrame> {
    const decoder = this.decoder!;
    let timer = 0;
    const frame = new Promise<VideoFrame>((take, fail) => {
      this.wanted = { sample, take, fail };
      for (; this.fed <= place && this.fed < this.group.length; this.fed++) {
        const { key, data, sample } = this.group[this.fed];
        decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp: sample, data }));
      }
      const flush = () => {
        this.fed = Infinity;
        decoder.flush().then(() => fail(new Error(`the decoder gave no frame ${sample}`)), fail);
      };
      if (this.holdsBack || this.fed === this.group.length) return flush();
      const look = (idle: boolean) => {
        const rests = decoder.decodeQueueSize === 0;
        if (idle && rests) {
          this.holdsBack = true;
          flush();
        } else timer = setTimeout(look, PATIENCE_MS, rests);
      };
      timer = setTimeout(look, PATIENCE_MS, false);
    });
    return frame.finally(() => {
      clearTimeout(timer);
      this.wanted = null;
    });
  }

  private output(frame: VideoFrame): void {
    const sample = frame.timestamp;
    if (sample === this.wanted?.sample) return this.wanted.take(frame);
    if (this.holdsBack && this.wanted && sample > this.wanted.sample) return this.spare(sample, frame);
    this.held.get(sample)?.close();
    this.held.delete(sample);
    this.held.set(sample, frame);
    for (const [old, oldest] of this.held) {
      if (this.held.size <= HELD) break;
      oldest.close();
      this.held.delete(old);
    }
  }
}

function unpack(data: ArrayBuffer): Packet[] {
  const view = new DataView(data);
  const count = view.getUint32(0, true);
  let at = 4 + 12 * count;
  return Array.from({ length: count }, (_, k) => {
    const [sample, key, length] = [0, 4, 8].map((o) => view.getUint32(4 + 12 * k + o, true));
    at += length;
    return { sample, key: key === 1, data: new Uint8Array(data, at - length, length) };
  });
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
