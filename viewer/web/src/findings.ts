// The worklist of findings: each points at places, a place at an instant, a view and an annotation.

import { h, seconds } from "./dom";
import type { Session } from "./session";
import type { Annotation, Change, Finding, Phase, Place } from "./types";

const MOST_LISTED_PLACES = 100;

// Where a finding points; one place at least.
export function placesOf(finding: Finding): Place[] {
  if (finding.details?.length) return finding.details;
  const { stream, stamp_ns, layer, object_id, id } = finding;
  return [{ stream, stamp_ns, layer, object_id, annotation_ids: id ? [id] : [] }];
}

export class Worklist {
  findings: Finding[] = [];
  // What became of the checks asked for when the episode was opened.
  checks: "running" | "done" | { failed: string } = "running";
  // Called with the stream a place is seen in, to bring it into sight.
  reveal: (stream: string) => void = () => {};
  private finding = -1;
  private place = 0;
  // Findings whose places are listed; the rows are made anew whenever something changes.
  private readonly opened = new Set<string>();

  constructor(private readonly session: Session) {}

  set(findings: Finding[]): void {
    const known = this.findings[this.finding];
    this.findings = findings;
    // Rules run again after every edit: the same finding stays the one that is looked at.
    this.finding = known ? findings.findIndex((f) => f.rule === known.rule && f.message === known.message) : -1;
  }

  // The next place (by 1) or the one before (by -1), from finding to finding.
  step(by: 1 | -1): void {
    const count = this.findings.length;
    if (!count) return this.session.say("nothing was found");
    const places = this.finding < 0 ? [] : placesOf(this.findings[this.finding]);
    const place = this.place + by;
    if (place >= 0 && place < places.length) return this.jump(this.findings[this.finding], place);
    const to = this.finding < 0 ? (by > 0 ? 0 : count - 1) : (this.finding + by + count) % count;
    this.jump(this.findings[to], by > 0 ? 0 : placesOf(this.findings[to]).length - 1);
  }

  jump(finding: Finding, place = 0): void {
    const { session } = this;
    this.finding = this.findings.indexOf(finding);
    this.place = place;
    const places = placesOf(finding);
    const at = places[place];
    session.clock.pause();
    const found = this.annotation(at, finding);
    if (found) session.select({ layer: found.layer, collection: found.collection, id: found.item.id });
    const stamp = at.stamp_ns ?? finding.stamp_ns ?? (found ? startOf(found.item) : undefined);
    if (stamp !== undefined) session.clock.seek(stamp);
    const stream = [at.stream, ...(finding.stream ?? "").split("/")].find((name) => name && session.stream(name));
    if (stream) {
      session.focus = stream;
      this.reveal(stream);
      session.touch();
    }
    const which = places.length > 1 ? ` (${place + 1} of ${places.length}${at.message ? `: ${at.message}` : ""})` : "";
    session.say(`${finding.rule}: ${finding.message}${which}`);
  }

  // The annotation a place is about: by its id (a keyframe of a track is `track@stamp`), else the
  // track of its object.
  private annotation(place: Place, finding: Finding): { layer: string; collection: string; item: Annotation } | null {
    const { layers } = this.session;
    const layer = place.layer ?? finding.layer;
    const documents = [...layers.docs].filter(([name]) => (layer ? name === layer : layers.shown.has(name)));
    const ids = (place.annotation_ids ?? []).flatMap((id) => [id, id.split("@")[0]]);
    for (const [name, doc] of documents)
      for (const id of ids)
        for (const [collection, items] of doc.items) {
          const item = items.get(id);
          if (item) return { layer: name, collection, item };
        }
    const object = place.object_id ?? finding.object_id;
    if (object)
      for (const [name, doc] of documents)
        for (const item of doc.items.get("tracks_3d")?.values() ?? [])
          if (item.object_id === object) return { layer: name, collection: "tracks_3d", item };
    return null;
  }

  rows(): HTMLElement[] {
    const { checks } = this;
    const state =
      checks === "running"
        ? h("p", { class: "empty", role: "status" }, "`mmdata check` is running on this episode…")
        : checks !== "done"
          ? h("p", { class: "bad" }, `The checks could not run: ${checks.failed}`)
          : this.findings.length
            ? null
            : h("p", { class: "empty" }, "Nothing found. Label rules run after every edit, all rules of `mmdata check` when the episode opens.");
    return [...(state ? [state] : []), ...this.list()];
  }

  private list(): HTMLElement[] {
    return this.findings.map((finding) => {
      const fix = fixOf(this.session, finding);
      const places = placesOf(finding);
      const [first] = places;
      const stamp = first.stamp_ns ?? finding.stamp_ns;
      return h(
        "div",
        { class: `finding ${finding.severity}` },
        h("button", { type: "button", class: "link", onclick: () => this.jump(finding) }, h("b", {}, finding.rule), " ", finding.message),
        h("small", {}, [finding.layer ?? first.layer, finding.stream ?? first.stream, stamp === undefined ? null : `${seconds(stamp)} s`].filter(Boolean).join(" · ")),
        places.length > 1 ? this.placeList(finding, places) : null,
        fix ? h("button", { type: "button", onclick: fix.run }, fix.name) : null,
      );
    });
  }

  private placeList(finding: Finding, places: Place[]): HTMLElement {
    const name = `${finding.rule} ${finding.message}`;
    const list = h("details", { class: "places" }, h("summary", {}, `${places.length} places`));
    // Made when looked at: there may be a hundred to each of a hundred findings.
    const fill = () => {
      for (const [k, place] of places.slice(0, MOST_LISTED_PLACES).entries()) {
        const words = [place.stamp_ns === undefined ? null : `${seconds(place.stamp_ns)} s`, place.stream, place.object_id, place.message];
        list.append(h("button", { type: "button", class: "link place", onclick: () => this.jump(finding, k) }, words.filter(Boolean).join(" · ") || `place ${k + 1}`));
      }
    };
    if (this.opened.has(name)) {
      list.open = true;
      fill();
    }
    list.addEventListener("toggle", () => {
      if (list.open) this.opened.add(name);
      else this.opened.delete(name);
      if (list.open && list.children.length === 1) fill();
    });
    return list;
  }
}

function startOf(item: Annotation): number | undefined {
  const value = item.start_ns ?? item.stamp_ns;
  const first = Array.isArray(value) ? value[0] : value;
  return typeof first === "number" ? first : undefined;
}

// A fix where one is obvious: gaps and overlaps of a tier close at the neighbour's edge.
function fixOf(session: Session, finding: Finding): { name: string; run: () => void } | null {
  if (finding.layer !== session.layers.active || finding.collection !== "phases" || !finding.id) return null;
  const phase = session.layers.get(finding.layer, "phases", finding.id) as Phase | undefined;
  if (!phase) return null;
  const tier = session.layers.all<Phase>("phases", finding.layer).map((p) => p.item).filter((p) => p.tier === phase.tier).sort((a, b) => a.start_ns - b.start_ns);
  const previous = tier[tier.findIndex((p) => p.id === phase.id) - 1];
  const put = (after: Phase): Change => ({ collection: "phases", id: after.id, after });
  const close = () => void session.layers.edit([put({ ...previous, end_ns: phase.start_ns })]);
  if (finding.rule === "label/gap" && previous && previous.end_ns < phase.start_ns) return { name: `extend ${previous.label} to here`, run: close };
  if (finding.rule === "label/overlap" && previous && previous.end_ns > phase.start_ns && previous.start_ns < phase.start_ns) return { name: `end ${previous.label} here`, run: close };
  return null;
}
