"""Drawing for reports with OpenCV; pictures are (H, W, 3) BGR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmdata import Stream
from mmdata.geometry import BOX_EDGES
from mmdata_schema import Phase
from mmdata_viewer.media import picture

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

CAPTION_PX = 20
_BACKGROUND, _TEXT, _DIM, _LINE = (24, 22, 20), (235, 232, 228), (165, 160, 150), (70, 62, 55)
_CURSOR = (247, 195, 79)
_GUTTER_PX, _SIGNAL_PX, _TIER_PX = 150, 64, 24
#: Okabe and Ito's colours as BGR, readable with any colour vision.
PALETTE: tuple[Colour, ...] = (
    (0, 159, 230), (233, 180, 86), (115, 158, 0), (66, 228, 240), (212, 139, 61), (0, 94, 213),
    (167, 121, 204),
)  # fmt: skip


def camera_tile(
    stream: Stream,
    i: int,
    boxes: Sequence[tuple[Sequence[NDArray[np.float64]], str, Colour]],
    size: tuple[int, int] | None,
) -> Picture:
    """Frame i with projected boxes (edges in pixels of the calibrated image of `size`)."""
    image = picture(stream, i)
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., ::-1]
    canvas = np.ascontiguousarray(image)
    # Small pictures are enlarged first, so that lines and letters stay readable.
    scale = max(1.0, 640 / canvas.shape[1])
    if scale > 1:
        canvas = cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    ratio = canvas.shape[1] / size[0] if size else 1.0
    for edges, label, colour in boxes:
        # Pixel centres are integers; the corner of the picture is half a pixel before the first.
        lines = [np.rint(((e + 0.5) * ratio - 0.5) * 16).astype(np.int32) for e in edges]
        lines = [np.clip(line, -(2**20), 2**20) for line in lines]
        cv2.polylines(canvas, lines, False, (0, 0, 0), 4, cv2.LINE_AA, 4)
        cv2.polylines(canvas, lines, False, colour, 2, cv2.LINE_AA, 4)
        points = np.concatenate(edges)
        x, y = ((points[points[:, 1].argmin()] + 0.5) * ratio).astype(int)
        text(canvas, label, (int(x), int(y) - 6), colour, shade=True)
    return canvas


def cloud_tile(
    points: NDArray[np.float64],
    boxes: Sequence[tuple[NDArray[np.float64], Colour]],
    width: int,
    height: int,
) -> Picture:
    """Points (x forward, y left, z up) from above, forward up; colour is height, highest on top."""
    canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)
    if len(points):
        reach = float(np.percentile(np.hypot(points[:, 0], points[:, 1]), 90)) or 1.0
        centre = np.array([0.0, 0.0])
        if points[:, 0].min() > -0.05 * reach:  # a depth camera sees forward only
            centre[0] = 0.5 * reach
            reach *= 0.6
        scale = 0.5 * min(width, height) / reach
        order = np.argsort(points[:, 2], kind="stable")
        kept = points[order]
        u = (width / 2 - (kept[:, 1] - centre[1]) * scale).astype(np.int64)
        v = (height / 2 - (kept[:, 0] - centre[0]) * scale).astype(np.int64)
        low, high = np.percentile(kept[:, 2], [2, 98])
        level = np.clip((kept[:, 2] - low) / ((high - low) or 1.0), 0, 1)
        table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_VIRIDIS)[0]
        colours = table[(60 + 195 * level).astype(np.uint8)]
        inside = (u >= 0) & (u < width - 1) & (v >= 0) & (v < height - 1)
        for du, dv in ((0, 0), (1, 0), (0, 1), (1, 1)):
            canvas[v[inside] + dv, u[inside] + du] = colours[inside]
        for corners, colour in boxes:
            flat = np.stack(
                [
                    width / 2 - (corners[:, 1] - centre[1]) * scale,
                    height / 2 - (corners[:, 0] - centre[0]) * scale,
                ],
                axis=-1,
            )
            for a, b in BOX_EDGES:
                ends = [tuple(int(x) for x in np.clip(flat[k], -1e5, 1e5)) for k in (a, b)]
                cv2.line(canvas, ends[0], ends[1], colour, 2, cv2.LINE_AA)
    return canvas


def strip(
    width: int,
    span: tuple[int, int],
    stamp_ns: int,
    signals: Sequence[tuple[str, Any, Any]],
    phases: Sequence[Phase],
    colours: Mapping[str, Colour],
) -> Picture:
    """Signals and phase tiers over the whole episode, with the cursor."""
    tiers = list(dict.fromkeys(p.tier for p in phases))
    height = CAPTION_PX + _SIGNAL_PX * len(signals) + _TIER_PX * len(tiers) + 6
    canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)

    def x(stamp: Any) -> Any:
        share = (np.asarray(stamp, np.int64) - span[0]) / max(1, span[1] - span[0])
        return _GUTTER_PX + share * (width - _GUTTER_PX - 4)

    top = 3
    for name, stamps, values in signals:
        cv2.line(canvas, (0, top + _SIGNAL_PX), (width, top + _SIGNAL_PX), _LINE, 1)
        text(canvas, name[:22], (6, top + 16), _TEXT)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        for c in range(values.shape[1]):
            y = (
                top
                + _SIGNAL_PX
                - 6
                - (values[:, c] - low) / ((high - low) or 1) * (_SIGNAL_PX - 12)
            )
            line = np.stack([x(stamps), y], axis=-1)
            line = line[np.isfinite(line).all(axis=1)]
            cv2.polylines(
                canvas, [np.rint(line * 16).astype(np.int32)], False, PALETTE[c % len(PALETTE)], 1,
                cv2.LINE_AA, 4,
            )  # fmt: skip
        top += _SIGNAL_PX
    for tier in tiers:
        text(canvas, tier[:22], (6, top + 16), _TEXT)
        for phase in (p for p in phases if p.tier == tier):
            x0, x1 = int(x(phase.start_ns)), int(x(phase.end_ns))
            cv2.rectangle(canvas, (x0, top + 2), (x1 - 1, top + 20), colours[phase.label], -1)
            room = (x1 - x0 - 8) // 8
            if room > 2:
                text(canvas, phase.label[:room], (x0 + 4, top + 16), (15, 15, 15))
        top += _TIER_PX
    at = int(np.clip(x(stamp_ns), 0, width - 1))
    cv2.line(canvas, (at, 0), (at, height), _CURSOR, 2)
    text(canvas, f"{(stamp_ns - span[0]) / 1e9:.3f} s", (6, height - 6), _DIM)
    return canvas


def titled(canvas: Picture, caption: str) -> Picture:
    """The picture with a line of text above it."""
    head = np.full((CAPTION_PX, canvas.shape[1], 3), _BACKGROUND, np.uint8)
    text(head, caption, (6, 15), _TEXT)
    return np.concatenate([head, canvas])


def text(
    canvas: Picture, words: str, at: tuple[int, int], colour: Colour, shade: bool = False
) -> None:
    """One line of text; OpenCV's fonts hold ASCII only."""
    plain = words.encode("ascii", "replace").decode()
    font = cv2.FONT_HERSHEY_SIMPLEX
    if shade:
        (wide, tall), _ = cv2.getTextSize(plain, font, 0.45, 1)
        x, y = at
        cv2.rectangle(canvas, (x - 2, y - tall - 3), (x + wide + 2, y + 3), _BACKGROUND, -1)
    cv2.putText(canvas, plain, at, font, 0.45, colour, 1, cv2.LINE_AA)
