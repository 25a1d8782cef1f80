// Plots of signals on the shared view, with the value at the cursor.

import uPlot from "uplot";
import { colourOf, deviation, followPointer, h, picker, Size, theme } from "./dom";
import { Series } from "./series";
import type { Panel, Session } from "./session";
import { GUTTER } from "./timeline";

const MOST_SHOWN_CHANNELS = 12;
const DEFAULT_PLOTS = 5;
// One pixel of the screen, two of a fine one: without a GPU a line of one is drawn ten times faster
// than a wider one.
const LINE = devicePixelRatio < 2 ? 1 / devicePixelRatio : 1;
const CHANNEL_COLOURS = ["a", "b", "c", "d", "e", "f", "g"];

interface Choice {
  stream: string;
  field: string;
}

class Plot {
  readonly element: HTMLElement;
  private readonly body: HTMLElement;
  private readonly size: Size;
  private readonly legend: HTMLElement;
  private readonly line: HTMLElement;
  // Ends of the vertical axis.
  private readonly ends = ["high", "low"].map((name) => h("span", { class: `range ${name}` }));
  private readonly series: Series;
  private plot: uPlot | null = null;
  private key = "";
  private legendKey = "";
  private readonly names: string[];

  constructor(
    private readonly session: Session,
    readonly choice: Choice,
  ) {
    const info = session.stream(choice.stream)!.fields[choice.field];
    this.series = new Series(session.api, choice.stream, choice.field, session.stamps.get(choice.stream)!);
    const size = info.shape.reduce((a, b) => a * b, 1);
    this.names = info.channels ?? (size === 3 ? ["x", "y", "z"] : size === 4 && choice.field === "orientation" ? ["qw", "qx", "qy", "qz"] : Array.from({ length: size }, (_, i) => String(i)));
    this.legend = h("div", { class: "legend" });
    this.line = h("div", { class: "cursor-line" });
    this.body = h("div", { class: "plot-body" }, this.line, ...this.ends);
    this.size = new Size(this.body);
    const unit = info.unit ? ` (${info.unit})` : "";
    this.element = h(
      "div",
      { class: "plot", "data-plot": `${choice.stream}.${choice.field}` },
      h("div", { class: "plot-side" }, h("b", {}, choice.stream), h("span", {}, choice.field + unit), this.legend),
      this.body,
    );
    this.body.addEventListener("pointerdown", (event) => this.scrub(event));
    this.body.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        wheel(session, event, this.timeAt(event.clientX));
      },
      { passive: false },
    );
  }

  private timeAt(clientX: number): number {
    const box = this.body.getBoundingClientRect();
    const [a, b] = this.session.clock.view;
    return a + ((clientX - box.left) / box.width) * (b - a);
  }

  private scrub(event: PointerEvent): void {
    this.body.setPointerCapture(event.pointerId);
    this.session.clock.seek(this.timeAt(event.clientX));
    followPointer(this.body, (e) => this.session.clock.seek(this.timeAt(e.clientX)));
  }

  settled(): boolean {
    return !this.size.width || this.series.failed !== "" || (this.series.ready && this.series.complete);
  }

  update(): void {
    const { clock } = this.session;
    const { width, height } = this.size;
    if (!width || !height) return;
    if (this.series.failed) {
      this.legend.textContent = this.series.failed;
      this.series.complete = true;
      return;
    }
    const [a, b] = clock.view;
    const key = `${a} ${b} ${width} ${height} ${this.series.version} ${theme().text}`;
    if (key !== this.key && this.series.ready) {
      this.key = key;
      this.draw(width, height);
    }
    const x = ((clock.t - a) / (b - a)) * width;
    this.line.style.transform = `translateX(${x.toFixed(1)}px)`;
    this.line.hidden = x < 0 || x > width;
    this.element.classList.toggle("focus", this.session.focus === this.choice.stream);
    this.values();
  }

  private draw(width: number, height: number): void {
    const [a, b] = this.session.clock.view;
    const { x, y } = this.series.window(a, b, width);
    const shown = Math.min(this.series.channels, MOST_SHOWN_CHANNELS);
    const data = [x, ...y.slice(0, shown)] as uPlot.AlignedData;
    const colours = `${theme().dim} ${theme().line}`;
    if (this.plot && this.plot.root.dataset.colours !== colours) {
      this.plot.destroy();
      this.plot = null;
    }
    if (!this.plot) {
      const axis = { stroke: theme().dim, grid: { stroke: theme().line, width: 1 }, ticks: { show: false } };
      this.plot = new uPlot(
        {
          width,
          height,
          padding: [4, 0, 2, 0],
          legend: { show: false },
          hooks: { draw: [(plot) => this.range(plot.scales.y)] },
          cursor: { show: false },
          select: { show: false, left: 0, top: 0, width: 0, height: 0 },
          scales: {
            x: { time: false, range: () => this.session.clock.view.map((t) => t / 1e9) as [number, number] },
          },
          axes: [
            { ...axis, show: false },
            { ...axis, show: false },
          ],
          series: [
            {},
            ...Array.from({ length: shown }, (_, c) => ({
              stroke: colourOf(`channel ${CHANNEL_COLOURS[c % CHANNEL_COLOURS.length]}`),
              width: LINE,
              dash: c >= CHANNEL_COLOURS.length ? [4, 3] : undefined,
              points: { show: false },
            })),
          ],
        },
        data,
        this.body,
      );
      this.plot.root.dataset.colours = colours;
    } else {
      if (this.plot.width !== width || this.plot.height !== height) this.plot.setSize({ width, height });
      this.plot.setData(data);
    }
  }

  private range({ min, max }: uPlot.Scale): void {
    for (const [k, end] of [max, min].entries()) this.ends[k].textContent = typeof end === "number" ? String(Number(end.toPrecision(4))) : "";
  }

  private values(): void {
    const { clock } = this.session;
    const i = this.series.stamps.nearest(clock.t);
    // While playing, numbers that change sixty times a second cannot be read.
    const key = `${i} ${this.series.version} ${clock.playing ? Math.floor(clock.t / 1e8) : clock.t}`;
    if (key === this.legendKey) return;
    this.legendKey = key;
    const values = this.series.sample(i);
    const off = i >= 0 ? deviation(this.series.stamps.ns[i] - clock.t) : "no sample";
    const rows: Node[] = [h("span", { class: "delta" }, `Δ ${off}`)];
    for (let c = 0; c < Math.min(this.series.channels, MOST_SHOWN_CHANNELS); c++) {
      const name = this.series.channels > 1 ? `${this.names[c] ?? c} ` : "";
      const row = h("span", { class: "value" }, name + (values ? values[c].toPrecision(4) : "…"));
      row.style.color = colourOf(`channel ${CHANNEL_COLOURS[c % CHANNEL_COLOURS.length]}`);
      rows.push(row);
    }
    if (this.series.channels > MOST_SHOWN_CHANNELS)
      rows.push(h("span", {}, `+${this.series.channels - MOST_SHOWN_CHANNELS} more`));
    this.legend.replaceChildren(...rows);
  }

  close(): void {
    this.plot?.destroy();
  }
}

// Wheel over anything on the shared time axis: zoom about the pointer, Shift or sideways pans.
export function wheel(session: Session, event: WheelEvent, about: number): void {
  const { clock } = session;
  const [a, b] = clock.view;
  const sideways = event.shiftKey ? event.deltaY : event.deltaX;
  if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
    const by = (sideways / 800) * (b - a);
    clock.setView(a + by, b + by);
  } else clock.zoom(Math.exp(event.deltaY / 400), about);
}

export class SignalsPanel implements Panel {
  readonly element: HTMLElement;
  private plots: Plot[] = [];
  private readonly list: HTMLElement;
  private readonly picker: HTMLElement;
  private readonly choices: Choice[];

  constructor(private readonly session: Session) {
    this.choices = session.streams
      .filter((s) => s.kind === "signal" && s.count > 0)
      .flatMap((s) =>
        Object.entries(s.fields)
          .filter(([, f]) => !f.ragged && f.shape.reduce((a, b) => a * b, 1) <= 64)
          .map(([field]) => ({ stream: s.name, field })),
      );
    this.list = h("div", { class: "plots" });
    const box = h("div", { class: "picker-list" });
    this.picker = picker("signals", box);
    for (const choice of this.choices) {
      const key = `${choice.stream}.${choice.field}`;
      box.append(
        h(
          "label",
          {},
          h("input", {
            type: "checkbox",
            checked: this.wanted().includes(key),
            "data-key": key,
            onchange: (event: Event) => this.toggle(key, (event.target as HTMLInputElement).checked),
          }),
          key,
        ),
      );
    }
    this.element = h("section", { class: "signals", "aria-label": "signals" }, this.picker, this.list);
    this.element.style.setProperty("--gutter", `${GUTTER}px`);
    if (!this.choices.length) this.list.append(h("p", { class: "empty" }, "no signals in this episode"));
    this.rebuild();
  }

  private wanted(): string[] {
    const saved = this.session.preferences.signals;
    const all = this.choices.map((c) => `${c.stream}.${c.field}`);
    const known = saved?.filter((key) => all.includes(key));
    if (known?.length) return known;
    // A stream of a few samples holds settings; one field each of the others is a good start.
    const lively = this.choices.filter((c) => {
      const stream = this.session.stream(c.stream)!;
      return stream.count >= 10 && !/Info$/.test(stream.source_type ?? "") && !/covariance/.test(c.field);
    });
    const first = lively.filter((c, i) => lively.findIndex((o) => o.stream === c.stream) === i);
    const rest = lively.filter((c) => !first.includes(c));
    return [...first, ...rest].slice(0, DEFAULT_PLOTS).map((c) => `${c.stream}.${c.field}`);
  }

  private toggle(key: string, on: boolean): void {
    const wanted = this.wanted().filter((k) => k !== key);
    this.session.preferences.signals = on ? [...wanted, key] : wanted;
    this.session.touch();
    this.rebuild();
  }

  // Brings a stream into sight; one that is not shown is added.
  reveal(stream: string): void {
    const shown = () => this.plots.find((p) => p.choice.stream === stream);
    const choice = this.choices.find((c) => c.stream === stream);
    if (!choice) return;
    if (!shown()) this.toggle(`${choice.stream}.${choice.field}`, true);
    shown()?.element.scrollIntoView({ block: "nearest" });
  }

  private rebuild(): void {
    for (const plot of this.plots) plot.close();
    const wanted = this.wanted();
    for (const box of this.picker.querySelectorAll<HTMLInputElement>("input")) box.checked = wanted.includes(box.dataset.key!);
    this.plots = this.choices
      .filter((c) => wanted.includes(`${c.stream}.${c.field}`))
      .map((choice) => new Plot(this.session, choice));
    if (this.plots.length) this.list.replaceChildren(...this.plots.map((p) => p.element));
  }

  update(): void {
    for (const plot of this.plots) plot.update();
  }

  settled(): boolean {
    return this.plots.every((plot) => plot.settled());
  }
}
