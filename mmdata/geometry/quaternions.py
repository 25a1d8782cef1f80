"""Batched unit quaternions ``(..., 4)`` in the order qw, qx, qy, qz; all functions broadcast."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def quat_normalise(q: npt.ArrayLike) -> Floats:
    """Unit quaternions (..., 4); a zero or non-finite one gives NaN, never a made-up pose."""
    q = np.asarray(q, dtype=np.float64)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    usable = np.isfinite(norm) & (norm > 0)
    return np.where(usable, q / np.where(usable, norm, 1.0), np.nan)


def quat_multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Hamilton product: rotate by b first, then by a."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def quat_conjugate(q: npt.ArrayLike) -> Floats:
    """Conjugate, which is the inverse of a unit quaternion."""
    return np.asarray(np.asarray(q, dtype=np.float64) * np.array([1.0, -1.0, -1.0, -1.0]))


def quat_rotate(q: npt.ArrayLike, v: npt.ArrayLike) -> Floats:
    """Vectors (..., 3) rotated by unit quaternions (..., 4)."""
    q, v = np.asarray(q, dtype=np.float64), np.asarray(v, dtype=np.float64)
    w, x, y, z = (q[..., i] for i in range(4))
    a, b, c = (v[..., i] for i in range(3))
    # t = 2 u x v; v' = v + w t + u x t. Written out: np.cross costs more than the sums.
    ta, tb, tc = 2.0 * (y * c - z * b), 2.0 * (z * a - x * c), 2.0 * (x * b - y * a)
    return np.stack(
        [
            a + w * ta + y * tc - z * tb,
            b + w * tb + z * ta - x * tc,
            c + w * tc + x * tb - y * ta,
        ],
        axis=-1,
    )


def quat_to_matrix(q: npt.ArrayLike) -> Floats:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    w, x, y, z = np.moveaxis(np.asarray(q, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quat_from_matrix(rotation: npt.ArrayLike) -> Floats:
    """Unit quaternions (..., 4), qw >= 0, of rotation matrices (..., 3, 3).

    Of the four equivalent formulas the one with the largest component is used (Shepperd 1978),
    so precision holds near half turns too.
    """
    m = np.asarray(rotation, dtype=np.float64)
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    candidates = np.stack(
        [
            np.stack([1 + m00 + m11 + m22, a, b, c], axis=-1),
            np.stack([a, 1 + m00 - m11 - m22, d, e], axis=-1),
            np.stack([b, d, 1 - m00 + m11 - m22, f], axis=-1),
            np.stack([c, e, f, 1 - m00 - m11 + m22], axis=-1),
        ],
        axis=-2,
    )
    largest = np.argmax(np.diagonal(candidates, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(candidates, largest[..., None, None], axis=-2)[..., 0, :]
    return quat_normalise(np.where(q[..., :1] < 0, -q, q))


def quat_from_rotvec(rotvec: npt.ArrayLike) -> Floats:
    """Unit quaternions of rotation vectors (..., 3): axis times angle in radians."""
    v = np.asarray(rotvec, dtype=np.float64)
    half = 0.5 * np.linalg.norm(v, axis=-1, keepdims=True)
    # numpy's sinc is sin(pi x) / (pi x), exact at zero.
    return np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * v], axis=-1)


def quat_to_rotvec(q: npt.ArrayLike) -> Floats:
    """Rotation vectors (..., 3) of at most pi radians of unit quaternions (..., 4)."""
    q = np.asarray(q, dtype=np.float64)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., :1])
    return np.where(sine > 1e-12, angle / np.where(sine > 1e-12, sine, 1.0), 2.0) * q[..., 1:]


def quat_angle(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Angle in radians, 0 to pi, between the rotations of unit quaternions a and b."""
    relative = quat_multiply(quat_conjugate(a), b)
    sine = np.linalg.norm(relative[..., 1:], axis=-1)
    return np.asarray(2.0 * np.arctan2(sine, np.abs(relative[..., 0])))


def quat_shortest_arc(q: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """q or -q (the same rotation), whichever lies on reference's side of the sphere."""
    q, reference = np.asarray(q, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    dot = np.sum(q * reference, axis=-1, keepdims=True)
    return np.where(dot < 0, -q, q)


def quat_continuous(q: npt.ArrayLike) -> Floats:
    """A series (N, 4) with signs flipped so that neighbours never jump to the other side."""
    q = np.asarray(q, dtype=np.float64)
    if len(q) == 0:
        return q
    flips = np.where(np.sum(q[1:] * q[:-1], axis=-1) < 0, -1.0, 1.0)
    return np.asarray(q * np.concatenate([[1.0], np.cumprod(flips)])[:, None])


def quat_slerp(a: npt.ArrayLike, b: npt.ArrayLike, fraction: npt.ArrayLike) -> Floats:
    """Spherical interpolation along the shorter arc; fraction (...,) is 0 at a and 1 at b."""
    a = np.asarray(a, dtype=np.float64)
    b = quat_shortest_arc(b, a)
    t = np.asarray(fraction, dtype=np.float64)[..., None]
    # The half-angle form stays exact for tiny angles, where acos of the dot product does not.
    angle = 2.0 * np.arctan2(
        np.linalg.norm(b - a, axis=-1, keepdims=True), np.linalg.norm(b + a, axis=-1, keepdims=True)
    )
    sine = np.sinc(angle / np.pi)
    weight_a = (1.0 - t) * np.sinc((1.0 - t) * angle / np.pi) / sine
    weight_b = t * np.sinc(t * angle / np.pi) / sine
    return quat_normalise(weight_a * a + weight_b * b)
