"""Limits of the checks of labels. Every one is a convention that a user may change."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProjectionLimits(_Group):
    """How 3D boxes are brought to a camera's exposure and image."""

    near_m: float = Field(default=0.1, gt=0)
    max_range_m: float = Field(default=80.0, gt=0)
    """Boxes farther from the camera are not compared."""
    edge_samples: int = Field(default=7, ge=2)
    """Points per edge of a box where the lens bends lines."""
    grace_intervals: float = Field(default=1.0, ge=0)
    """A track is continued by this many of its intervals to explain a 2D box, never to miss one."""
    max_gap_intervals: float = Field(default=3.5, gt=1)
    """Two keyframes further apart than this many intervals do not bound the same stretch."""
    single_tolerance_s: float = Field(default=0.06, ge=0)
    """A track of one keyframe counts for exposures this near."""


class ImageLimits(_Group):
    """3D boxes against 2D boxes."""

    min_side_px: float = Field(default=10.0, gt=0)
    """A projection with a smaller side is not expected to have been labelled."""
    missing_visibility: float = Field(default=0.6, gt=0, le=1)
    plain_visibility: float = Field(default=0.85, gt=0, le=1)
    """From here on a box is missing whatever the images before and after have."""
    missing_inside: float = Field(default=0.2, gt=0, le=1)
    large_side_px: float = Field(default=40.0, gt=0)
    """Objects cut by the border are expected from this share and this side on."""
    location_visibility: float = Field(default=0.6, gt=0, le=1)
    match_iou: float = Field(default=0.25, gt=0, lt=1)
    settled_iou: float = Field(default=0.7, gt=0, lt=1)
    """Two boxes with one identity that overlap this much belong together without a search."""
    duplicate_iou: float = Field(default=0.6, gt=0, lt=1)
    """Two rectangles of one image that overlap this much may show one thing."""
    swap_gain_iou: float = Field(default=0.3, gt=0, lt=1)
    """Overlap that another identity must gain to be believed."""
    min_shift_fraction: float = Field(default=0.12, gt=0)
    """Shift of an edge pair over the side of the box."""
    location_sigma: float = Field(default=5.0, gt=0)
    """Shift over the spread of all shifts in this camera."""
    chance: float = Field(default=0.03, gt=0, lt=1)
    """Share of cameras in which the hand's noise alone may look like a fault, where an object is
    compared with itself in the images before and after: the more rectangles, the further chance
    goes, and the further off one must be."""
    spread_px: float = Field(default=2.0, gt=0)
    spread_fraction: float = Field(default=0.03, ge=0)
    """Spread assumed where fewer than min_pairs boxes tell it."""
    spread_m: float = Field(default=0.06, ge=0)
    """Error of the 3D box, for classes too rare to have their own spread."""
    min_pairs: int = Field(default=50, ge=5)
    min_class_pairs: int = Field(default=40, ge=5)
    """Classes with as many boxes have their own spread."""
    min_track_pairs: int = Field(default=5, ge=3)
    labelled_frames: float = Field(default=0.8, gt=0, le=1)
    """A camera with boxes in this share of its frames should have some in every one."""
    occluded_points: float = Field(default=0.35, gt=0, le=1)
    """Share of LiDAR returns in front of a box from which on something else hides it."""
    hiding_points: int = Field(default=3, ge=1)
    min_points: int = Field(default=6, ge=1)
    """LiDAR points in a hole of a track that show the object to be there."""
    min_unlabelled: int = Field(default=4, ge=2)
    """2D boxes of one identity without any 3D box, from which on the 3D label is missing."""


class SweepLimits(_Group):
    """3D boxes against LiDAR points."""

    reference: Literal["auto", "points", "transform"] = "auto"
    """Where a sweep's points are: each at its own time, or all moved already to the stamp of the
    sweep's transform. ``auto``: the latter when every sweep has exactly one transform."""
    max_range_m: float = Field(default=40.0, gt=0)
    see_through_points: int = Field(default=8, ge=1)
    """Returns from behind a box, along rays through it, that prove it empty."""
    see_through_share: float = Field(default=0.5, gt=0, le=1)
    margin_m: float = Field(default=0.6, gt=0)
    """Points this near a face may belong to the object."""
    noise_m: float = Field(default=0.15, ge=0)
    """Points this near a face are within the noise of sensor and annotator."""
    noise_rad: float = Field(default=0.03, ge=0)
    """The same for the heading: it counts by the length of the face."""
    floor_m: float = Field(default=0.25, ge=0)
    """Points this little above the bottom may be ground."""
    cut_points: int = Field(default=5, ge=1)
    cut_share: float = Field(default=0.2, gt=0, le=1)
    """Share of the object's points outside the box."""
    beside_share: float = Field(default=0.2, gt=0)
    """Density of points beside the box, over that beyond a face, from which on they belong to
    something that goes on past the box."""
    cut_keyframes: int = Field(default=3, ge=1)
    """Keyframes of a track in which points are cut off at the same face (all of a shorter one)."""
    ring_m: float = Field(default=1.5, gt=0)
    """Ground is looked for this far around the box."""
    ground_points: int = Field(default=12, ge=3)
    ground_offset_m: float = Field(default=0.3, gt=0)
    ground_sigma: float = Field(default=5.0, gt=0)
    small_share: float = Field(default=0.6, gt=0, lt=1)
    """A side under this share of the median of its class, with points cut off, is undersized."""
    on_ground: tuple[str, ...] = (
        "car", "van", "pickup", "truck", "trailer", "bus", "motorcycle", "bicycle", "cyclist",
        "pedestrian", "stroller", "traffic_cone", "barrier", "emergency_vehicle",
        "construction_vehicle",
    )  # fmt: skip


class TrackLimits(_Group):
    """Boxes along a track."""

    jump_m: float = Field(default=0.25, gt=0)
    """Smallest displacement of one keyframe worth telling."""
    acceleration_m_s2: float = Field(default=8.0, gt=0)
    acceleration_window_s: float = Field(default=0.5, gt=0)
    sigma: float = Field(default=6.0, gt=0)
    """Deviation over the spread along all tracks."""
    size_fraction: float = Field(default=0.10, gt=0)
    heading_rad: float = Field(default=0.5236, gt=0)
    heading_min_speed_m_s: float = Field(default=2.0, gt=0)
    heading_classes: tuple[str, ...] = (
        "car", "van", "pickup", "truck", "trailer", "bus", "motorcycle", "bicycle", "cyclist",
        "emergency_vehicle",
    )  # fmt: skip
    speed_m_s: float = Field(default=70.0, gt=0)
    class_speed_m_s: dict[str, float] = {
        "pedestrian": 10.0, "stroller": 6.0, "cyclist": 25.0, "bicycle": 25.0,
        "traffic_cone": 1.0, "barrier": 1.0,
    }  # fmt: skip
    gap_radius_m: float = Field(default=1.5, gt=0)
    """A new identity this near where another vanished continues it."""
    duplicate_overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of each of two boxes that lies in the other, from which on they show one thing."""
    gap_s: float = Field(default=1.5, gt=0)
    """Time within which a track that vanished is looked for."""


class TimelineLimits(_Group):
    """Phases, events and captions of several views."""

    boundary_s: float = Field(default=0.25, gt=0)
    event_s: float = Field(default=0.25, gt=0)
    boundary_sigma: float = Field(default=4.0, gt=0)
    """Difference of a boundary or event over the spread of all between the same two views."""
    match_overlap: float = Field(default=0.1, gt=0, lt=1)
    """Overlap (temporal IoU) from which on two segments may be the same."""
    relabel_overlap: float = Field(default=0.5, gt=0, lt=1)
    """Overlap from which on two segments with different labels contradict each other."""
    late_boundaries: int = Field(default=4, ge=2)
    """Boundaries that must be off alike before the view is called late."""


class CauseLimits(_Group):
    """When many findings are reported as one."""

    min_pairs: int = Field(default=20, ge=10)
    min_objects: int = Field(default=3, ge=2)
    object_correlation: float = Field(default=0.8, ge=0, le=1)
    """How alike the boxes of one object err; 1: an object counts once."""
    usual_late_s: float = Field(default=0.1, gt=0)
    usual_turn_rad: float = Field(default=0.03, gt=0)
    usual_move_m: float = Field(default=0.1, gt=0)
    """Sizes that faults of a camera usually have (standard deviations)."""
    sound_late_s: float = Field(default=0.002, gt=0)
    sound_turn_rad: float = Field(default=0.002, gt=0)
    sound_move_m: float = Field(default=0.03, gt=0)
    """Sizes that the same have in a sound camera, the errors of cuboids among them."""
    usual_objects: float = Field(default=4.0, ge=0)
    """Objects that the assumed error of a hand counts for against what a camera's boxes tell."""
    fault_share: float = Field(default=0.01, gt=0, lt=1)
    moved_share: float = Field(default=0.001, gt=0, lt=1)
    """Share of cameras that are late or turned, and of those that are displaced: the rarer a fault,
    the more must speak for it."""
    min_effect_px: float = Field(default=3.0, gt=0)
    """Median displacement in the image that a camera's cause must make."""
    min_effect_noise: float = Field(default=1.5, gt=0)
    """The same, in units of what is left over."""
    min_turn_rad: float = Field(default=0.006, gt=0)
    min_move_m: float = Field(default=0.15, gt=0)
    """Less than this the labels cannot tell from their own errors."""
    min_late_ms: float = Field(default=15.0, gt=0)
    max_sigma_ms: float = Field(default=15.0, gt=0)
    significance: float = Field(default=3.0, gt=0)
    """A parameter over its standard error."""
    max_late_s: float = Field(default=0.5, gt=0)
    max_turn_rad: float = Field(default=0.15, gt=0)
    annotator_findings: int = Field(default=6, ge=2)
    annotator_ratio: float = Field(default=4.0, gt=1)
    annotator_p: float = Field(default=1e-5, gt=0, lt=1)
    object_findings: int = Field(default=4, ge=2)
    """Findings of one rule on one object in one view that become one."""


class LabelLimits(_Group):
    """The ``labels:`` section of the limits; every key may be left out."""

    projection: ProjectionLimits = ProjectionLimits()
    images: ImageLimits = ImageLimits()
    sweeps: SweepLimits = SweepLimits()
    tracks: TrackLimits = TrackLimits()
    timelines: TimelineLimits = TimelineLimits()
    causes: CauseLimits = CauseLimits()
