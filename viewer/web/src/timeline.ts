// The timeline: ruler, phase tiers, events, findings, and per stream where it has samples, gaps and
// what the sync ledger says. Drawn on one canvas; every action also has a key (see commands.ts).

import { colourOf, fit, h, seconds, Size, theme } from "./dom";
import { placesOf } from "./findings";
import type { Panel, Session } from "./session";
import { wheel } from "./signals";
import { startTimelineDrag } from "./timelinedrag";
import type { Waveform } from "./audio";
import type { EventMark, Finding, Phase, Place } from "./types";

export const GUTTER = 132;
const RULER = 22;
const EDGE = 6;

export interface Lane {
  kind: "tier" | "events" | "findings" | "stream" | "audio";
  label: string;
  top: number;
  height: number;
  layer?: string;
  tier?: string;
  stream?: string;
}

export type Hit =
  | { kind: "ruler" }
  | { kind: "phase"; layer: string; phase: Phase; edge: "start" | "end" | null }
  | { kind: "event"; layer: string; event: EventMark }
  | { kind: "finding"; finding: Finding; place: number }
  | { kind: "lane"; lane: Lane }
  | { kind: "gutter"; lane: Lane }
  | null;

export class TimelinePanel implements Panel {
  readonly element: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly size: Size;
  // Apart from the canvas: the cursor moves all the time, what is below it rarely changes.
  private readonly cursor = h("div", { class: "timeline-cursor" });
  private key = "";
  private lanes: Lane[] = [];
  findings: Finding[] = [];
  waveform: Waveform | null = null;
  // While a key is held during playback: the phase that grows with the cursor.
  growing: { label: string; start: number } | null = null;
  onFinding: (finding: Finding, place: number) => void = () => {};

  constructor(private readonly session: Session) {
    this.canvas = h("canvas", { class: "timeline-canvas", tabIndex: 0, "aria-label": "timeline" });
    this.size = new Size(this.canvas);
    const body = h("div", { class: "timeline-body" }, this.canvas, this.cursor);
    this.element = h("section", { class: "timeline", "aria-label": "timeline" }, body);
    this.canvas.addEventListener("pointerdown", (e) => startTimelineDrag(session, this, this.canvas, e));
    this.canvas.addEventListener("pointermove", (e) => this.hover(e));
    this.canvas.addEventListener(
      "wheel",
      (e) => {
        if (e.ctrlKey || !this.overflows() || e.offsetX > GUTTER) {
          e.preventDefault();
          wheel(session, e, this.time(e.offsetX));
        }
      },
      { passive: false },
    );
  }

  private overflows(): boolean {
    return this.element.scrollHeight > this.element.clientHeight;
  }

  // Width of the time axis in pixels.
  get width(): number {
    return this.size.width - GUTTER;
  }

  x(t: number): number {
    const [a, b] = this.session.clock.view;
    return GUTTER + ((t - a) / (b - a)) * this.width;
  }

  time(x: number): number {
    const [a, b] = this.session.clock.view;
    return a + ((x - GUTTER) / this.width) * (b - a);
  }

  private layout(): void {
    const { layers, tier } = this.session;
    const lanes: Lane[] = [];
    let top = RULER;
    const push = (lane: Omit<Lane, "top">) => {
      lanes.push({ ...lane, top });
      top += lane.height + 2;
    };
    const phases = layers.all<Phase>("phases");
    const names = [layers.active, ...[...layers.shown].filter((n) => n !== layers.active)];
    for (const layer of names) {
      const own = layer === layers.active;
      const used = new Set(phases.filter((p) => p.layer === layer).map((p) => p.item.tier));
      if (own) used.add(tier);
      const order = this.session.taxonomy.tiers.map((t) => t.name);
      for (const name of [...used].sort((a, b) => order.indexOf(a) - order.indexOf(b)))
        push({ kind: "tier", label: own ? name : `${name} · ${layer}`, height: own ? 24 : 18, layer, tier: name });
    }
    if (layers.all("events").length) push({ kind: "events", label: "events", height: 18 });
    if (this.places().length)
      push({ kind: "findings", label: "findings", height: 14 });
    if (this.waveform) push({ kind: "audio", label: `♪ ${this.waveform.stream}`, height: 34, stream: this.waveform.stream });
    for (const stream of this.session.streams)
      if (stream.kind !== "text" && stream.kind !== "opaque" && stream.count > 2 && !/Info$/.test(stream.source_type ?? ""))
        push({ kind: "stream", label: stream.name, height: 11, stream: stream.name });
    this.lanes = lanes;
    this.canvas.style.height = `${Math.max(top + 4, 60)}px`;
  }

  settled(): boolean {
    return true;
  }

  update(): void {
    const { clock, revision } = this.session;
    const x = this.x(clock.t);
    this.cursor.hidden = x < GUTTER;
    this.cursor.style.transform = `translateX(${x.toFixed(1)}px)`;
    const people = this.people.map((p) => `${p.user} ${p.t}`);
    const key = [...clock.view, revision, this.size.width, clock.loop, this.growing && clock.t, theme().text, this.waveform?.stream, ...people].join(" ");
    if (key === this.key) return;
    this.key = key;
    this.layout();
    this.draw();
  }

  private draw(): void {
    const g = fit(this.canvas);
    if (!g) return;
    const c = theme();
    const { clock } = this.session;
    const height = this.canvas.clientHeight;
    const right = this.canvas.clientWidth;
    g.font = "11px system-ui";
    g.textBaseline = "middle";
    if (clock.loop) {
      g.fillStyle = c.faint;
      g.fillRect(this.x(clock.loop[0]), 0, this.x(clock.loop[1]) - this.x(clock.loop[0]), height);
    }
    this.drawRuler(g);
    for (const lane of this.lanes) {
      g.fillStyle = c.dim;
      g.fillText(clip(g, lane.label, GUTTER - 12), 6, lane.top + lane.height / 2);
      g.save();
      g.beginPath();
      g.rect(GUTTER, lane.top, right - GUTTER, lane.height);
      g.clip();
      if (lane.kind === "stream") this.drawStream(g, lane);
      else {
        g.fillStyle = c.faint;
        g.fillRect(GUTTER, lane.top, right - GUTTER, lane.height);
      }
      if (lane.kind === "tier") this.drawTier(g, lane);
      if (lane.kind === "events") this.drawEvents(g, lane);
      if (lane.kind === "findings") this.drawFindings(g, lane);
      if (lane.kind === "audio") this.drawAudio(g, lane);
      g.restore();
    }
    // Where others are.
    for (const person of this.people) {
      const px = this.x(person.t);
      if (px < GUTTER) continue;
      g.strokeStyle = colourOf(`user ${person.user}`);
      g.setLineDash([3, 3]);
      g.beginPath();
      g.moveTo(px, RULER);
      g.lineTo(px, height);
      g.stroke();
      g.setLineDash([]);
      g.fillStyle = colourOf(`user ${person.user}`);
      g.fillText(person.user, px + 4, height - 7);
    }
  }

  people: { user: string; t: number }[] = [];

  private drawRuler(g: CanvasRenderingContext2D): void {
    const [a, b] = this.session.clock.view;
    const target = (b - a) / Math.max(3, this.width / 90);
    const steps = [1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9, 2e9, 5e9, 1e10, 3e10, 6e10, 3e11, 6e11, 18e11];
    const step = steps.find((s) => s >= target) ?? 36e11;
    g.fillStyle = theme().dim;
    for (let t = Math.ceil(a / step) * step; t <= b; t += step) {
      const x = this.x(t);
      g.fillRect(x, RULER - 6, 1, 4);
      g.fillText(`${seconds(t, step < 1e7 ? 3 : step < 1e9 ? 2 : 0)} s`, x + 3, 10);
    }
  }

  private drawTier(g: CanvasRenderingContext2D, lane: Lane): void {
    const c = theme();
    const phases = this.session.layers.drawn<Phase>("phases", lane.layer).map((p) => p.item);
    if (this.growing && lane.layer === this.session.layers.active && lane.tier === this.session.tier)
      phases.push({ id: "", tier: lane.tier!, label: this.growing.label, start_ns: this.growing.start, end_ns: this.session.clock.t });
    for (const phase of phases) {
      if (phase.tier !== lane.tier) continue;
      const [x0, x1] = [this.x(phase.start_ns), this.x(phase.end_ns)];
      if (x1 < GUTTER || x0 > this.canvas.clientWidth) continue;
      g.fillStyle = colourOf(phase.label);
      g.globalAlpha = lane.layer === this.session.layers.active ? 1 : 0.88;
      g.fillRect(x0, lane.top + 1, Math.max(1, x1 - x0 - 1), lane.height - 2);
      g.globalAlpha = 1;
      if (this.session.isSelected(phase.id)) {
        g.strokeStyle = c.text;
        g.lineWidth = 2;
        g.strokeRect(x0 + 1, lane.top + 2, Math.max(2, x1 - x0 - 3), lane.height - 4);
        g.lineWidth = 1;
      }
      if (x1 - x0 > 24) {
        g.fillStyle = "#111";
        const mark = phase.success === false ? " ✗" : phase.success ? " ✓" : "";
        const sure = typeof phase.confidence === "number" ? ` ${(phase.confidence * 100).toFixed(0)}%` : "";
        const left = Math.max(x0, GUTTER) + 5;
        g.fillText(clip(g, phase.label + mark + sure, x1 - left - 4), left, lane.top + lane.height / 2);
      }
    }
  }

  private drawEvents(g: CanvasRenderingContext2D, lane: Lane): void {
    const marks = this.session.layers.drawn<EventMark>("events").map((e) => e.item);
    marks.sort((a, b) => a.stamp_ns - b.stamp_ns);
    const middle = lane.top + lane.height / 2;
    for (const event of marks) {
      const x = this.x(event.stamp_ns);
      g.fillStyle = colourOf(event.label);
      g.beginPath();
      g.moveTo(x, middle - 7);
      g.lineTo(x + 5, middle);
      g.lineTo(x, middle + 7);
      g.lineTo(x - 5, middle);
      g.fill();
      if (!this.session.isSelected(event.id)) continue;
      g.strokeStyle = theme().text;
      g.lineWidth = 2;
      g.stroke();
      g.lineWidth = 1;
    }
    // Events of one instant (as drawn) have one caption.
    const groups: { x: number; names: string[] }[] = [];
    for (const event of marks) {
      const x = this.x(event.stamp_ns);
      const last = groups.at(-1);
      if (!last || x - last.x >= 5) groups.push({ x, names: [event.label] });
      else if (!last.names.includes(event.label)) last.names.push(event.label);
    }
    g.fillStyle = theme().text;
    for (const [k, { x, names }] of groups.entries()) g.fillText(clip(g, names.join(", "), (groups[k + 1]?.x ?? Infinity) - x - 16), x + 8, middle);
  }

  private drawFindings(g: CanvasRenderingContext2D, lane: Lane): void {
    const bottom = lane.top + lane.height - 2;
    for (const { finding, place } of this.places()) {
      const x = this.x(place.stamp_ns!);
      g.fillStyle = finding.severity === "error" ? theme().bad : theme().warn;
      if (place.end_ns !== undefined && this.x(place.end_ns) > x + 1) g.fillRect(x, bottom - 3, this.x(place.end_ns) - x, 3);
      g.beginPath();
      g.moveTo(x, lane.top + 2);
      g.lineTo(x + 5, bottom);
      g.lineTo(x - 5, bottom);
      g.fill();
    }
  }

  // Places of findings that have an instant.
  private places(): { finding: Finding; index: number; place: Place }[] {
    return this.findings.flatMap((finding) =>
      placesOf(finding).map((place, index) => ({ finding, index, place })).filter(({ place }) => place.stamp_ns !== undefined),
    );
  }

  private drawAudio(g: CanvasRenderingContext2D, lane: Lane): void {
    const wave = this.waveform!;
    const stamps = this.session.stamps.get(wave.stream)!;
    const stream = this.session.stream(wave.stream)!;
    if (!stamps.length) return;
    const start = stamps.ns[0];
    const end = stamps.ns[stamps.length - 1] + stamps.period;
    g.fillStyle = theme().accent;
    const middle = lane.top + lane.height / 2;
    const n = wave.low.length;
    // Scaled to its own peak: what matters here is when, not how loud.
    const peak = Math.max(wave.peak, 1e-4);
    const per = (end - start) / n;
    for (let px = GUTTER; px < this.canvas.clientWidth; px++) {
      const from = Math.floor((this.time(px) - start) / per);
      const to = Math.max(from + 1, Math.ceil((this.time(px + 1) - start) / per));
      if (to <= 0 || from >= n) continue;
      let [low, high] = [0, 0];
      for (let k = Math.max(0, from); k < Math.min(n, to); k++) {
        low = Math.min(low, wave.low[k]);
        high = Math.max(high, wave.high[k]);
      }
      const half = (lane.height / 2 - 1) / peak;
      // Wider than a pixel, or zoomed pages show seams.
      g.fillRect(px, middle - high * half, 1.5, Math.max(1, (high - low) * half));
    }
    for (const [a, b] of stream.gaps) {
      g.fillStyle = theme().bad;
      g.fillRect(this.x(a), lane.top, Math.max(1, this.x(b) - this.x(a)), 2);
    }
  }

  // The sync-health lane: where the stream has samples, in the colour of its verdict; gaps in red.
  private drawStream(g: CanvasRenderingContext2D, lane: Lane): void {
    const c = theme();
    const stream = this.session.stream(lane.stream!)!;
    const stamps = this.session.stamps.get(stream.name)!;
    if (!stamps.length) return;
    const verdict = verdictOf(this.session, stream.name);
    g.fillStyle = verdict === "FAILED" ? c.bad : verdict === "PASSED" ? c.good : c.dim;
    g.globalAlpha = 0.55;
    const [x0, x1] = [this.x(stamps.ns[0]), this.x(stamps.ns[stamps.length - 1])];
    g.fillRect(x0, lane.top + 3, Math.max(1, x1 - x0), lane.height - 6);
    g.globalAlpha = 1;
    for (const [a, b] of stream.gaps) {
      const [g0, g1] = [this.x(a), this.x(b)];
      g.clearRect(g0, lane.top + 3, Math.max(1.5, g1 - g0), lane.height - 6);
      g.fillStyle = c.bad;
      g.fillRect(g0, lane.top + 1, Math.max(1.5, g1 - g0), 2);
    }
    const [a, b] = this.session.clock.view;
    if ((b - a) / (stamps.period || Infinity) < this.width / 4) {
      g.fillStyle = c.text;
      for (let i = stamps.lower(a); i < stamps.length && stamps.ns[i] <= b; i++)
        g.fillRect(this.x(stamps.ns[i]), lane.top + 2, 1, lane.height - 4);
    }
  }

  // -- pointer ---------------------------------------------------------------------------------

  hit(x: number, y: number): Hit {
    if (y < RULER) return { kind: "ruler" };
    const lane = this.lanes.find((l) => y >= l.top && y < l.top + l.height + 2);
    if (!lane) return null;
    if (x < GUTTER) return { kind: "gutter", lane };
    const t = this.time(x);
    const slack = this.time(x + EDGE) - t;
    if (lane.kind === "tier") {
      let best: Hit = null;
      for (const { layer, item } of this.session.layers.all<Phase>("phases", lane.layer)) {
        if (item.tier !== lane.tier || t < item.start_ns - slack || t > item.end_ns + slack) continue;
        const wide = this.x(item.end_ns) - this.x(item.start_ns) > 4 * EDGE;
        const near = wide ? slack : slack / 3;
        const edge = Math.abs(t - item.start_ns) < near ? "start" : Math.abs(t - item.end_ns) < near ? "end" : null;
        if (best === null || (t >= item.start_ns && t < item.end_ns))
          best = { kind: "phase", layer, phase: item, edge };
      }
      return best ?? { kind: "lane", lane };
    }
    if (lane.kind === "events")
      for (const { layer, item } of this.session.layers.all<EventMark>("events"))
        if (Math.abs(item.stamp_ns - t) < slack) return { kind: "event", layer, event: item };
    if (lane.kind === "findings")
      for (const { finding, index, place } of this.places())
        if (t > place.stamp_ns! - slack && t < (place.end_ns ?? place.stamp_ns!) + slack) return { kind: "finding", finding, place: index };
    return { kind: "lane", lane };
  }

  private hover(e: PointerEvent): void {
    const hit = this.hit(e.offsetX, e.offsetY);
    this.canvas.style.cursor =
      hit?.kind === "phase" && hit.edge && hit.layer === this.session.layers.active
        ? "ew-resize"
        : hit?.kind === "lane" || hit?.kind === "ruler"
          ? "crosshair"
          : "pointer";
    if (hit?.kind === "phase")
      this.canvas.title = `${hit.phase.label}: ${seconds(hit.phase.start_ns)} to ${seconds(hit.phase.end_ns)} s (${hit.layer})`;
    else if (hit?.kind === "finding") this.canvas.title = `${hit.finding.rule}: ${hit.finding.message}`;
    else if (hit?.kind === "gutter") this.canvas.title = hit.lane.label;
    else this.canvas.title = "";
  }
}

// What the ledger says of the pairs a stream is in: failed if one failed, null if it holds none.
export function verdictOf(session: Session, stream: string): string | null {
  const pairs = session.api.manifest.sync.pairs;
  if (!Array.isArray(pairs)) return null;
  const own = pairs.filter((p: any) => p.a === stream || p.b === stream).map((p: any) => p.verdict);
  return ["FAILED", "PASSED", "NOT_ASSESSED"].find((v) => own.includes(v)) ?? null;
}

function clip(g: CanvasRenderingContext2D, text: string, width: number): string {
  if (g.measureText(text).width <= width) return text;
  let n = text.length;
  while (n > 0 && g.measureText(`${text.slice(0, n)}…`).width > width) n--;
  return n ? `${text.slice(0, n)}…` : "";
}
