// One open episode: everything panels share.

import type { EpisodeApi } from "./api";
import type { Clock } from "./clock";
import type { Frames } from "./frames";
import type { Layers } from "./layers";
import type { Stamps } from "./stamps";
import type { StreamInfo, Taxonomy, Track3D } from "./types";

export interface Selection {
  layer: string;
  collection: string;
  id: string;
}

export interface Panel {
  readonly element: HTMLElement;
  // Called every animation frame; must be cheap when nothing changed.
  update(): void;
  // Whether everything that belongs to the cursor is on screen.
  settled?(): boolean;
}

export interface Preferences {
  theme?: "dark" | "light";
  hidden?: string[];
  sizes?: Record<string, number>;
  tier?: string;
  cameras?: string[];
  signals?: string[];
  budget?: number;
}

export class Session {
  // Counts up with everything that changes how things are drawn; panels compare.
  revision = 1;
  selection: Selection | null = null;
  // The camera or cloud the pointer is over: what stepping and editing refer to.
  focus = "";
  tier = "motion";
  preferences: Preferences = {};
  say: (message: string, kind?: "info" | "bad") => void = () => {};
  onSelect: () => void = () => {};
  // Somebody moved a layer on in its review, or changed who annotates blindly.
  onReview: () => void = () => {};

  constructor(
    readonly api: EpisodeApi,
    readonly clock: Clock,
    readonly stamps: Map<string, Stamps>,
    readonly frames: Frames,
    readonly layers: Layers,
    readonly taxonomy: Taxonomy,
  ) {}

  get streams(): StreamInfo[] {
    return this.api.manifest.streams;
  }

  stream(name: string): StreamInfo | undefined {
    return this.streams.find((s) => s.name === name);
  }

  touch(): void {
    this.revision++;
  }

  select(selection: Selection | null): void {
    this.selection = selection;
    this.touch();
    this.onSelect();
  }

  // Selects an annotation wherever it is.
  selectId(id: string): void {
    for (const [layer, doc] of this.layers.docs)
      for (const [collection, items] of doc.items) if (items.has(id)) return this.select({ layer, collection, id });
  }

  isSelected(id: string): boolean {
    return this.selection?.id === id;
  }

  // The selected annotation, with a preview of it in its place.
  selected<T>(collection: string): T | null {
    const s = this.selection;
    if (!s || s.collection !== collection) return null;
    const preview = s.layer === this.layers.active ? this.layers.previews.get(s.id)?.after : undefined;
    if (preview) return preview as T;
    return (this.layers.get(s.layer, s.collection, s.id) as T | undefined) ?? null;
  }

  // Visible 3D tracks, single boxes as tracks of one keyframe, previews in place.
  tracks(): { layer: string; item: Track3D; collection: string }[] {
    const out = this.layers.drawn<Track3D>("tracks_3d").map((row) => ({ ...row, collection: "tracks_3d" }));
    for (const { layer, item } of this.layers.all("boxes_3d")) {
      const box = item as any;
      out.push({
        layer,
        collection: "boxes_3d",
        item: {
          ...box,
          object_id: box.object_id ?? box.id,
          stamp_ns: [box.stamp_ns],
          center_m: [box.center_m],
          size_lwh_m: [box.size_lwh_m],
          quaternion_wxyz: [box.quaternion_wxyz],
        },
      });
    }
    return out;
  }

  // How far from a keyframe its object still counts as seen: half a period of its stream.
  tolerance(track: Track3D): number {
    const stream = track.stream ?? this.cloudStreams()[0]?.name;
    return (this.stamps.get(stream ?? "")?.period ?? 1e8) * 0.55;
  }

  // Whether an arm is recorded, as far as its streams tell.
  get hasArm(): boolean {
    return this.streams.some((s) => /JointState/.test(s.source_type ?? "") || /joint|gripper|eef|effector/i.test(s.name));
  }

  cloudStreams(): StreamInfo[] {
    return this.streams.filter((s) => s.kind === "sweep" || s.kind === "depth");
  }

  cameraStreams(): StreamInfo[] {
    return this.streams.filter((s) => s.kind === "image");
  }

  // The rig's sensor of a stream: by name, else by frame.
  sensorOf(stream: StreamInfo) {
    const rig = this.api.manifest.rig;
    if (stream.sensor && rig[stream.sensor]) return rig[stream.sensor];
    const named = rig[stream.name];
    if (named) return named;
    const all = Object.values(rig).filter((s) => s.frame_id === stream.frame_id);
    return all.find((s) => s.model) ?? all[0];
  }
}
