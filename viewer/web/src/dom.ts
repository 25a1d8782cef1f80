// Small helpers around the DOM. Text always goes in as text: episode files are not trusted.

type Props = Record<string, unknown>;
type Child = Node | string | null | undefined | false;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on") && typeof value === "function")
      element.addEventListener(key.slice(2), value as EventListener);
    else if (key === "class") element.className = String(value);
    else if (key in element && !key.includes("-")) (element as unknown as Props)[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((c): c is Node | string => !!c));
  return element;
}

export interface Theme {
  text: string;
  dim: string;
  faint: string;
  panel: string;
  line: string;
  accent: string;
  warn: string;
  bad: string;
  good: string;
}

let cached: Theme | null = null;

// Colours of the current theme, for canvases.
export function theme(): Theme {
  if (!cached) {
    const style = getComputedStyle(document.documentElement);
    const get = (name: string) => style.getPropertyValue(`--${name}`).trim();
    cached = {
      text: get("text"),
      dim: get("dim"),
      faint: get("faint"),
      panel: get("panel"),
      line: get("line"),
      accent: get("accent"),
      warn: get("warn"),
      bad: get("bad"),
      good: get("good"),
    };
  }
  return cached;
}

export function themeChanged(): void {
  cached = null;
}

// Okabe and Ito's palette, readable with any colour vision; black is left out.
const PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#3D8BD4", "#D55E00", "#CC79A7"];
const known = new Map<string, string>();

// A colour per label, handed out in order of first use, so that few labels never share one.
export function colourOf(label: string): string {
  let colour = known.get(label);
  if (!colour) {
    colour = PALETTE[known.size % PALETTE.length];
    known.set(label, colour);
  }
  return colour;
}

// The same, dark enough for lines on the page itself.
export function lineColourOf(label: string): string {
  const colour = colourOf(label);
  if (document.documentElement.dataset.theme !== "light") return colour;
  const channels = [1, 3, 5].map((k) => Math.round(0.72 * parseInt(colour.slice(k, k + 2), 16)));
  return `rgb(${channels.join(",")})`;
}

export function reserveColours(labels: Iterable<string>): void {
  for (const label of labels) colourOf(label);
}

// A chosen button says so at once, before the list is drawn again: Enter right after the click has
// to accept what was chosen, not to choose it again.
export function markChosen(event: Event): void {
  (event.currentTarget as HTMLElement).setAttribute("aria-selected", "true");
}

// A list that opens below its name and is closed by Escape or a press beside it.
export function picker(name: string, list: HTMLElement): HTMLDetailsElement {
  const summary = h("summary", {}, name);
  const element = h("details", { class: "picker" }, summary, list);
  // On the window, where no panel cuts it off.
  element.addEventListener("toggle", () => {
    const { top, bottom, right } = summary.getBoundingClientRect();
    const below = innerHeight - bottom >= Math.min(300, top);
    Object.assign(list.style, {
      right: `${innerWidth - right}px`,
      top: below ? `${bottom}px` : "auto",
      bottom: below ? "auto" : `${innerHeight - top}px`,
      maxHeight: `${(below ? innerHeight - bottom : top) - 8}px`,
    });
  });
  window.addEventListener("pointerdown", (e) => {
    if (!element.contains(e.target as Node)) element.open = false;
  });
  element.addEventListener("keydown", (e) => {
    if (e.key !== "Escape" || !element.open) return;
    e.stopPropagation();
    element.open = false;
  });
  return element;
}

// Follows a pressed pointer until it is released or taken away (a touch that becomes a scroll); `end`
// comes once either way.
export function followPointer(target: HTMLElement | Window, move: (e: PointerEvent) => void, end: () => void = () => {}): void {
  const listener = move as EventListener;
  const stop = () => {
    target.removeEventListener("pointermove", listener);
    target.removeEventListener("pointerup", stop);
    target.removeEventListener("pointercancel", stop);
    end();
  };
  target.addEventListener("pointermove", listener);
  target.addEventListener("pointerup", stop);
  target.addEventListener("pointercancel", stop);
}

// An element's size in CSS pixels, kept by an observer: reading it, unlike `clientWidth`, never makes
// the browser lay out the page.
export class Size {
  private seen: [number, number] | null = null;

  constructor(private readonly element: HTMLElement, changed?: () => void) {
    new ResizeObserver(() => {
      this.seen = [element.clientWidth, element.clientHeight];
      changed?.();
    }).observe(element);
  }

  get width(): number {
    return this.seen ? this.seen[0] : this.element.clientWidth;
  }

  get height(): number {
    return this.seen ? this.seen[1] : this.element.clientHeight;
  }
}

// Sizes a canvas to its box in device pixels; returns a context scaled to CSS pixels, or null while
// the canvas is not laid out.
export function fit(canvas: HTMLCanvasElement, size?: Size): CanvasRenderingContext2D | null {
  const ratio = window.devicePixelRatio || 1;
  const width = size?.width ?? canvas.clientWidth;
  const height = size?.height ?? canvas.clientHeight;
  if (!width || !height) return null;
  const w = Math.round(width * ratio);
  const hgt = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== hgt) {
    canvas.width = w;
    canvas.height = hgt;
  }
  const context = canvas.getContext("2d");
  if (!context) return null;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

export function seconds(t: number, digits = 3): string {
  return (t / 1e9).toFixed(digits);
}

export function clockTime(t: number): string {
  const s = Math.max(0, t) / 1e9;
  const m = Math.floor(s / 60);
  return `${String(m).padStart(2, "0")}:${(s - 60 * m).toFixed(3).padStart(6, "0")}`;
}

export function deviation(ns: number): string {
  const ms = ns / 1e6;
  const sign = ms > 0 ? "+" : ms < 0 ? "−" : "±";
  const size = Math.abs(ms);
  return size >= 10_000
    ? `${sign}${(size / 1000).toFixed(1)} s`
    : `${sign}${size.toFixed(size < 100 ? 1 : 0)} ms`;
}
