"""A desktop window of Open3D over an episode's clouds; an optional extra, imported only here."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from mmdata import Kind, open_episode
from mmdata.annotations import list_layers, read_episode_layer
from mmdata.errors import ConfigError, MissingDependencyError
from mmdata.geometry import BOX_EDGES, box_corners
from mmdata_viewer.frames import FrameGraph
from mmdata_viewer.placing import box_at
from mmdata_viewer.points import read_points


def show_desktop(path: str | os.PathLike[str]) -> None:
    """Open a window on the first cloud stream; left and right arrow keys step through sweeps.

    Raises MissingDependencyError without Open3D, ConfigError when the episode holds no cloud or
    no display is there.
    """
    try:
        import open3d as o3d
    except ImportError as error:
        raise MissingDependencyError("open3d", "open3d", "the desktop window") from error
    with open_episode(path) as episode:
        clouds = [
            name
            for kind in (Kind.SWEEP, Kind.DEPTH)
            for name in episode.streams
            if episode.streams[name].kind is kind and len(episode.streams[name])
        ]
        if not clouds:
            raise ConfigError(f"{path} holds no LiDAR sweeps and no depth images to show")
        stream, frames = episode.streams[clouds[0]], FrameGraph(episode)
        names = [e.name for e in list_layers(path) if e.problem is None]
        tracks = [t for name in names for t in read_episode_layer(path, name).tracks_3d]
        cloud, boxes = o3d.geometry.PointCloud(), o3d.geometry.LineSet()
        window = o3d.visualization.VisualizerWithKeyCallback()
        if not window.create_window(f"{episode.episode_id}: {stream.name}", 1280, 800):
            raise ConfigError("no display to open a window on; use `mmdata view` in a browser")
        at = 0

        def show() -> None:
            points, _ = read_points(stream, at, episode.rig, frames)
            stamp = int(stream.stamp_ns[at])
            frame = stream.info.frame_id or stream.name
            lines: list[Any] = []
            for track in tracks:
                placed = box_at(track, stamp, frames)
                pose = frames.transform(frame, track.frame_id, stamp)
                if placed is not None and pose is not None:
                    lines.append(pose.apply(box_corners(*placed)))
            cloud.points = o3d.utility.Vector3dVector(points)
            corners = np.concatenate(lines) if lines else np.empty((0, 3))
            edges = [BOX_EDGES + 8 * k for k in range(len(lines))]
            boxes.points = o3d.utility.Vector3dVector(corners)
            boxes.lines = o3d.utility.Vector2iVector(
                np.concatenate(edges) if edges else np.empty((0, 2), np.int32)
            )
            window.update_geometry(cloud)
            window.update_geometry(boxes)

        def step(by: int) -> Any:
            def pressed(_: Any) -> bool:
                nonlocal at
                at = int(np.clip(at + by, 0, len(stream) - 1))
                show()
                return False

            return pressed

        show()
        window.add_geometry(cloud)
        window.add_geometry(boxes)
        window.register_key_callback(262, step(1))
        window.register_key_callback(263, step(-1))
        window.run()
        window.destroy_window()
