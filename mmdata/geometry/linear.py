"""Small matrices times many vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def map_vectors(matrix: npt.ArrayLike, vectors: npt.ArrayLike) -> Floats:
    """``matrix @ v`` for every v: matrix (r, c), vectors (..., c), result (..., r).

    Written as sums, because ``vectors @ matrix.T`` hands a 3 x 3 matrix and a million points to a
    threaded BLAS, which was measured 4 to 100 times slower, worst when other processes are busy.
    """
    m, v = np.asarray(matrix, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    if v.shape[-1:] != m.shape[1:]:
        raise ValueError(f"a {m.shape} matrix cannot map vectors of shape {v.shape}")
    out = np.empty((*v.shape[:-1], m.shape[0]))
    for i, row in enumerate(m):
        total = row[0] * v[..., 0]
        for j in range(1, len(row)):
            total = total + row[j] * v[..., j]
        out[..., i] = total
    return out
