// The right-hand side: labels and their details, findings, review and comments, history, streams.

import { countPoints } from "./boxes";
import { own } from "./commands";
import { ask, choose } from "./dialogs";
import { colourOf, deviation, h, seconds } from "./dom";
import type { Worklist } from "./findings";
import type { Panel, Session } from "./session";
import { verdictOf } from "./timeline";
import type { Annotation, AttributeRule, EventMark, Operation, Phase, Track3D } from "./types";

const TABS = ["Labels", "Findings", "Review", "History", "Streams"] as const;
type Tab = (typeof TABS)[number];
const isTab = (name: string): name is Tab => (TABS as readonly string[]).includes(name);

export class Sidebar implements Panel {
  readonly element: HTMLElement;
  private tab: Tab = "Labels";
  private readonly body = h("div", { class: "side-body", role: "tabpanel" });
  private readonly tabs: Map<Tab, HTMLButtonElement>;
  private key = "";
  private streamsKey = "";
  private agreement: any = null;
  private assigned: { annotators: string[]; adjudicator: string | null } = { annotators: [], adjudicator: null };
  private queue: any[] = [];
  private othersOpen = false;
  // While a button of the list is held down: a list drawn anew then would swallow the click.
  private pressed = false;
  // What of the selection's details depends on the cursor.
  private follow: { t: number; update: () => void } | null = null;

  constructor(
    private readonly session: Session,
    private readonly worklist: Worklist,
    private readonly publish: () => unknown,
  ) {
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
    if (this.tab === "Review") this.loadReview().catch((error) => this.session.say(String(error.message ?? error), "bad"));
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
    const parts = { Labels: () => this.labels(), Findings: () => this.worklist.rows(), Review: () => this.review(), History: () => this.history(), Streams: () => [] };
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
          { type: "button", class: chosen ? "item on" : "item", role: "option", "aria-selected": String(chosen), onclick: (e: Event) => { session.select({ layer, collection, id: item.id }); session.clock.seek(t); mark(e); } },
          dot,
          h("span", { class: "what" }, text),
          h("small", {}, layer === layers.active ? when : `${when} · ${layer}`),
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

  // -- review ----------------------------------------------------------------------------------

  private async loadReview(): Promise<void> {
    const { session } = this;
    this.assigned = await session.api.call("assignment");
    this.queue = (await session.api.api.json("/api/queue")).queue;
    session.touch();
  }

  private review(): HTMLElement[] {
    const { session } = this;
    const { layers } = session;
    const state = layers.document?.review?.state ?? "draft";
    const next: Record<string, [string, string][]> = {
      draft: [["review", "Hand in for review"]],
      review: [["accepted", "Accept"], ["rejected", "Reject"], ["draft", "Back to draft"]],
      accepted: [["review", "Reopen"]],
      rejected: [["draft", "Back to draft"]],
    };
    const step = async (to: string) => {
      const note = to === "rejected" ? await ask("Why?", "", true) : "";
      if (note === null) return;
      await layers.act("review", { state: to, note }).catch((e) => session.say(e.message, "bad"));
      this.reviewChanged();
    };
    const steps = ((layers.document?.review?.history ?? []) as any[]).map((s) => h("p", { class: "hint" }, `${s.previous} → ${s.state} by ${s.by}${s.note ? `: ${s.note}` : ""}`));
    const comments = layers.all("comments").sort((a, b) => (pinOf(a.item).stamp_ns ?? 0) - (pinOf(b.item).stamp_ns ?? 0));
    const rows = comments.map(({ layer, item }) => {
      const pin = pinOf(item);
      const who = (item.provenance as any)?.author ?? layer;
      const mine = layer === layers.active;
      return h(
        "div",
        { class: item.resolved ? "comment done" : "comment" },
        h("button", { type: "button", class: "link", onclick: () => this.jumpToPin(pin) }, h("b", {}, who), " ", String(item.text)),
        h("small", {}, [pin.stamp_ns === undefined ? null : `${seconds(pin.stamp_ns)} s`, pin.stream, pin.object_id ?? pin.annotation_id].filter(Boolean).join(" · ")),
        mine ? h("button", { type: "button", onclick: () => void layers.edit([{ collection: "comments", id: item.id, after: { ...item, resolved: !item.resolved } }]) }, item.resolved ? "reopen" : "resolve") : null,
      );
    });
    const people = layers.rows.filter((r) => !r.hidden).map((r) => r.name);
    const compare = async () => {
      const a = await choose("Compare which layer", people);
      const b = a && (await choose(`Compare ${a} with`, people.filter((p) => p !== a)));
      if (!a || !b) return;
      try {
        this.agreement = await session.api.call(`agreement?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`);
      } catch (e: any) {
        session.say(e.message, "bad");
      }
      session.touch();
    };
    const assign = async () => {
      const text = await ask("Blind annotators, separated by commas (empty: none)", this.assigned.annotators.join(", "));
      if (text === null) return;
      const annotators = text.split(",").map((s) => s.trim()).filter(Boolean);
      const adjudicator = annotators.length ? await ask("Adjudicator", this.assigned.adjudicator ?? "") : "";
      try {
        await session.api.call("assignment", { annotators, adjudicator }, "PUT");
        await layers.reassigned();
      } catch (e: any) {
        session.say(e.message, "bad");
      }
      this.reviewChanged();
    };
    return [
      h("h3", {}, `Layer ${layers.active}: ${state}`),
      h("div", { class: "buttons" }, ...next[state].map(([to, name], i) => h("button", { type: "button", class: i ? "" : "primary", onclick: () => void step(to) }, name)), h("button", { type: "button", onclick: () => void this.publish() }, "Publish (Ctrl+S)")),
      ...steps,
      h("h3", {}, `Comments (${comments.length})`),
      ...(rows.length ? rows : [h("p", { class: "empty" }, "P writes one, pinned to this instant, view and selection.")]),
      h("h3", {}, "Double annotation"),
      h("p", { class: "hint" }, this.assigned.annotators.length ? `blind: ${this.assigned.annotators.join(", ")}${this.assigned.adjudicator ? `; adjudicator ${this.assigned.adjudicator}` : ""}` : "nobody is assigned"),
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => void assign() }, "Assign"), h("button", { type: "button", onclick: () => void compare() }, "Compare two layers")),
      ...this.agreementRows(),
      h("h3", {}, `Review queue (${this.queue.length})`),
      ...(this.queue.length ? this.queue.map((q) => this.queued(q)) : [h("p", { class: "empty" }, "No layer of any episode here waits for a review.")]),
    ];
  }

  // Leads to the layer that waits, opened for its review.
  private queued(q: any): HTMLElement {
    const { manifest } = this.session.api;
    const here = q.key === manifest.key && q.name === this.session.layers.active;
    const where = new URLSearchParams({ ep: q.episode, layer: q.name, tab: "Review" });
    return h("a", { class: here ? "item on" : "item", href: `?${where}` }, h("span", { class: "what" }, q.episode), h("small", {}, `${q.name}, by ${q.author ?? "?"}`));
  }

  private agreementRows(): HTMLElement[] {
    const a = this.agreement;
    if (!a) return [];
    const out = [h("p", { class: "hint" }, `${a.a} and ${a.b}`)];
    for (const [tier, n] of Object.entries<any>(a.tiers))
      out.push(h("p", { class: "hint" }, `${tier}: same label ${(100 * n.time_agreement).toFixed(1)} % of the time, κ ${n.kappa?.toFixed(3) ?? "undefined"}, boundary F1 ${n.boundary_f1?.toFixed(3) ?? "undefined"}`));
    if (a.tracks_3d) {
      const t = a.tracks_3d;
      out.push(h("p", { class: "hint" }, `objects: ${t.matched} matched, ${t.only_a} only ${a.a}, ${t.only_b} only ${a.b}${t.centre_m === undefined ? "" : `, centres ${t.centre_m.toFixed(2)} m apart, ${((t.rotation_rad * 180) / Math.PI).toFixed(1)}°`}`));
    }
    const chosen = (side: "a" | "b", d: any) => String(!!d[`${side}_id`] && this.session.isSelected(d[`${side}_id`]));
    const take = (side: "a" | "b", d: any, event: Event) => {
      const collection = d.kind === "phase" ? "phases" : "tracks_3d";
      const id = d[`${side}_id`];
      if (!id) return;
      this.session.select({ layer: a[side], collection, id });
      this.session.clock.seek(d.stamp_ns);
      mark(event);
    };
    for (const d of a.differences)
      out.push(
        h("div", { class: "finding warning" },
          h("span", {}, `${seconds(d.stamp_ns, 2)} s ${d.tier ?? `${d.kind} of ${d.object_id}`}${d.kind === "place" ? `, ${d.centre_m.toFixed(2)} m and ${((d.rotation_rad * 180) / Math.PI).toFixed(0)}° apart` : ""}: `),
          h("button", { type: "button", class: "link", "aria-selected": chosen("a", d), onclick: (e: Event) => take("a", d, e) }, `${a.a}: ${d.a ?? "nothing"}`),
          " / ",
          h("button", { type: "button", class: "link", "aria-selected": chosen("b", d), onclick: (e: Event) => take("b", d, e) }, `${a.b}: ${d.b ?? "nothing"}`),
          h("small", {}, "select one, Enter takes it over")),
      );
    return out;
  }

  private jumpToPin(pin: any): void {
    const { session } = this;
    if (pin.stamp_ns !== undefined) session.clock.seek(pin.stamp_ns);
    if (pin.stream) session.focus = pin.stream;
    if (!pin.annotation_id) return;
    for (const [layer, doc] of session.layers.docs)
      for (const [collection, items] of doc.items)
        if (items.has(pin.annotation_id)) session.select({ layer, collection, id: pin.annotation_id });
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
    return [h("h3", {}, s.id), body];
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
        h("th", { scope: "row", title: `${stream.kind}; stamps: ${stream.stamp_source ?? "unknown"}, ${stream.stamp_meaning}; clock ${stream.clock ?? "unknown"}` }, stream.name),
        h("td", { class: Math.abs(off) <= 1.5 * (stamps.period || Infinity) ? "" : "far" }, i >= 0 ? deviation(off) : "–"),
        h("td", {}, stream.rate_hz ? stream.rate_hz.toPrecision(3) : "–"),
        h("td", { class: stream.gaps.length ? "far" : "" }, String(stream.gaps.length)),
        h("td", { class: verdict === "FAILED" ? "bad" : "" }, verdict ?? "–"),
      );
    });
    this.body.replaceChildren(
      h("table", { class: "streams" }, h("thead", {}, h("tr", {}, ...["stream", "Δ cursor", "Hz", "gaps", "sync"].map((t) => h("th", {}, t)))), h("tbody", {}, ...rows)),
      h("p", { class: "hint" }, "Δ: stamp of the sample shown minus the cursor. sync: verdict of the episode's ledger; – where nobody assessed it."),
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

// A chosen button says so at once, before the list is drawn again: Enter right after the click has
// to accept what was chosen, not to choose it again.
function mark(event: Event): void {
  (event.currentTarget as HTMLElement).setAttribute("aria-selected", "true");
}

const pinOf = (item: Annotation): any => item.pin ?? {};

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
