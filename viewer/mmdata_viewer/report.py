"""Pictures and films of an episode without browser or display: cameras with boxes, the cloud,
signals and phases, at one instant or over a range."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata import Episode, Kind, Stream, open_episode
from mmdata.annotations import list_layers, read_episode_layer
from mmdata.errors import ConfigError, FormatError
from mmdata.geometry import box_corners, project_box
from mmdata_schema import Layer
from mmdata_viewer.draw import CAPTION_PX, PALETTE, camera_tile, cloud_tile, strip, titled
from mmdata_viewer.frames import FrameGraph
from mmdata_viewer.placing import box_at
from mmdata_viewer.points import read_points

Picture = NDArray[np.uint8]
SECOND_NS = 1_000_000_000
MOST_FRAMES = 100_000
#: Streams with fewer samples hold settings rather than signals.
_FEWEST_SAMPLES = 10


def render(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    time_s: float = 0.0,
    end_s: float | None = None,
    fps: float = 15.0,
    width: int = 1280,
    layers: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write a .png of one instant, or an .mp4 (H.264) from time_s to end_s.

    Every stream shows the sample nearest to the instant by its own stamps; boxes stand where they
    are at each camera's exposure. layers: names to draw, all of them by default.

    Returns path, width, height and frames. Raises ConfigError for arguments that make no sense.
    """
    target = Path(output)
    if target.suffix.lower() not in (".png", ".mp4"):
        raise ConfigError(f"{output}: the name ends in .png or .mp4")
    if not 320 <= width <= 7680 or not 0 < fps <= 240:
        raise ConfigError("width goes from 320 to 7680 pixels, fps up to 240")
    with open_episode(path) as episode:
        if episode.start_ns is None or episode.end_ns is None:
            raise FormatError(f"{path} holds no samples")
        known = [entry.name for entry in list_layers(path) if entry.problem is None]
        unknown = sorted(set(layers or ()) - set(known))
        if unknown:
            raise ConfigError(f"no layer {unknown[0]!r}; there are: {', '.join(known) or 'none'}")
        chosen = [read_episode_layer(path, name) for name in (known if layers is None else layers)]
        page = _Page(episode, chosen, width)
        start = episode.start_ns + round(time_s * SECOND_NS)
        if target.suffix.lower() == ".png":
            import cv2

            picture = page.at(start)
            if not cv2.imwrite(str(target), picture):
                raise ConfigError(f"cannot write {target}")
            count = 1
        else:
            last = episode.end_ns if end_s is None else episode.start_ns + round(end_s * SECOND_NS)
            count = int((last - start) / SECOND_NS * fps) + 1
            if not 1 <= count <= MOST_FRAMES:
                raise ConfigError(f"from {time_s} s on there are {count} frames to write")
            ticks = [start + round(k * SECOND_NS / fps) for k in range(count)]
            picture = _film(target, (page.at(t) for t in ticks), fps)
    shape = picture.shape
    return {"path": str(target), "width": shape[1], "height": shape[0], "frames": count}


def _film(target: Path, pictures: Iterator[Picture], fps: float) -> Picture:
    """Encode; returns the last picture."""
    import av

    picture = next(pictures)
    with av.open(str(target), "w") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream: Any = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = picture.shape[1], picture.shape[0]
        stream.pix_fmt = "yuv420p"
        while True:
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            container.mux(stream.encode(frame))
            following = next(pictures, None)
            if following is None:
                break
            picture = following
        container.mux(stream.encode(None))
    return picture


class _Page:
    """The fixed arrangement of one report; `at` fills it in."""

    def __init__(self, episode: Episode, layers: Sequence[Layer], width: int) -> None:
        self.episode, self.layers = episode, layers
        self.width = width - width % 2
        self.frames = FrameGraph(episode)
        streams = [episode.streams[name] for name in episode.streams]
        filled = [s for s in streams if len(s)]
        self.cameras = [s for s in filled if s.kind is Kind.IMAGE]
        clouds = [s for s in filled if s.kind is Kind.SWEEP]
        clouds += [s for s in filled if s.kind is Kind.DEPTH]
        self.cloud = clouds[0] if clouds else None
        self.signals = _signals(filled)
        tracks = [track for layer in layers for track in layer.tracks_3d]
        self.tracks = tracks
        labels = [t.label for t in tracks] + [p.label for x in layers for p in x.phases]
        self.colours = {
            label: PALETTE[k % len(PALETTE)] for k, label in enumerate(dict.fromkeys(labels))
        }

    def at(self, stamp_ns: int) -> Picture:
        """(H, W, 3) BGR; H and W are even, as video wants them."""
        tiles = [self._camera(s, stamp_ns) for s in self.cameras]
        count = len(tiles) + (self.cloud is not None)
        columns = count if count <= 3 else -(-count // 2) if count <= 8 else 4
        columns = max(1, columns)
        wide = self.width // columns
        tall = round(wide * 0.75)
        if self.cloud is not None:
            i = _nearest(self.cloud, stamp_ns)
            points, _ = read_points(self.cloud, i, self.episode.rig, self.frames)
            tiles.append(self._cloud(self.cloud, points, stamp_ns, wide, tall))
        rows = [
            np.concatenate([_into(*t, wide, tall) for t in tiles[k : k + columns]], axis=1)
            for k in range(0, len(tiles), columns)
        ]
        start = self.episode.start_ns or 0
        span = (start, self.episode.end_ns or start)
        phases = [p for layer in self.layers for p in layer.phases]
        rows.append(strip(self.width, span, stamp_ns, self.signals, phases, self.colours))
        page = np.concatenate([_wide(row, self.width) for row in rows])
        return page[: page.shape[0] - page.shape[0] % 2]

    def _tolerance(self, track: Any) -> int:
        stream = self.episode.streams.get(track.stream) if track.stream else self.cloud
        rate = stream.rate_hz if stream is not None else None
        return round(0.55 * SECOND_NS / rate) if rate else 0

    def _camera(self, stream: Stream, stamp_ns: int) -> tuple[Picture, str]:
        i = _nearest(stream, stamp_ns)
        at = int(stream.stamp_ns[i])
        sensor = self.episode.rig.get(stream.info.sensor or stream.name)
        camera = sensor.camera if sensor is not None else None
        frame = sensor.frame_id if sensor is not None else stream.info.frame_id
        lines = []
        for track in self.tracks if camera is not None and frame else ():
            placed = box_at(track, at, self.frames, self._tolerance(track))
            pose = self.frames.transform(str(frame), track.frame_id, at)
            if placed is None or pose is None or camera is None:
                continue
            seen = project_box(camera, pose.apply(box_corners(*placed)))
            if seen is not None:
                lines.append((seen.edges, track.label, self.colours[track.label]))
        caption = f"{stream.name}  #{i}  {(at - stamp_ns) / 1e6:+.1f} ms"
        size = None if camera is None else (camera.width, camera.height)
        return camera_tile(stream, i, lines, size), caption

    def _cloud(
        self, stream: Stream, points: Any, stamp_ns: int, width: int, height: int
    ) -> tuple[Picture, str]:
        at = int(stream.stamp_ns[_nearest(stream, stamp_ns)])
        frame = stream.info.frame_id or stream.name
        boxes = []
        for track in self.tracks:
            placed = box_at(track, at, self.frames, self._tolerance(track))
            pose = self.frames.transform(frame, track.frame_id, at)
            if placed is not None and pose is not None:
                boxes.append((pose.apply(box_corners(*placed)), self.colours[track.label]))
        if stream.kind is Kind.DEPTH:
            # Camera axes to x forward, y left, z up, so that "from above" means what it says.
            turn = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
            points = points @ turn.T
            boxes = [(corners @ turn.T, colour) for corners, colour in boxes]
        caption = f"{stream.name}  {(at - stamp_ns) / 1e6:+.1f} ms"
        return cloud_tile(points, boxes, width, height - CAPTION_PX), caption


def _signals(streams: Sequence[Stream]) -> list[tuple[str, Any, Any]]:
    """Up to four signals as (name, stamps (n,), values (n, C)), thinned for a strip."""
    found = []
    for stream in streams:
        if stream.kind is not Kind.SIGNAL or len(stream) < _FEWEST_SAMPLES:
            continue
        for name, field in stream.info.fields.items():
            size = int(np.prod(field.shape, dtype=np.int64))
            if field.ragged or size > 12:
                continue
            values: Any = stream.field(name)
            step = max(1, len(stream) // 4000)
            values = np.asarray(values[::step], np.float64)
            flat = values.reshape(len(values), -1)
            found.append((f"{stream.name}.{name}", stream.stamp_ns[::step], flat))
            break
        if len(found) == 4:
            break
    return found


def _nearest(stream: Stream, stamp_ns: int) -> int:
    stamps = stream.stamp_ns
    right = int(np.searchsorted(stamps, stamp_ns))
    if right == 0 or right == len(stamps):
        return min(right, len(stamps) - 1)
    return right - 1 if stamp_ns - stamps[right - 1] <= stamps[right] - stamp_ns else right


def _into(tile: Picture, caption: str, width: int, height: int) -> Picture:
    """A tile scaled into its cell, keeping its aspect, under its caption."""
    import cv2

    height -= CAPTION_PX
    scale = min(width / tile.shape[1], height / tile.shape[0])
    size = (max(1, round(tile.shape[1] * scale)), max(1, round(tile.shape[0] * scale)))
    small = cv2.resize(tile, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cell = np.zeros((height, width, 3), np.uint8)
    y, x = (height - size[1]) // 2, (width - size[0]) // 2
    cell[y : y + size[1], x : x + size[0]] = small
    return titled(cell, caption)


def _wide(row: Picture, width: int) -> Picture:
    missing = width - row.shape[1]
    return np.pad(row, ((0, 0), (0, missing), (0, 0))) if missing > 0 else row[:, :width]
