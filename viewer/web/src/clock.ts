// The one time cursor. Every panel reads `t`; nobody else keeps a time of its own.

export class Clock {
  t = 0;
  playing = false;
  speed = 1;
  loop: [number, number] | null = null;
  // Shared horizontal range of timeline, plots and waveform.
  view: [number, number];
  // While sound plays, its clock leads: returns the cursor it is at, or null when silent.
  master: (() => number | null) | null = null;
  private last: number | null = null;
  private listeners = new Set<() => void>();

  constructor(readonly duration: number) {
    this.view = [0, Math.max(duration, 1)];
  }

  onJump(listener: () => void): void {
    this.listeners.add(listener);
  }

  seek(t: number): void {
    this.t = Math.round(Math.min(Math.max(t, 0), this.duration));
    for (const listener of this.listeners) listener();
    this.follow();
  }

  play(): void {
    if (this.t >= this.duration) this.seek(this.loop ? this.loop[0] : 0);
    this.playing = true;
    this.last = null;
    for (const listener of this.listeners) listener();
  }

  pause(): void {
    if (!this.playing) return;
    this.playing = false;
    for (const listener of this.listeners) listener();
  }

  setSpeed(speed: number): void {
    this.speed = Math.min(4, Math.max(0.1, speed));
    for (const listener of this.listeners) listener();
  }

  // Called once per animation frame with its time in milliseconds.
  tick(now: number): void {
    const before = this.last;
    this.last = now;
    if (!this.playing || before === null) return;
    const led = this.master?.();
    // A page that slept must not leap: at most a quarter second per frame.
    const step = Math.min(now - before, 250) * 1e6 * this.speed;
    let t = led ?? this.t + step;
    const end = this.loop ? this.loop[1] : this.duration;
    if (t >= end) {
      if (this.loop) return this.seek(this.loop[0]);
      this.t = this.duration;
      return this.pause();
    }
    if (this.loop && t < this.loop[0]) t = this.loop[0];
    this.t = Math.round(t);
    this.follow();
  }

  setView(start: number, end: number): void {
    const width = Math.min(Math.max(end - start, 1e6), Math.max(this.duration, 1e6) * 1.1);
    const low = Math.min(Math.max(start, -0.05 * this.duration), 1.05 * this.duration - width);
    this.view = [low, low + width];
  }

  zoom(factor: number, about: number = this.t): void {
    const [a, b] = this.view;
    this.setView(about - (about - a) * factor, about + (b - about) * factor);
  }

  // Keeps the cursor in sight when zoomed in.
  private follow(): void {
    const [a, b] = this.view;
    if (this.t < a || this.t > b) this.setView(this.t - 0.1 * (b - a), this.t + 0.9 * (b - a));
  }
}
