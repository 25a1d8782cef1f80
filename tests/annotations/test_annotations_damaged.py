"""Files that are not what they should be end in one of our errors, whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdata.annotations import FORMATS, Scene, read_format, write_format
from mmdata.errors import ConfigError, MmdataError
from mmdata_schema import (
    Box2D,
    Box3D,
    Event,
    Keypoint,
    Keypoints,
    Layer,
    Mask,
    Phase,
    Provenance,
    Track2D,
    Track3D,
)

T0 = 1_760_030_100_000_000_000
STAMPS = T0 + np.arange(5) * 100_000_000
SCENE = Scene("e", start_ns=T0, stamps={"cam": STAMPS}, stream="cam", frame_id="w")
Q = (1.0, 0.0, 0.0, 0.0)


def rich() -> Layer:
    common: dict[str, Any] = {"label": "car", "stream": "cam", "stamp_ns": T0}
    return Layer(
        episode_id="e", name="gt", provenance=Provenance(author="a"),
        phases=[Phase(id="p", tier="m", label="x", start_ns=T0, end_ns=T0 + 10**9,
                      attributes={"n": 3, "s": "t"})],
        events=[Event(id="e", label="y", stamp_ns=T0)],
        boxes_2d=[Box2D(id="b", xyxy_px=(0, 0, 3, 3), object_id="o", **common)],
        masks=[Mask(id="k", size_hw=(2, 2), counts=[1, 2, 1], object_id="o", **common)],
        keypoints=[Keypoints(id="q", points=[Keypoint(name="n", xy_px=(1, 1))], **common)],
        tracks_2d=[Track2D(id="t", object_id="7", label="car", stream="cam",
                           stamp_ns=STAMPS[:2].tolist(), xyxy_px=[(0, 0, 1, 1)] * 2)],
        boxes_3d=[Box3D(id="c", label="car", stamp_ns=T0, frame_id="w", center_m=(1, 2, 3),
                        size_lwh_m=(1, 1, 1), quaternion_wxyz=Q)],
        tracks_3d=[Track3D(id="u", object_id="8", label="car", frame_id="w", stream="cam",
                           stamp_ns=STAMPS[:2].tolist(), center_m=[(0, 0, 1)] * 2,
                           size_lwh_m=[(1, 1, 1)] * 2, quaternion_wxyz=[Q] * 2)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Format -> content of its files; "" names the file of a format that has only one."""
    folder = tmp_path_factory.mktemp("formats")
    out = {}
    for name in FORMATS:
        layer = rich()
        if name == "cvat":
            layer = layer.edit(tracks_2d=[])  # the variant for images has more kinds of shape
        path = folder / name
        write_format(name, path, layer, SCENE)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        out[name] = {f.name if path.is_dir() else "": f.read_bytes() for f in files}
    return out


def put(folder: Path, files: dict[str, bytes]) -> Path:
    if "" in files:
        path = folder / "file"
        path.write_bytes(files[""])
        return path
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_what_we_write_we_read(
    name: str, written: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    made = read_format(name, put(tmp_path, written[name]), SCENE, layer="again")
    assert sum(1 for layer in made.layers for _ in layer.annotations()) > 0


@pytest.mark.parametrize("name", FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damage_ends_in_an_error_of_ours_or_in_labels(
    name: str, written: dict[str, dict[str, bytes]], tmp_path: Path, data: st.DataObject
) -> None:
    files = dict(written[name])
    chosen = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[chosen])
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["cut", "drop", "swap", "grow"]))
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        if kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + data.draw(st.integers(1, 12))]
        elif kind == "swap" and content:
            content[at] = data.draw(st.sampled_from(list(b'0-9.e"<>{}[],: \n\x00xnull')))
        else:
            content[at:at] = data.draw(
                st.sampled_from([b"null", b"-1", b"1e999", b"NaN", b'"x"', b"99999999999999999999"])
            )
    files[chosen] = bytes(content)
    try:
        read_format(name, put(tmp_path, files), SCENE, layer="again")
    except MmdataError as error:
        assert str(error)


def test_layer_names_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name for a layer"):
        read_format("csv", tmp_path / "x.csv", SCENE, layer="my layer")
    with pytest.raises(FileNotFoundError):
        read_format("csv", tmp_path / "x.csv", SCENE, layer="gt")
