"""Camera models: pinhole, Brown-Conrady and Kannala-Brandt fisheye, as OpenCV defines them.

Formulas: the OpenCV documentation of ``calib3d`` (``projectPoints``) and ``fisheye``. Unlike
OpenCV, points a lens cannot see are marked: behind the camera, or beyond the radius at which the
distortion polynomial folds back, where a far-off point would land inside the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mmdata.geometry.linear import map_vectors
from mmdata.geometry.quaternions import Floats

MIN_DEPTH_M = 1e-6
_NEWTON_STEPS = 50


class LensModel(StrEnum):
    """The closed set of lens models."""

    PINHOLE = "pinhole"
    BROWN_CONRADY = "brown_conrady"
    FISHEYE = "fisheye"


_COEFFICIENTS = {
    LensModel.PINHOLE: (0,),
    LensModel.BROWN_CONRADY: (4, 5, 8),
    LensModel.FISHEYE: (4,),
}


@dataclass(frozen=True, eq=False)
class CameraModel:
    """Intrinsics of one camera.

    Args:
        model: ``pinhole`` (no coefficients), ``brown_conrady`` (k1, k2, p1, p2[, k3[, k4, k5,
            k6]]) or ``fisheye`` (k1, k2, k3, k4).
        K: (3, 3) fx, fy, cx, cy and skew in pixels.
        distortion: coefficients of the model.
        width, height: image size in pixels.

    Raises:
        ValueError: a shape does not fit, or K has no positive focal length. An uncalibrated
            camera (all zeros in ROS) has no CameraModel at all.
    """

    model: LensModel
    K: Floats
    distortion: Floats
    width: int
    height: int

    def __post_init__(self) -> None:
        model = LensModel(self.model)
        K = np.array(self.K, dtype=np.float64)
        distortion = np.array(self.distortion, dtype=np.float64).reshape(-1)
        if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise ValueError("K must be a finite (3, 3) matrix with positive focal lengths")
        if len(distortion) not in _COEFFICIENTS[model] or not np.isfinite(distortion).all():
            raise ValueError(
                f"{model} takes {_COEFFICIENTS[model]} finite coefficients, got {distortion}"
            )
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"image size {self.width}x{self.height} is not positive")
        K.flags.writeable = distortion.flags.writeable = False
        for name, value in (("model", model), ("K", K), ("distortion", distortion)):
            object.__setattr__(self, name, value)

    @classmethod
    def pinhole(cls, K: npt.ArrayLike, width: int, height: int) -> CameraModel:
        """An ideal camera without distortion."""
        return cls(LensModel.PINHOLE, np.asarray(K), np.zeros(0), width, height)

    def project(self, points: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Pixels of points (..., 3) in the camera frame (x right, y down, z forward).

        Returns:
            uv (..., 2), NaN where not valid; valid (...): in front of the camera and within the
            lens model's range. Pixels may lie outside the image, see :meth:`contains`.
        """
        points = np.asarray(points, dtype=np.float64)
        valid = self.sees(points)
        if self.model is LensModel.FISHEYE:
            distorted = self._distort_fisheye(points, valid)
        else:
            flat = points[..., :2] / np.where(valid, points[..., 2], 1.0)[..., None]
            distorted = self._distort(np.where(valid[..., None], flat, 0.0))
        uv = map_vectors(self.K[:2, :2], distorted) + self.K[:2, 2]
        return np.where(valid[..., None], uv, np.nan), valid

    def sees(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether points (..., 3) of the camera frame lie in the lens model's range, (...)."""
        points = np.asarray(points, dtype=np.float64)
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        if self.model is LensModel.FISHEYE:
            radius = np.hypot(x, y)
            theta = np.arctan2(radius, z)
            return np.asarray(
                (theta < self._fisheye[1]) & np.isfinite(radius) & ((radius > 0) | (z > 0))
            )
        with np.errstate(over="ignore", invalid="ignore"):
            in_range = x * x + y * y < self._max_radius_squared * z * z
        return np.asarray((z > MIN_DEPTH_M) & in_range)

    def unproject(self, uv: npt.ArrayLike) -> Floats:
        """Unit rays (..., 3) in the camera frame through pixels (..., 2).

        NaN where no ray of the lens model's range meets the pixel.
        """
        uv = np.asarray(uv, dtype=np.float64)
        target = map_vectors(np.linalg.inv(self.K[:2, :2]), uv - self.K[:2, 2])
        if self.model is LensModel.FISHEYE:
            return self._undistort_fisheye(target)
        flat = target if self.model is LensModel.PINHOLE else self._undistort(target)
        ray = np.concatenate([flat, np.ones((*flat.shape[:-1], 1))], axis=-1)
        return np.asarray(ray / np.linalg.norm(ray, axis=-1, keepdims=True))

    def contains(self, uv: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether pixels (..., 2) lie within the image; NaN does not."""
        uv = np.asarray(uv, dtype=np.float64)
        inside = (uv >= -0.5) & (uv < np.array([self.width, self.height]) - 0.5)
        return np.asarray(inside.all(axis=-1))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CameraModel):
            return NotImplemented
        return (self.model, self.width, self.height) == (
            other.model,
            other.width,
            other.height,
        ) and all(
            np.array_equal(a, b)
            for a, b in ((self.K, other.K), (self.distortion, other.distortion))
        )

    def __hash__(self) -> int:
        return hash((self.model, self.width, self.height, self.K.tobytes()))

    # Brown-Conrady ------------------------------------------------------------------------

    @cached_property
    def _brown(self) -> tuple[Floats, Floats, float, float]:
        """Numerator and denominator in r^2 (lowest power first), p1, p2."""
        c = np.zeros(8)
        c[: len(self.distortion)] = self.distortion
        return np.array([1.0, c[0], c[1], c[4]]), np.array([1.0, c[5], c[6], c[7]]), c[2], c[3]

    @cached_property
    def _max_radius_squared(self) -> float:
        """Squared undistorted radius at which the distorted radius stops growing."""
        if self.model is LensModel.PINHOLE:
            return np.inf
        P = np.polynomial.polynomial
        n, d, _, _ = self._brown
        # With s = r^2: d(r n/d)/dr is proportional to (n + 2 s n') d - 2 s n d'.
        two_s = np.array([0.0, 2.0])
        slope = P.polysub(
            P.polymul(P.polyadd(n, P.polymul(two_s, P.polyder(n))), d),
            P.polymul(two_s, P.polymul(n, P.polyder(d))),
        )
        return min(_first_positive_root(slope), _first_positive_root(d))

    def _distort(self, flat: Floats) -> Floats:
        """Distorted normalised coordinates (..., 2)."""
        if self.model is LensModel.PINHOLE:
            return flat
        n, d, p1, p2 = self._brown
        P = np.polynomial.polynomial
        x, y = flat[..., 0], flat[..., 1]
        s = x * x + y * y
        radial = P.polyval(s, n) / P.polyval(s, d)
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (s + 2 * x * x),
                y * radial + p1 * (s + 2 * y * y) + 2 * p2 * x * y,
            ],
            axis=-1,
        )

    def _jacobian(self, flat: Floats) -> Floats:
        """Derivatives (..., 2, 2) of the distorted by the undistorted coordinates."""
        n, d, p1, p2 = self._brown
        P = np.polynomial.polynomial
        x, y = flat[..., 0], flat[..., 1]
        s = x * x + y * y
        bottom = P.polyval(s, d)
        radial = P.polyval(s, n) / bottom
        # Derivative of the radial factor by s.
        slope = (P.polyval(s, P.polyder(n)) - radial * P.polyval(s, P.polyder(d))) / bottom
        cross = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        return np.stack(
            [
                np.stack([radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x, cross], axis=-1),
                np.stack([cross, radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x], axis=-1),
            ],
            axis=-2,
        )

    def _undistort(self, target: Floats) -> Floats:
        """Newton's method; steps are kept within the range where the model is one to one."""
        flat = _shrink(target, 0.999 * np.sqrt(self._max_radius_squared))
        for _ in range(_NEWTON_STEPS):
            error, jacobian = self._distort(flat) - target, self._jacobian(flat)
            determinant = np.linalg.det(jacobian)
            safe = np.where(np.abs(determinant) > 1e-12, determinant, 1.0)
            a, b, c, d = (jacobian[..., i, j] for i in (0, 1) for j in (0, 1))
            step = np.stack(
                [d * error[..., 0] - b * error[..., 1], a * error[..., 1] - c * error[..., 0]],
                axis=-1,
            )
            step = step / safe[..., None]
            flat = _shrink(flat - _shrink(step, 0.5), np.sqrt(self._max_radius_squared))
            if np.nanmax(np.abs(step), initial=0.0) < 1e-14:
                break
        error = np.abs(self._distort(flat) - target).max(axis=-1, keepdims=True)
        return np.where(error < 1e-10, flat, np.nan)

    # Fisheye ------------------------------------------------------------------------------

    @cached_property
    def _fisheye(self) -> tuple[Floats, float]:
        """Polynomial of theta_d in theta, and the largest theta at which it still grows."""
        polynomial = np.zeros(10)
        polynomial[1::2] = [1.0, *self.distortion]
        # In s = theta^2 the derivative is 1 + 3 k1 s + 5 k2 s^2 + ...
        slope = np.array([1.0, 3.0, 5.0, 7.0, 9.0]) * polynomial[1::2]
        return polynomial, min(np.pi, np.sqrt(_first_positive_root(slope)))

    def _distort_fisheye(self, points: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
        radius = np.hypot(points[..., 0], points[..., 1])
        theta = np.where(valid, np.arctan2(radius, points[..., 2]), 0.0)
        theta_d = np.polynomial.polynomial.polyval(theta, self._fisheye[0])
        # On the axis theta_d / radius tends to 1 / z, times a radius of zero.
        scale = theta_d / np.where(radius > 0, radius, 1.0)
        return np.asarray(points[..., :2] * scale[..., None])

    def _undistort_fisheye(self, target: Floats) -> Floats:
        P = np.polynomial.polynomial
        polynomial, max_theta = self._fisheye
        radius = np.hypot(target[..., 0], target[..., 1])
        reachable = radius <= P.polyval(max_theta, polynomial)
        # theta_d grows over the whole bracket, so Newton guarded by bisection always arrives.
        low, high = np.zeros_like(radius), np.full_like(radius, max_theta)
        theta = np.minimum(radius, 0.999 * max_theta)
        for _ in range(_NEWTON_STEPS):
            error = P.polyval(theta, polynomial) - radius
            low, high = np.where(error < 0, theta, low), np.where(error < 0, high, theta)
            slope = P.polyval(theta, P.polyder(polynomial))
            newton = theta - error / np.where(slope > 1e-12, slope, 1e-12)
            inside = (newton > low) & (newton < high)
            new = np.where(inside, newton, 0.5 * (low + high))
            moved = np.abs(new - theta)
            theta = np.where(error == 0, theta, new)
            if np.nanmax(np.where(error == 0, 0.0, moved), initial=0.0) < 1e-15:
                break
        sine = np.sin(theta) / np.where(radius > 0, radius, 1.0)
        ray = np.concatenate([target * sine[..., None], np.cos(theta)[..., None]], axis=-1)
        return np.where(reachable[..., None], ray, np.nan)


def _first_positive_root(coefficients: npt.NDArray[Any]) -> float:
    """Smallest positive real root of a polynomial (lowest power first); infinity if none."""
    roots = np.roots(np.trim_zeros(coefficients[::-1], "f"))
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(np.min(real[real > 0], initial=np.inf))


def _shrink(vectors: Floats, limit: float) -> Floats:
    """Vectors (..., 2) no longer than limit."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * np.minimum(1.0, limit / np.where(length > 0, length, 1.0))
