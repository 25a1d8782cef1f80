// What the server tells. Instants are ns since the episode's start: exact as numbers to 104 days.

export type Vec3 = [number, number, number];
export type Quat = [number, number, number, number]; // qw, qx, qy, qz

export interface FieldInfo {
  dtype: string;
  shape: number[];
  ragged: boolean;
  unit: string | null;
  channels: string[] | null;
}

export interface StreamInfo {
  name: string;
  kind: "signal" | "image" | "depth" | "sweep" | "audio" | "tactile" | "text" | "opaque";
  count: number;
  rate_hz: number | null;
  nominal_rate_hz: number | null;
  encoding: string | null;
  frame_id: string | null;
  sensor: string | null;
  clock: string | null;
  stamp_source: string | null;
  stamp_meaning: string;
  source_type: string | null;
  // The field that holds a position in metres, if any.
  position: string | null;
  moves: { parent: string; child: string } | null;
  gaps: [number, number][];
  fields: Record<string, FieldInfo>;
  sample_rate_hz: number | null;
}

export interface SensorInfo {
  frame_id: string;
  parent?: string;
  parent_SE3_sensor?: number[]; // x y z qw qx qy qz
  model?: "pinhole" | "brown_conrady" | "fisheye";
  width?: number;
  height?: number;
  K?: number[][];
  distortion?: number[];
}

export interface Manifest {
  key: string;
  version: string;
  name: string;
  episode_id: string;
  start_unix_ns: string;
  duration: number;
  status: string;
  reference_clock: string;
  metadata: Record<string, string>;
  streams: StreamInfo[];
  rig: Record<string, SensorInfo>;
  sync: Record<string, unknown>;
  timelines: string[];
  embedded: string[];
}

export interface Annotation {
  id: string;
  [field: string]: unknown;
}

export interface Phase extends Annotation {
  tier: string;
  label: string;
  start_ns: number;
  end_ns: number;
  success?: boolean;
  parent_id?: string;
  actor?: string;
  stream?: string;
}

export interface EventMark extends Annotation {
  label: string;
  stamp_ns: number;
}

export interface Track3D extends Annotation {
  label: string;
  object_id: string;
  frame_id: string;
  stream?: string;
  stamp_ns: number[];
  center_m: Vec3[];
  size_lwh_m: Vec3[];
  quaternion_wxyz: Quat[];
  gap_after?: boolean[];
  interpolated?: (boolean | null)[];
}

export interface Box {
  center_m: Vec3;
  size_lwh_m: Vec3;
  quaternion_wxyz: Quat;
}

export interface Item {
  collection: string;
  id: string;
  before: Annotation | null;
  after: Annotation | null;
}

export interface Operation {
  revision: number;
  base: number;
  user: string;
  unix_ns: unknown;
  kind: "edit" | "undo" | "redo" | "publish" | "merge";
  target: number | null;
  items: Item[];
  request: string | null;
}

export interface Change {
  collection: string;
  id: string;
  after: Annotation | null;
}

export interface LayerRow {
  name: string;
  hidden?: boolean;
  author?: string | null;
  state?: string | null;
  counts?: Record<string, number>;
  problem?: string | null;
  embedded?: boolean;
  revision?: number;
  unpublished?: boolean;
}

// One place a finding is about; what does not apply is absent.
export interface Place {
  stream?: string;
  stamp_ns?: number;
  end_ns?: number;
  layer?: string;
  annotation_ids?: string[];
  object_id?: string;
  message?: string;
}

export interface Finding {
  rule: string;
  details?: Place[];
  severity: string;
  message: string;
  layer?: string;
  stream?: string;
  collection?: string;
  id?: string;
  field?: string;
  object_id?: string;
  stamp_ns?: number;
  value?: number;
  limit?: number;
}

export interface Term {
  label: string;
  description?: string | null;
  starts_when?: string | null;
  ends_when?: string | null;
}

export interface Taxonomy {
  tiers: { name: string; parent?: string | null; exclusive?: boolean; labels: Term[] }[];
  events: Term[];
  object_classes: (Term & { attributes?: AttributeRule[] })[];
}

export interface AttributeRule {
  name: string;
  type: string;
  values?: unknown[];
  required?: boolean;
}
