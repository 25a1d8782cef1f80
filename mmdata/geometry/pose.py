"""Rigid transforms and interpolation of pose series."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from mmdata.geometry.linear import map_vectors
from mmdata.geometry.quaternions import (
    Floats,
    quat_conjugate,
    quat_from_matrix,
    quat_multiply,
    quat_normalise,
    quat_rotate,
    quat_slerp,
    quat_to_matrix,
)

ROTATION_TOLERANCE = 1e-3
"""How far R R^T may be from identity: calibration files round to a few digits."""


@dataclass(frozen=True, eq=False)
class SE3:
    """A rigid transform; ``a_SE3_b @ points_b`` are the points in a's frame.

    ``quaternion`` (qw, qx, qy, qz) is what is stored and ``rotation`` always derives from it, so
    that writing and reading back seven numbers gives exactly the same transform.

    Raises:
        ValueError: the rotation is not a proper rotation within ``ROTATION_TOLERANCE``, a value
            is not finite or a shape is wrong.
    """

    rotation: Floats
    translation: Floats
    quaternion: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rotation = np.asarray(self.rotation, dtype=np.float64)
        if rotation.shape != (3, 3):
            raise ValueError(f"rotation has shape {rotation.shape}, wanted (3, 3)")
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if not error <= ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
            raise ValueError("rotation is not a proper rotation matrix; check its order and scale")
        self._store(quat_from_matrix(rotation), self.translation)

    def _store(self, quaternion: npt.ArrayLike, translation: npt.ArrayLike) -> None:
        q = np.array(quaternion, dtype=np.float64)
        t = np.array(translation, dtype=np.float64)
        if q.shape != (4,) or t.shape != (3,):
            raise ValueError(f"got quaternion {q.shape} and translation {t.shape}")
        # Leave an already unit quaternion untouched, so that stored values come back bit for bit.
        if not abs(float(q @ q) - 1.0) < 1e-12:
            q = quat_normalise(q)
        if not (np.isfinite(q).all() and np.isfinite(t).all()):
            raise ValueError("a rigid transform needs a non-zero quaternion and finite numbers")
        rotation = quat_to_matrix(q)
        for name, value in (("rotation", rotation), ("translation", t), ("quaternion", q)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @classmethod
    def identity(cls) -> Self:
        """The transform that moves nothing."""
        return cls.from_quaternion([1.0, 0.0, 0.0, 0.0])

    @classmethod
    def from_quaternion(
        cls, quaternion: npt.ArrayLike, translation: npt.ArrayLike = (0.0, 0.0, 0.0)
    ) -> Self:
        """From (qw, qx, qy, qz), normalised if need be, and a translation in metres."""
        pose = object.__new__(cls)
        pose._store(quaternion, translation)
        return pose

    @classmethod
    def from_xyz_qwxyz(cls, values: npt.ArrayLike) -> Self:
        """From the seven stored numbers x, y, z, qw, qx, qy, qz."""
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape != (7,):
            raise ValueError(f"wanted 7 numbers x y z qw qx qy qz, got shape {numbers.shape}")
        return cls.from_quaternion(numbers[3:], numbers[:3])

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> Self:
        """From a homogeneous matrix (4, 4) or (3, 4)."""
        m = np.asarray(matrix, dtype=np.float64)
        if m.shape not in ((4, 4), (3, 4)):
            raise ValueError(f"wanted a (4, 4) or (3, 4) matrix, got shape {m.shape}")
        return cls(m[:3, :3], m[:3, 3])

    def to_xyz_qwxyz(self) -> Floats:
        """The seven numbers x, y, z, qw, qx, qy, qz."""
        return np.concatenate([self.translation, self.quaternion])

    def to_matrix(self) -> Floats:
        """The homogeneous matrix (4, 4)."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.translation
        return matrix

    def inverse(self) -> SE3:
        """``b_SE3_a`` of ``a_SE3_b``."""
        q = quat_conjugate(self.quaternion)
        return SE3.from_quaternion(q, -quat_rotate(q, self.translation))

    def __matmul__(self, other: SE3) -> SE3:
        """``a_SE3_b @ b_SE3_c`` is ``a_SE3_c``."""
        if not isinstance(other, SE3):
            return NotImplemented
        return SE3.from_quaternion(
            quat_multiply(self.quaternion, other.quaternion),
            self.apply(other.translation),
        )

    def apply(self, points: npt.ArrayLike) -> Floats:
        """Points (..., 3) moved from b's frame into a's."""
        return map_vectors(self.rotation, points) + self.translation

    def is_close(self, other: SE3, *, atol_m: float = 1e-9, atol_rad: float = 1e-9) -> bool:
        """Whether both transforms agree within a distance and an angle."""
        relative = self.inverse() @ other
        angle = 2.0 * np.arctan2(
            np.linalg.norm(relative.quaternion[1:]), abs(relative.quaternion[0])
        )
        distance = np.linalg.norm(self.translation - other.translation)
        return bool(distance <= atol_m and angle <= atol_rad)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SE3):
            return NotImplemented
        return bool(np.array_equal(self.to_xyz_qwxyz(), other.to_xyz_qwxyz()))

    def __hash__(self) -> int:
        return hash(tuple(self.to_xyz_qwxyz().tolist()))


def interpolate_poses(
    stamp_ns: npt.ArrayLike,
    position: npt.ArrayLike,
    orientation: npt.ArrayLike,
    query_ns: npt.ArrayLike,
) -> tuple[Floats, Floats]:
    """Positions linearly and orientations spherically interpolated at query stamps.

    Args:
        stamp_ns: (N,) int64, ascending; of equal stamps the last one counts.
        position: (N, 3) metres.
        orientation: (N, 4) unit quaternions.
        query_ns: (M,) int64.

    Returns:
        position (M, 3) and orientation (M, 4); NaN where the query lies outside the series.
    """
    stamps = np.asarray(stamp_ns, dtype=np.int64)
    query = np.asarray(query_ns, dtype=np.int64)
    p, q = np.asarray(position, dtype=np.float64), np.asarray(orientation, dtype=np.float64)
    if p.shape != (len(stamps), 3) or q.shape != (len(stamps), 4):
        raise ValueError(f"{len(stamps)} stamps, position {p.shape}, orientation {q.shape}")
    if len(stamps) == 0:
        return np.full((*query.shape, 3), np.nan), np.full((*query.shape, 4), np.nan)
    left = np.clip(np.searchsorted(stamps, query, side="right") - 1, 0, len(stamps) - 1)
    right = np.minimum(left + 1, len(stamps) - 1)
    span = stamps[right] - stamps[left]
    # Differences are taken in integers: epoch stamps do not fit a float.
    fraction = (query - stamps[left]) / np.where(span > 0, span, 1)
    outside = (query < stamps[0]) | (query > stamps[-1])
    fraction = np.where(outside, np.nan, fraction)
    moved = p[left] + fraction[..., None] * (p[right] - p[left])
    return moved, quat_slerp(q[left], q[right], fraction)
