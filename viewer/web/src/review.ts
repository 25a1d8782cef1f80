// The tab Review: the state of the layer in use, comments, double annotation, comparison, the queue.

import { ask, choose } from "./dialogs";
import { h, markChosen, seconds } from "./dom";
import type { Session } from "./session";
import type { Annotation } from "./types";

const STEPS: Record<string, [to: string, name: string][]> = {
  draft: [["review", "Hand in for review"]],
  review: [["accepted", "Accept"], ["rejected", "Reject"], ["draft", "Back to draft"]],
  accepted: [["review", "Reopen"]],
  rejected: [["draft", "Back to draft"]],
};

export class Review {
  private agreement: any = null;
  private assigned: { annotators: string[]; adjudicator: string | null } = { annotators: [], adjudicator: null };
  private queue: any[] = [];
  private unreadable: { episode: string; reason: string }[] = [];

  constructor(
    private readonly session: Session,
    private readonly publish: () => unknown,
  ) {}

  // Asks the server how things stand.
  load(): void {
    this.fetch().catch((error) => this.session.say(String(error.message ?? error), "bad"));
  }

  private async fetch(): Promise<void> {
    const { session } = this;
    this.assigned = await session.api.call("assignment");
    const waiting = await session.api.api.json("/api/queue");
    this.queue = waiting.queue;
    this.unreadable = waiting.unreadable;
    session.touch();
  }

  rows(): HTMLElement[] {
    const { session } = this;
    const { layers } = session;
    const state = layers.document?.review?.state ?? "draft";
    const step = async (to: string) => {
      const note = to === "rejected" ? await ask("Why?", "", true) : "";
      if (note === null) return;
      await layers.act("review", { state: to, note }).catch((e) => session.say(e.message, "bad"));
      this.load();
    };
    const steps = ((layers.document?.review?.history ?? []) as any[]).map((s) => h("p", { class: "hint" }, `${s.previous} → ${s.state} by ${s.by}${s.note ? `: ${s.note}` : ""}`));
    const comments = this.comments();
    return [
      h("h3", {}, `Layer ${layers.active}: ${state}`),
      h("div", { class: "buttons" }, ...(STEPS[state] ?? []).map(([to, name], i) => h("button", { type: "button", class: i ? "" : "primary", onclick: () => void step(to) }, name)), h("button", { type: "button", onclick: () => void this.publish() }, "Publish (Ctrl+S)")),
      ...steps,
      h("h3", {}, `Comments (${comments.length})`),
      ...(comments.length ? comments : [h("p", { class: "empty" }, "P writes one, pinned to this instant, view and selection.")]),
      h("h3", {}, "Double annotation"),
      h("p", { class: "hint" }, this.assigned.annotators.length ? `blind: ${this.assigned.annotators.join(", ")}${this.assigned.adjudicator ? `; adjudicator ${this.assigned.adjudicator}` : ""}` : "Nobody is assigned. Assigned people do not see each other's layers until they have handed in their own."),
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => void this.assign() }, "Assign"), h("button", { type: "button", onclick: () => void this.compare() }, "Compare two layers")),
      ...this.agreementRows(),
      h("h3", {}, `Review queue (${this.queue.length})`),
      ...(this.queue.length ? this.queue.map((q) => this.queued(q)) : [h("p", { class: "empty" }, "No layer of any episode here waits for a review.")]),
      ...this.unreadable.map((e) => h("p", { class: "bad" }, `${e.episode} has labels and cannot be opened (${e.reason}); mmdata verify says more.`)),
    ];
  }

  private comments(): HTMLElement[] {
    const { session } = this;
    const { layers } = session;
    const rows = layers.all("comments").sort((a, b) => (pinOf(a.item).stamp_ns ?? 0) - (pinOf(b.item).stamp_ns ?? 0));
    return rows.map(({ layer, item }) => {
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
  }

  private async assign(): Promise<void> {
    const { session } = this;
    const text = await ask("Blind annotators, separated by commas (empty: nobody)", this.assigned.annotators.join(", "));
    if (text === null) return;
    const annotators = text.split(",").map((s) => s.trim()).filter(Boolean);
    const adjudicator = annotators.length ? await ask("Adjudicator, who sees both (may be empty)", this.assigned.adjudicator ?? "") : "";
    if (adjudicator === null) return;
    try {
      await session.api.call("assignment", { annotators, adjudicator }, "PUT");
      await session.layers.reassigned();
    } catch (e: any) {
      session.say(e.message, "bad");
    }
    this.load();
  }

  private async compare(): Promise<void> {
    const { session } = this;
    const names = session.layers.rows.filter((row) => !row.hidden && !row.problem).map((row) => row.name);
    if (names.length < 2) return session.say("there is no second layer to compare with");
    const a = await choose("Compare which layer", names, { closed: true });
    const b = a && (await choose(`Compare ${a} with`, names.filter((n) => n !== a), { closed: true }));
    if (!a || !b) return;
    try {
      this.agreement = await session.api.call(`agreement?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`);
    } catch (e: any) {
      session.say(e.message, "bad");
    }
    session.touch();
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
      out.push(h("p", { class: "hint", title: "κ: Cohen's kappa, 1 is full agreement, 0 that of chance. Boundary F1: boundaries within 0.1 s of each other count as the same." }, `${tier}: same label ${(100 * n.time_agreement).toFixed(1)} % of the time, κ ${n.kappa?.toFixed(3) ?? "undefined"}, boundary F1 ${n.boundary_f1?.toFixed(3) ?? "undefined"}`));
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
      markChosen(event);
    };
    for (const d of a.differences)
      out.push(
        h("div", { class: "finding warning" },
          h("span", {}, `${seconds(d.stamp_ns, 2)} s ${d.tier ?? `${d.kind === "object" ? "object" : `${d.kind} of`} ${d.object_id}`}${d.kind === "place" ? `, ${d.centre_m.toFixed(2)} m and ${((d.rotation_rad * 180) / Math.PI).toFixed(0)}° apart` : ""}: `),
          h("button", { type: "button", class: "link", disabled: !d.a_id, "aria-selected": chosen("a", d), onclick: (e: Event) => take("a", d, e) }, `${a.a}: ${d.a ?? "nothing"}`),
          " / ",
          h("button", { type: "button", class: "link", disabled: !d.b_id, "aria-selected": chosen("b", d), onclick: (e: Event) => take("b", d, e) }, `${a.b}: ${d.b ?? "nothing"}`),
          h("small", {}, "select one, Enter takes it over")),
      );
    return out;
  }

  private jumpToPin(pin: any): void {
    const { session } = this;
    if (pin.stamp_ns !== undefined) session.clock.seek(pin.stamp_ns);
    if (pin.stream) session.focus = pin.stream;
    if (pin.annotation_id) session.selectId(pin.annotation_id);
  }
}

const pinOf = (item: Annotation): any => item.pin ?? {};
