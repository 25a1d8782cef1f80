// Layers on the page: shown at once, journalled on the server, taken back when it refuses.

import { ApiError, type EpisodeApi, type Standing } from "./api";
import type { Annotation, Change, LayerRow, Operation } from "./types";

export interface LayerDoc {
  name: string;
  items: Map<string, Map<string, Annotation>>; // collection -> id -> annotation
  review: { state: string; history?: unknown[] } | null;
  standing: Standing;
}

interface Pending {
  kind: "edit" | "undo" | "redo";
  layer: string;
  changes: Change[];
  request: string;
  // The revision up to which nobody else touched these annotations since this edit was made; it stays
  // where it is once somebody did.
  base: number;
  stale: boolean;
}

export interface Conflict {
  layer: string;
  message: string;
  user: string;
  mine: Change[];
  theirs: { collection: string; id: string; theirs: Annotation | null }[];
}

// Answers of a server, or of what stands before it, that cannot take anything at the moment.
const AWAY = [502, 503, 504];
const COLLECTIONS = ["phases", "events", "grasps", "tracks_3d", "boxes_3d", "captions", "comments"];

export class Layers {
  rows: LayerRow[] = [];
  own = "";
  active = "";
  shown = new Set<string>();
  docs = new Map<string, LayerDoc>();
  saving: "saved" | "saving" | "offline" = "saved";
  // Whether what others do arrives here.
  connected = true;
  changed: () => void = () => {};
  conflict: (conflict: Conflict) => void = () => {};
  failed: (message: string) => void = () => {};
  private queue: Pending[] = [];
  // Requests of this page that the journal has.
  private readonly done = new Set<string>();
  private running: Promise<void> | null = null;
  private readonly store: string;

  constructor(private readonly api: EpisodeApi) {
    this.store = `mmdata.pending.${api.manifest.key}.${api.api.user}`;
  }

  async load(): Promise<void> {
    await this.refreshRows();
    this.active = this.own;
    await this.api.layer(this.active, "open", {});
    await this.refreshRows();
    for (const row of this.rows) if (!row.hidden && !row.problem) this.shown.add(row.name);
    // What an earlier page could not send; nobody waits for it.
    this.queue = recall(this.store);
    await Promise.all([...this.shown].map((name) => this.fetch(name)));
    if (this.queue.length) void this.flush();
    this.changed();
  }

  async refreshRows(): Promise<void> {
    const answer = await this.api.call<{ layers: LayerRow[]; own: string }>("layers");
    this.rows = answer.layers;
    this.own = answer.own;
    // A layer that became blind is not only shown no more: nothing of it stays here.
    for (const row of this.rows)
      if (row.hidden) {
        this.docs.delete(row.name);
        this.shown.delete(row.name);
      }
  }

  // Who may see what was changed by somebody.
  async reassigned(): Promise<void> {
    await this.refreshRows();
    if (this.rows.some((row) => row.hidden && row.name === this.active)) await this.activate(this.own);
    this.changed();
  }

  async activate(name: string): Promise<void> {
    await this.flush();
    await this.api.layer(name, "open", {});
    this.active = name;
    this.shown.add(name);
    await this.refreshRows();
    await this.fetch(name);
    this.changed();
  }

  async show(name: string, on: boolean): Promise<void> {
    if (on) {
      this.shown.add(name);
      if (!this.docs.has(name)) await this.fetch(name);
    } else this.shown.delete(name);
    this.changed();
  }

  get document(): LayerDoc | undefined {
    return this.docs.get(this.active);
  }

  all<T extends Annotation>(collection: string, layer?: string): { layer: string; item: T }[] {
    const names = layer ? [layer] : [...this.shown];
    return names.flatMap((name) =>
      [...(this.docs.get(name)?.items.get(collection)?.values() ?? [])].map((item) => ({
        layer: name,
        item: item as T,
      })),
    );
  }

  get(layer: string, collection: string, id: string): Annotation | undefined {
    return this.docs.get(layer)?.items.get(collection)?.get(id);
  }

  // Shows annotations of the active layer as they would be, without journalling; nothing takes the
  // previews back.
  preview(...changes: Change[]): void {
    this.previews = new Map(changes.map((change) => [change.id, change]));
    this.changed();
  }

  previews = new Map<string, Change>();

  // As `all`, with the previews in their places.
  drawn<T extends Annotation>(collection: string, layer?: string): { layer: string; item: T }[] {
    const rows = this.all<T>(collection, layer);
    if (!this.previews.size || (layer && layer !== this.active)) return rows;
    const own = new Set<string>();
    const out = rows.flatMap((row) => {
      const change = row.layer === this.active ? this.previews.get(row.item.id) : undefined;
      if (!change) return [row];
      own.add(row.item.id);
      return change.after ? [{ layer: row.layer, item: change.after as T }] : [];
    });
    for (const { collection: of, id, after } of this.previews.values())
      if (of === collection && after && !own.has(id)) out.push({ layer: this.active, item: after as T });
    return out;
  }

  edit(changes: Change[]): Promise<void> {
    const doc = this.document;
    if (!doc || !changes.length) return Promise.resolve();
    this.previews.clear();
    const request = `${this.api.api.user}-${Date.now().toString(36)}-${randomId()}`;
    this.push({ kind: "edit", layer: this.active, changes, request, base: doc.standing.revision, stale: false });
    for (const change of changes) put(doc, change);
    this.changed();
    return this.flush();
  }

  // Sends what is waiting, one after the other. Resolves when the journal has it all.
  flush(): Promise<void> {
    this.running ??= this.send().finally(() => {
      this.running = null;
    });
    return this.running;
  }

  // Undo and redo wait their turn behind the edits made before them.
  undo(): Promise<void> {
    return this.reverse("undo");
  }

  redo(): Promise<void> {
    return this.reverse("redo");
  }

  async act(action: string, body: Record<string, unknown>): Promise<any> {
    await this.flush();
    const base = this.document?.standing.revision ?? 0;
    const answer = await this.api.layer(this.active, action, { base, ...body });
    await this.confirm(this.active, answer);
    await this.refreshRows();
    this.changed();
    return answer;
  }

  // An operation somebody (perhaps this page) made.
  async receive(layer: string, operation: Operation): Promise<void> {
    const doc = this.docs.get(layer);
    if (!doc) {
      await this.refreshRows();
      const row = this.rows.find((r) => r.name === layer);
      if (row && !row.hidden && !row.problem) {
        this.shown.add(layer);
        await this.fetch(layer);
      }
      return this.changed();
    }
    if (operation.revision <= doc.standing.revision) return;
    const own = this.done.has(operation.request ?? "") || this.queue.some((p) => p.request === operation.request);
    if (own) return; // the answer to the request brings it
    if (operation.revision > doc.standing.revision + 1 || operation.kind === "merge") {
      await this.fetch(layer);
      return this.changed();
    }
    for (const pending of this.queue)
      if (pending.layer === layer && !pending.stale) {
        pending.stale = pending.changes.some((c) => operation.items.some((i) => i.id === c.id));
        if (!pending.stale) pending.base = operation.revision;
      }
    const mine = new Set(this.queue.flatMap((p) => p.changes.map((c) => c.id)));
    for (const item of operation.items)
      if (!mine.has(item.id)) put(doc, item);
    doc.standing.revision = operation.revision;
    this.changed();
  }

  private reverse(kind: "undo" | "redo"): Promise<void> {
    this.push({ kind, layer: this.active, changes: [], request: `${kind}-${randomId()}`, base: 0, stale: false });
    return this.flush();
  }

  private push(pending: Pending): void {
    this.queue.push(pending);
    this.saving = "saving";
    this.remember();
  }

  // Takes over what the journal answered to a request of this page.
  private async confirm(layer: string, { operation, ...standing }: Standing & { operation: Operation }): Promise<void> {
    if (operation.request) this.done.add(operation.request);
    const doc = this.docs.get(layer);
    // What was fetched since holds it already.
    if (!doc || operation.revision <= doc.standing.revision) return;
    // Revisions in between that have not been told yet would be lost by counting on.
    if (operation.revision > doc.standing.revision + 1) return this.fetch(layer);
    const waiting = new Set(this.queue.flatMap((p) => (p.layer === layer ? p.changes.map((c) => c.id) : [])));
    for (const item of operation.items) if (!waiting.has(item.id)) put(doc, item);
    doc.standing = { ...standing, revision: operation.revision };
    for (const pending of this.queue) if (pending.layer === layer && !pending.stale) pending.base = operation.revision;
  }

  private async send(): Promise<void> {
    while (this.queue.length) {
      const next = this.queue[0];
      this.saving = "saving";
      this.changed();
      try {
        const answer =
          next.kind === "edit"
            ? await this.api.edit(next.layer, next.base, next.changes, next.request)
            : await this.api.layer(next.layer, next.kind, { request: next.request });
        this.queue.shift();
        await this.confirm(next.layer, answer).catch(() => {});
        this.remember();
      } catch (error) {
        if (!(error instanceof ApiError) || AWAY.includes(error.status)) {
          // The server does not answer, or cannot keep anything now: keep it here and try again.
          this.saving = "offline";
          this.changed();
          await new Promise((resolve) => setTimeout(resolve, 1000));
          continue;
        }
        await this.refused(next, error);
      }
    }
    this.saving = "saved";
    this.changed();
  }

  // Takes a refused edit back, and with it those that build on it.
  private async refused(edit: Pending, error: ApiError): Promise<void> {
    const touched = new Set(edit.changes.map((c) => c.id));
    const gone = this.queue.filter((p) => p === edit || p.changes.some((c) => touched.has(c.id)));
    this.queue = this.queue.filter((p) => !gone.includes(p));
    this.remember();
    await this.fetch(edit.layer).catch(() => {});
    if (error.status !== 409 || edit.kind !== "edit") return this.failed(error.message);
    // Of every annotation what it was to be in the end.
    const mine = new Map(gone.flatMap((p) => p.changes).map((change) => [change.id, change]));
    this.conflict({
      layer: edit.layer,
      message: error.message,
      user: error.facts.user ?? "somebody",
      mine: [...mine.values()],
      theirs: error.facts.conflicts ?? [],
    });
  }

  // Whether others touched what is waiting to be sent, up to the revision that was just fetched.
  private async catchUp(pending: Pending, revision: number): Promise<void> {
    if (pending.stale || pending.base >= revision) return;
    for (const { id } of pending.changes) {
      const { operations } = await this.api.layer<{ operations: Operation[] }>(pending.layer, `history/${encodeURIComponent(id)}`);
      const known = (o: Operation) => o.revision <= pending.base || o.request === pending.request || this.done.has(o.request ?? "");
      if (!operations.every(known)) pending.stale = true;
    }
    if (!pending.stale) pending.base = revision;
  }

  async fetch(name: string): Promise<void> {
    const answer = await this.api.layer(name, "");
    const { document, ...standing } = answer;
    const items = new Map<string, Map<string, Annotation>>();
    for (const collection of COLLECTIONS) {
      const rows: Annotation[] = document[collection] ?? [];
      // A stamp too far off for a number is no instant of this episode: kept, but not drawn.
      const drawn = rows.filter((row) => placed(row));
      if (drawn.length < rows.length)
        this.failed(`${name}: ${rows.length - drawn.length} ${collection} lie far outside this episode`);
      items.set(collection, new Map(drawn.map((row) => [row.id, row])));
    }
    for (const pending of this.queue) if (pending.layer === name) await this.catchUp(pending, standing.revision);
    const doc: LayerDoc = { name, items, review: document.review ?? null, standing };
    for (const pending of this.queue)
      if (pending.layer === name) for (const change of pending.changes) put(doc, change);
    this.docs.set(name, doc);
  }

  private remember(): void {
    try {
      if (this.queue.length) localStorage.setItem(this.store, JSON.stringify(this.queue));
      else localStorage.removeItem(this.store);
    } catch {
      // It is sent all the same; only closing the page before that would lose it.
      this.failed("this browser has no room to keep what is not saved yet: leave the page open");
    }
  }
}

function recall(store: string): Pending[] {
  try {
    return JSON.parse(localStorage.getItem(store) ?? "[]");
  } catch {
    return [];
  }
}

function placed(row: Annotation): boolean {
  return ["stamp_ns", "start_ns", "end_ns"].every((name) => {
    const value = row[name];
    const one = Array.isArray(value) ? value[0] : value;
    return one === undefined || one === null || typeof one === "number";
  });
}

function put(doc: LayerDoc, change: Change): void {
  if (change.collection === "layer") {
    if (change.id === "review") doc.review = change.after as unknown as LayerDoc["review"];
    return;
  }
  let collection = doc.items.get(change.collection);
  if (!collection) doc.items.set(change.collection, (collection = new Map()));
  if (change.after) collection.set(change.id, change.after);
  else collection.delete(change.id);
}

export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
}
