// Sound on the same clock: while it plays, the audio hardware's clock leads the cursor.

import type { Session } from "./session";

// A device that stands still for longer is left behind.
const HANGS_MS = 1000;

export interface Waveform {
  low: Float32Array;
  high: Float32Array;
  peak: number;
  stream: string;
}

interface Blocks {
  sample_rate_hz: number;
  stamp: number[];
  first_sample: number[];
  samples: number;
}

export class Sound {
  muted = false;
  waveform: Waveform | null = null;
  private context: AudioContext | null = null;
  private buffer: AudioBuffer | null = null;
  private blocks: Blocks | null = null;
  private node: AudioBufferSourceNode | null = null;
  private startedAt = 0;
  private startedFrom = 0;
  private readonly name: string | null;

  constructor(private readonly session: Session) {
    this.name = session.streams.find((s) => s.kind === "audio" && s.count)?.name ?? null;
    if (this.name) void this.load();
    session.clock.onJump(() => this.restart());
  }

  get available(): boolean {
    return this.blocks !== null;
  }

  private async load(): Promise<void> {
    const { api } = this.session;
    const name = this.name!;
    try {
      this.blocks = await api.api.json<Blocks>(api.data("audio", name, "blocks"));
      const data = await api.api.binary(api.data("audio", name, "waveform"));
      const n = new Uint32Array(data, 0, 1)[0];
      const low = new Float32Array(data, 4, n);
      const high = new Float32Array(data, 4 + 4 * n, n);
      let peak = 0;
      for (let k = 0; k < n; k++) peak = Math.max(peak, high[k], -low[k]);
      this.waveform = { low, high, peak, stream: name };
      this.session.touch();
    } catch (error) {
      console.warn("no sound:", error);
    }
  }

  setMuted(muted: boolean): void {
    this.muted = muted;
    this.restart();
  }

  // Cursor -> sample of the WAV file, by the block that holds it; -1 outside.
  sampleAt(t: number): number {
    const b = this.blocks!;
    let k = b.stamp.length - 1;
    while (k > 0 && b.stamp[k] > t) k--;
    if (k < 0 || t < b.stamp[k]) return -1;
    const sample = b.first_sample[k] + ((t - b.stamp[k]) / 1e9) * b.sample_rate_hz;
    const next = b.first_sample[k + 1] ?? b.samples;
    return sample < next ? sample : k + 1 < b.stamp.length ? next : -1;
  }

  timeOf(sample: number): number {
    const b = this.blocks!;
    let k = b.first_sample.length - 1;
    while (k > 0 && b.first_sample[k] > sample) k--;
    return b.stamp[k] + ((sample - b.first_sample[k]) / b.sample_rate_hz) * 1e9;
  }

  private stop(): void {
    this.session.clock.master = null;
    if (this.node) {
      this.node.onended = null;
      this.node.stop();
      this.node.disconnect();
      this.node = null;
    }
  }

  private restart(): void {
    this.stop();
    const { clock } = this.session;
    if (!clock.playing || this.muted || !this.blocks) return;
    const offset = this.sampleAt(clock.t);
    if (offset < 0) return;
    this.start(offset).catch((error) => {
      this.muted = true;
      this.session.say(`no sound: ${error.message ?? error} (A tries again)`, "bad");
    });
  }

  private async start(offset: number): Promise<void> {
    const { clock, api } = this.session;
    this.context ??= new AudioContext();
    if (!this.buffer) {
      const wav = await api.api.binary(api.data("audio", this.name!));
      this.buffer = await this.context.decodeAudioData(wav);
    }
    await this.context.resume();
    if (!clock.playing || this.node || this.context.state !== "running") return;
    const rate = this.blocks!.sample_rate_hz;
    const node = this.context.createBufferSource();
    node.buffer = this.buffer;
    node.playbackRate.value = clock.speed;
    node.connect(this.context.destination);
    // Loading took a while; play from where the cursor is by now.
    const now = this.sampleAt(clock.t);
    this.startedFrom = now >= 0 ? now : offset;
    node.start(0, this.startedFrom / rate);
    this.startedAt = this.context.currentTime;
    this.node = node;
    node.onended = () => this.stop();
    let [heard, movedAt] = [-1, 0];
    clock.master = () => {
      if (!this.context || !this.node) return null;
      const { currentTime } = this.context;
      const now = performance.now();
      if (currentTime !== heard) [heard, movedAt] = [currentTime, now];
      // The cursor waits for the sound, but not for a device that hangs.
      if (now - movedAt > HANGS_MS) {
        this.stop();
        this.session.say("the sound device stands still: going on without it", "bad");
        return null;
      }
      const t = this.timeOf(this.startedFrom + (currentTime - this.startedAt) * clock.speed * rate);
      return clock.t - t < 5e7 ? Math.max(t, clock.t) : null;
    };
  }
}
