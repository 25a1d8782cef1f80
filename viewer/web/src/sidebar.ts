// The right-hand side: labels and their details, findings, history, streams; its tab Review is in review.ts.

import { countPoints } from "./boxes";
import { own } from "./commands";
import { ask } from "./dialogs";
import { colourOf, deviation, h, markChosen, seconds } from "./dom";
import type { Worklist } from "./findings";
import { Review } from "./review";
import type { Panel, Session } from "./session";
import { verdictOf } from "./timeline";
import type { Annotation, AttributeRule, EventMark, Operation, Phase, Track3D } from "./types";

const TABS = ["Labels", "Findings", "Review", "History", "Streams"] as const;
type Tab = (typeof TABS)[number];
const VERDICTS: Record<string, string> = { PASSED: "✓", FAILED: "✗", NOT_ASSESSED: "?" };
const isTab = (name: string): name is Tab => (TABS as readonly string[]).includes(name);

export class Sidebar implements Panel {
  readonly element: HTMLElement;
  private tab: Tab = "Labels";
  private readonly body = h("div", { class: "side-body", role: "tabpanel" });
  private readonly tabs: Map<Tab, HTMLButtonElement>;
  private key = "";
  private streamsKey = "";
  private othersOpen = false;
  // While a button of the list is held down: a list drawn anew then would swallow the click.
  private pressed = false;
  // What of the selection's details depends on the cursor.
  private follow: { t: number; update: () => void } | null = null;
  private readonly review: Review;

  constructor(
    private readonly session: Session,
    private readonly worklist: Worklist,
    publish: () => unknown,
  ) {
    this.review = new Review(session, publish);
    this.body.addEventListener("pointerdown", () => (this.pressed = true));
    for (const up of ["pointerup", "pointercancel"])
      window.addEventListener(up, () => {
        if (!this.pressed) return;
        // After the click that follows.
        setTimeout(() => {
          this.pressed = false;
          this.update();
        });
      });
    this.tabs = new Map(
      TABS.map((name) => [
        name,
        h("button", { type: "button", role: "tab", "aria-selected": String(name === this.tab), onclick: () => this.open(name) }, name),
      ]),
    );
    this.element = h("aside", { class: "sidebar", "aria-label": "details" }, h("div", { class: "tabs", role: "tablist" }, ...this.tabs.values()), this.body);
  }

  open(tab: string): void {
    if (!isTab(tab)) return;
    this.tab = tab;
    for (const [name, button] of this.tabs) button.setAttribute("aria-selected", String(name === tab));
    this.key = "";
    this.reviewChanged();
  }

  reviewChanged(): void {
    if (this.tab === "Review") this.review.load();
  }

  settled(): boolean {
    return true;
  }

  update(): void {
    const { session } = this;
    if (this.tab === "Streams") return this.updateStreams();
    if (this.tab === "Labels" && this.follow && this.follow.t !== session.clock.t && !session.clock.playing) {
      this.follow.t = session.clock.t;
      this.follow.update();
    }
    const key = `${this.tab} ${session.revision} ${this.worklist.findings.length}`;
    if (key === this.key || session.layers.previews.size || this.pressed) return;
    // What is being typed into must not be pulled away.
    const typing = this.body.contains(document.activeElement) && ["INPUT", "SELECT"].includes(document.activeElement!.tagName);
    if (typing && this.key.startsWith(this.tab)) return;
    this.key = key;
    this.tabs.get("Findings")!.textContent = this.worklist.findings.length ? `Findings ${this.worklist.findings.length}` : "Findings";
    const scroll = this.body.scrollTop;
    const refocus = keepFocus(this.body);
    const parts = { Labels: () => this.labels(), Findings: () => this.worklist.rows(), Review: () => this.review.rows(), History: () => this.history(), Streams: () => [] };
    this.body.replaceChildren(...parts[this.tab]());
    this.body.scrollTop = scroll;
    refocus();
  }

  // -- labels ----------------------------------------------------------------------------------

  private labels(): HTMLElement[] {
    const { session } = this;
    const { layers } = session;
    const layerRows = layers.rows.map((row) => {
      const state = row.hidden ? "hidden until you hand in" : row.problem ? row.problem : `${row.state ?? "draft"}${row.unpublished ? ", not published" : ""}`;
      return h(
        "div",
        { class: row.name === layers.active ? "layer on" : "layer" },
        h("input", { type: "checkbox", checked: layers.shown.has(row.name), disabled: !!row.hidden || !!row.problem, "aria-label": `show layer ${row.name}`, onchange: (e: Event) => void layers.show(row.name, (e.target as HTMLInputElement).checked) }),
        h("button", { type: "button", class: "link", disabled: !!row.hidden || !!row.problem || !!row.embedded, title: row.embedded ? "embedded in the episode: look only" : "edit this layer", onclick: () => layers.activate(row.name).catch((e) => session.say(e.message, "bad")) }, row.name),
        h("small", {}, state),
      );
    });
    const list = h("div", { class: "items", role: "listbox", "aria-label": "labels" });
    const others = h("details", { class: "others", open: this.othersOpen, ontoggle: (e: Event) => (this.othersOpen = (e.target as HTMLDetailsElement).open) }, h("summary", {}, "other layers"));
    const add = (layer: string, collection: string, item: Annotation, when: string, text: string, t: number) => {
      const chosen = session.isSelected(item.id);
      const dot = h("span", { class: "dot" });
      dot.style.background = colourOf(String(item.label ?? "comment"));
      (layer === layers.active ? list : others).append(
        h(
          "button",
          { type: "button", class: chosen ? "item on" : "item", role: "option", "aria-selected": String(chosen), onclick: (e: Event) => { session.select({ layer, collection, id: item.id }); session.clock.seek(t); markChosen(e); } },
          dot,
          h("span", { class: "what" }, text),
          h("small", { title: collection === "tracks_3d" ? "keyframes" : "" }, layer === layers.active ? when : `${when} · ${layer}`),
        ),
      );
    };
    const captions = layers.all("captions").filter((c) => c.item.style === "instruction");
    for (const { item, layer } of layers.all<Track3D>("tracks_3d"))
      add(layer, "tracks_3d", item, `${item.stamp_ns.length} ◆`, `${item.label} ${item.object_id}`, item.stamp_ns[0]);
    for (const { item, layer } of layers.all<Phase>("phases").sort((a, b) => a.item.start_ns - b.item.start_ns))
      add(layer, "phases", item, `${seconds(item.start_ns, 2)}–${seconds(item.end_ns, 2)} s`, `${item.label}${item.success === undefined ? "" : item.success ? " ✓" : " ✗"}`, item.start_ns);
    for (const { item, layer } of layers.all<EventMark>("events").sort((a, b) => a.item.stamp_ns - b.item.stamp_ns))
      add(layer, "events", item, `${seconds(item.stamp_ns, 3)} s`, `◆ ${item.label}`, item.stamp_ns);
    if (!list.children.length) list.append(h("p", { class: "empty" }, "No labels of yours yet. N begins a phase, V marks an event, B draws a box; ? shows all keys."));
    if (!list.querySelector("button") && others.children.length > 1)
      list.append(h("p", { class: "empty" }, "Or begin with what others made: select it, here or in the timeline; Enter takes it over, Shift+Enter all of its tier."));
    const instruction = captions[0]?.item.text ?? this.session.api.manifest.metadata.instruction;
    return [
      h("div", { class: "layers" }, ...layerRows),
      instruction ? h("p", { class: "instruction", title: "instruction (I edits)" }, `“${String(instruction)}”`) : h("p", { class: "empty" }, "no instruction (I writes one)"),
      this.inspector(),
      list,
      ...(others.children.length > 1 ? [others] : []),
    ];
  }

  private inspector(): HTMLElement {
    const { session } = this;
    this.follow = null;
    const s = session.selection;
    const item = s && session.layers.get(s.layer, s.collection, s.id);
    if (!s || !item) return h("div", { class: "inspector empty" }, "nothing selected");
    const editable = s.layer === session.layers.active;
    const rows: (HTMLElement | null)[] = [];
    const field = (name: string, value: string, onset?: (text: string) => Annotation | null) =>
      h(
        "label",
        {},
        h("span", {}, name),
        h("input", {
          type: "text",
          value,
          disabled: !editable || !onset,
          onchange: (e: Event) => {
            const after = onset?.((e.target as HTMLInputElement).value);
            if (after && own(session)) void session.layers.edit([{ collection: s.collection, id: s.id, after }]);
            (e.target as HTMLInputElement).blur();
          },
        }),
      );
    const time = (name: string) =>
      field(`${name.replace("_ns", "")} (s)`, seconds(item[name] as number, 4), (text) => {
        const value = Math.round(Number(text) * 1e9);
        return Number.isFinite(value) ? { ...item, [name]: value } : null;
      });
    rows.push(field("label", String(item.label ?? ""), (text) => (text ? { ...item, label: text } : null)));
    if (s.collection === "phases") rows.push(field("tier", String(item.tier)), time("start_ns"), time("end_ns"), h("p", { class: "hint" }, `${seconds((item.end_ns as number) - (item.start_ns as number), 3)} s long. Outcome: ${item.success === undefined ? "not judged" : item.success ? "success" : "failure"} (Y).`));
    if (s.collection === "events") rows.push(time("stamp_ns"));
    if (s.collection === "tracks_3d") rows.push(...this.trackRows(item as Track3D, editable));
    const attributes = (item.attributes ?? {}) as Record<string, unknown>;
    const rules: AttributeRule[] = session.taxonomy.object_classes.find((c) => c.label === item.label)?.attributes ?? [];
    for (const name of new Set([...rules.map((r) => r.name), ...Object.keys(attributes)]))
      rows.push(
        field(name, attributes[name] === undefined ? "" : String(attributes[name]), (text) => {
          const rest = { ...attributes };
          delete rest[name];
          const rule = rules.find((r) => r.name === name);
          const value = rule?.type === "bool" ? text === "true" : rule?.type === "int" || rule?.type === "float" ? Number(text) : text;
          return { ...item, attributes: text ? { ...rest, [name]: value } : rest };
        }),
      );
    if (editable)
      rows.push(
        h("button", { type: "button", class: "link", onclick: async () => {
          const name = await ask("Name of the attribute");
          if (name) void session.layers.edit([{ collection: s.collection, id: s.id, after: { ...item, attributes: { ...attributes, [name]: true } } }]);
        } }, "+ attribute"),
      );
    else rows.push(h("p", { class: "hint" }, `of layer ${s.layer}: Enter copies it into yours, Shift+Enter all of its tier`));
    const evidence = (item.evidence as any[] | undefined) ?? [];
    if (evidence.length)
      rows.push(h("details", {}, h("summary", {}, `evidence (${evidence.length})`), ...evidence.map((e) => h("p", { class: "hint" }, `${e.boundary ?? ""} ${e.kind}${e.stream ? ` on ${e.stream}` : ""}${e.score === undefined ? "" : `, score ${e.score.toFixed(2)}`}`))));
    return h("div", { class: "inspector" }, ...rows);
  }

  private trackRows(track: Track3D, editable: boolean): HTMLElement[] {
    const { session } = this;
    const strip = h("div", { class: "keyframes", "aria-label": "keyframes" });
    track.stamp_ns.forEach((t, i) => {
      const shown = track.interpolated?.[i] ? "◇" : "◆";
      strip.append(h("button", { type: "button", class: "key", title: `${seconds(t)} s${track.gap_after?.[i] ? ", then gone" : ""}`, onclick: () => session.clock.seek(t) }, shown + (track.gap_after?.[i] ? "|" : "")));
    });
    const count = h("p", { class: "hint" }, "");
    const update = () => {
      const { t } = session.clock;
      track.stamp_ns.forEach((key, i) => strip.children[i].classList.toggle("on", Math.abs(key - t) < 1e6));
      countPoints(session, track, t)
        .then((n) => (n === null ? "no cloud here" : `${n.toLocaleString("en")} points inside`))
        .catch((e) => String(e.message))
        .then((text) => {
          if (session.clock.t === t) count.textContent = text;
        });
    };
    update();
    this.follow = { t: session.clock.t, update };
    return [
      h("p", { class: "hint" }, `${track.object_id} in frame ${track.frame_id}`),
      strip,
      count,
      h("p", { class: "hint" }, editable ? "arrows, PgUp/PgDn move · Q/E turn · Ctrl+arrows size · F fit · K keyframe" : ""),
    ];
  }

  // -- history ---------------------------------------------------------------------------------

  private history(): HTMLElement[] {
    const { session } = this;
    const s = session.selection;
    if (!s) return [h("p", { class: "empty" }, "Select a label to see who changed it and how.")];
    const body = h("div", {});
    session.api.layer(s.layer, `history/${encodeURIComponent(s.id)}`).then(
      ({ operations }: { operations: Operation[] }) => {
        body.replaceChildren(
          ...operations.reverse().map((o) => {
            const item = o.items[0];
            return h("div", { class: "finding" }, h("b", {}, `r${o.revision} ${o.kind}`), ` by ${o.user}`, h("small", {}, `${when(o.unix_ns)} · ${difference(item.before, item.after)}`));
          }),
        );
        if (!operations.length) body.append(h("p", { class: "empty" }, "unchanged since the layer was opened here"));
      },
      (e) => body.append(h("p", { class: "empty" }, e.message)),
    );
    const item = session.layers.get(s.layer, s.collection, s.id);
    return [h("h3", {}, String(item?.label ?? item?.text ?? s.collection)), h("p", { class: "hint" }, `${s.id} of layer ${s.layer}`), body];
  }

  // -- streams ---------------------------------------------------------------------------------

  private updateStreams(): void {
    const { session } = this;
    const key = `${session.clock.playing ? Math.floor(session.clock.t / 2e8) : session.clock.t} ${session.revision}`;
    if (key === this.streamsKey && this.key === "Streams") return;
    this.streamsKey = key;
    this.key = "Streams";
    const rows = session.streams.map((stream) => {
      const stamps = session.stamps.get(stream.name)!;
      const i = stamps.nearest(session.clock.t);
      const off = i >= 0 ? stamps.ns[i] - session.clock.t : NaN;
      const verdict = verdictOf(session, stream.name);
      return h(
        "tr",
        {},
        h("th", { scope: "row", title: `${stream.name}: ${stream.kind}; stamps: ${stream.stamp_source ?? "unknown"}, ${stream.stamp_meaning}; clock ${stream.clock ?? "unknown"}` }, stream.name),
        h("td", { class: Math.abs(off) <= 1.5 * (stamps.period || Infinity) ? "" : "far" }, i >= 0 ? deviation(off) : "–"),
        h("td", {}, stream.rate_hz ? stream.rate_hz.toPrecision(3) : "–"),
        h("td", { class: stream.gaps.length ? "far" : "" }, String(stream.gaps.length)),
        h("td", { class: verdict === "FAILED" ? "bad" : "", title: verdict ?? "" }, VERDICTS[verdict ?? ""] ?? "–"),
      );
    });
    this.body.replaceChildren(
      h("table", { class: "streams" }, h("thead", {}, h("tr", {}, ...["stream", "Δ cursor", "Hz", "gaps", "sync"].map((t) => h("th", {}, t)))), h("tbody", {}, ...rows)),
      h("p", { class: "hint" }, "Δ: stamp of the sample shown minus the cursor. sync: what the episode's ledger says (`mmdata check` writes it): ✓ passed, ✗ failed, ? not decided, – nothing."),
    );
  }
}

// Where the keyboard is in a list that is made anew: call the result afterwards. A pointer leaves no
// focus behind, so that keys go on to mean what the sheet says.
function keepFocus(body: HTMLElement): () => void {
  const reachable = () => [...body.querySelectorAll<HTMLElement>("button, a, input, summary")];
  const active = document.activeElement as HTMLElement | null;
  const all = reachable();
  const at = active && active.matches(":focus-visible") ? all.indexOf(active) : -1;
  if (at < 0) return () => {};
  const text = active!.textContent;
  const same = all.slice(0, at).filter((e) => e.textContent === text).length;
  return () => {
    const now = reachable();
    (now.filter((e) => e.textContent === text)[same] ?? now[at])?.focus({ preventScroll: true });
  };
}

function when(unix: unknown): string {
  const ns = typeof unix === "object" && unix ? (unix as { $int: string }).$int : String(unix);
  return new Date(Number(BigInt(ns) / 1_000_000n)).toLocaleString();
}

function difference(before: Annotation | null, after: Annotation | null): string {
  if (!before) return "made";
  if (!after) return "removed";
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  const changed = [...names].filter((n) => JSON.stringify(before[n]) !== JSON.stringify(after[n]));
  return changed.map((n) => `${n.replace(/_ns$/, "")}${typeof after[n] === "string" ? `: ${String(before[n])} → ${String(after[n])}` : ""}`).join(", ");
}
