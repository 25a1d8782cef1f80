from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata_schema import (
    COLLECTIONS,
    SCHEMA_VERSION,
    Layer,
    SchemaError,
    migrate,
    read_layer,
    rle_runs,
    rle_string,
    write_layer,
)
from mmdata_schema.generate import FOLDER, main, schema_texts
from mmdata_schema.migrations import MIGRATIONS

FROZEN = Path(__file__).parent / "frozen"
HEAD = {
    "schema_version": "1.0",
    "episode_id": "ep",
    "name": "gt",
    "provenance": {"author": "anna"},
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
stamps = st.integers(-(2**63), 2**63 - 2)
unknown = st.dictionaries(
    st.text(min_size=1).map(lambda text: f"x_{text}"), json_values, max_size=3
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Layers with unknown fields and attributes anywhere."""
    ids = iter(draw(st.lists(st.from_regex(r"\A\S{1,12}\Z"), min_size=8, max_size=8, unique=True)))

    def annotation(**fields: Any) -> dict[str, Any]:
        attributes = draw(st.dictionaries(st.text(), json_values, max_size=2))
        return {**draw(unknown), "id": next(ids), "attributes": attributes, **fields}

    phases = [
        annotation(
            tier="motion",
            label=draw(st.text(min_size=1, max_size=20)),
            start_ns=(start := draw(stamps)),
            end_ns=draw(st.integers(start + 1, 2**63 - 1)),
            evidence=[{**draw(unknown), "kind": "contact_on"}],
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    events = [
        annotation(label="slip", stamp_ns=draw(stamps), confidence=draw(st.floats(0, 1)))
        for _ in range(draw(st.integers(0, 3)))
    ]
    tags = [annotation(label="t", value=draw(json_values)) for _ in range(draw(st.integers(0, 2)))]
    return {**draw(unknown), **HEAD, "phases": phases, "events": events, "tags": tags}


def _normal(value: Any) -> Any:
    """A document as it must come back: no empty or null known fields, annotations by id."""
    text = json.dumps(value, sort_keys=True)
    out = json.loads(text)
    for name in COLLECTIONS:
        for annotation in out.get(name, []):
            for known in ("attributes", "evidence"):
                if not annotation.get(known, True):
                    del annotation[known]
            if name == "tags" and annotation.get("value", 0) is None:
                del annotation["value"]
        if name in out:
            out[name].sort(key=lambda a: a["id"])
            if not out[name]:
                del out[name]
    return out


@given(documents())
def test_round_trip_keeps_everything_and_is_canonical(document: dict[str, Any]) -> None:
    layer = read_layer(json.dumps(document))
    text = write_layer(layer)
    assert json.loads(text) == _normal(document)
    assert read_layer(text) == layer
    assert write_layer(read_layer(text.encode())) == text


@given(documents(), st.randoms())
def test_order_of_annotations_and_keys_does_not_matter(document: dict[str, Any], rng: Any) -> None:
    shuffled = json.loads(json.dumps(document))
    for name in ("phases", "events", "tags"):
        rng.shuffle(shuffled[name])
    keys = list(shuffled)
    rng.shuffle(keys)
    shuffled = {key: shuffled[key] for key in keys}
    assert read_layer(shuffled) == read_layer(document)
    assert write_layer(read_layer(shuffled)) == write_layer(read_layer(document))


@given(st.lists(st.integers(0, 2**40), max_size=40))
def test_rle_strings_round_trip(runs: list[int]) -> None:
    assert rle_runs(rle_string(runs)) == runs


def test_order_holds_after_a_list_was_changed_in_place() -> None:
    layer = read_layer({**HEAD, "tags": [{"id": "b", "label": "x"}]})
    layer.tags.append(layer.tags[0].edit(id="a"))
    assert [tag["id"] for tag in json.loads(write_layer(layer))["tags"]] == ["a", "b"]


def _kept(value: Any) -> int:
    """How many unknown fields (marked "kept") are in a document."""
    if isinstance(value, list):
        return sum(_kept(v) for v in value)
    if isinstance(value, dict):
        return sum((k == "kept" or v == "kept") + _kept(v) for k, v in value.items())
    return 0


def test_frozen_1_0_comes_back_whole() -> None:
    document = json.loads((FROZEN / "1.0.json").read_text("utf-8"))
    text = write_layer(read_layer((FROZEN / "1.0.json").read_bytes()))
    assert json.loads(text) == document
    # The sample must stay a real one: every collection, and unknown fields all over.
    assert all(document[name] for name in COLLECTIONS)
    assert _kept(document) >= len(COLLECTIONS) + 8


def test_frozen_0_9_becomes_1_0() -> None:
    source = json.loads((FROZEN / "0.9.json").read_text("utf-8"))
    before = copy.deepcopy(source)
    layer = read_layer(source)
    assert source == before
    assert json.loads(write_layer(layer)) == {
        "schema_version": "1.0",
        "episode_id": "drive_0007",
        "name": "gt",
        "campaign": {"id": 12, "batch": None},
        "provenance": {"author": "anna"},
        "review": {"state": "accepted"},
        "phases": [
            {
                "id": "s1",
                "tier": "manoeuvre",
                "label": "keep_lane",
                "start_ns": 1557539956500022000,
                "end_ns": 1557539957500022000,
                "hint": "kept",
            },
            {
                "id": "s2",
                "tier": "manoeuvre",
                "label": "turn_left",
                "start_ns": 1557539957500022000,
                "end_ns": 1557539958500022000,
            },
        ],
        "tracks_3d": [
            {
                "id": "track-7",
                "object_id": "7",
                "label": "car",
                "frame_id": "world",
                "stamp_ns": [1557539956500022000, 1557539956600022000],
                "center_m": [[7.0, 2.5, 0.5], [7.5, 2.6, 0.5]],
                "size_lwh_m": [[4.7, 1.9, 1.8], [4.7, 1.9, 1.8]],
                "quaternion_wxyz": [[1.0, 0.0, 0.0, 0.0], [0.8, 0.0, 0.0, 0.6]],
                "keyframe_attributes": {
                    "source_id": ["b1", "b2"],
                    "points": [None, 40],
                    "parked": [None, False],
                },
            }
        ],
        "boxes_3d": [
            {
                "id": "b3",
                "label": "pedestrian",
                "frame_id": "world",
                "stamp_ns": 1557539956500022000,
                "center_m": [-3.0, 1.0, 0.9],
                "size_lwh_m": [0.5, 0.6, 1.8],
                "quaternion_wxyz": [1.0, 0.0, 0.0, 0.0],
                "colour": "red",
            },
            # A track whose label changes stays single boxes.
            *(
                {
                    "id": id,
                    "label": label,
                    "object_id": "9",
                    "frame_id": "world",
                    "stamp_ns": stamp_ns,
                    "center_m": [20.0, 1.0, 0.9],
                    "size_lwh_m": [4.5, 1.8, 1.6],
                    "quaternion_wxyz": [1.0, 0.0, 0.0, 0.0],
                }
                for id, label, stamp_ns in (
                    ("b4", "car", 1557539956500022000),
                    ("b5", "truck", 1557539956600022000),
                )
            ),
        ],
    }


def test_boxes_at_one_instant_stay_single_in_the_migration() -> None:
    source = json.loads((FROZEN / "0.9.json").read_text("utf-8"))
    twin = {**source["boxes3d"][0], "id": "b2-twin"}
    layer = read_layer({**source, "boxes3d": [*source["boxes3d"], twin]})
    assert layer.tracks_3d == []
    assert [box.id for box in layer.boxes_3d] == ["b1", "b2", "b2-twin", "b3", "b4", "b5"]


def test_every_old_version_has_a_frozen_file() -> None:
    assert {path.stem for path in FROZEN.glob("*.json")} == {*MIGRATIONS, SCHEMA_VERSION}


def test_migrations_lead_to_the_current_version() -> None:
    for version in MIGRATIONS:
        document = json.loads((FROZEN / f"{version}.json").read_text("utf-8"))
        assert migrate(document)["schema_version"] == SCHEMA_VERSION


def test_current_documents_are_not_copied() -> None:
    document = dict(HEAD)
    assert migrate(document) is document


@pytest.mark.parametrize("version", ["2.0", "2.0.1", "10.3"])
def test_newer_major_is_refused(version: str) -> None:
    with pytest.raises(SchemaError, match=f"schema version {version}.*update mmdata"):
        read_layer({**HEAD, "schema_version": version})


def test_newer_minor_is_read_and_keeps_its_version() -> None:
    document = {**HEAD, "schema_version": "1.7", "lidar_seg": [{"id": "q", "new": [1]}]}
    assert json.loads(write_layer(read_layer(document))) == document


@pytest.mark.parametrize("version", [None, 1.0, "1", "v1.0", "1.x", ""])
def test_unreadable_versions_are_refused(version: object) -> None:
    with pytest.raises(SchemaError, match="schema_version"):
        read_layer({**HEAD, "schema_version": version})


def test_version_without_migration_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"0\.4.*no migration.*0\.9"):
        read_layer({**HEAD, "schema_version": "0.4"})


def test_old_document_that_breaks_its_own_schema_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"0\.9 but does not follow it"):
        read_layer({**HEAD, "schema_version": "0.9", "segments": [{"id": "s"}]})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"a": NaN}', b"\xff{}", '{"schema_version": "1.0"}']
)
def test_what_is_not_a_layer_is_refused(text: str | bytes) -> None:
    with pytest.raises(SchemaError):
        read_layer(text)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(value: str) -> None:
    text = json.dumps({**HEAD, "future": 0}).replace('"future": 0', f'"future": {value}')
    with pytest.raises(SchemaError):
        read_layer(text)


def test_message_says_where() -> None:
    phase = {"id": "p", "tier": "motion", "label": "lift", "start_ns": 3.5, "end_ns": 4}
    with pytest.raises(SchemaError, match=r"phases\.0\.start_ns: .*integer"):
        read_layer({**HEAD, "phases": [phase]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    layer = Layer.parse({**HEAD, "future": value})
    with pytest.raises(SchemaError, match="cannot be written as JSON"):
        write_layer(layer)


@pytest.mark.parametrize("name", ["a.b", "a/b", "", "-a", "..", "a b"])
def test_layer_names_fit_a_file_name(name: str) -> None:
    with pytest.raises(SchemaError, match="name"):
        read_layer({**HEAD, "name": name})


def test_schema_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(schema_texts())
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_check_names_stale_schema_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmdata_schema.generate.FOLDER", tmp_path / "1.0")
    assert main(["--check"]) == 1
    assert "layer.json" in capsys.readouterr().out
    assert not (tmp_path / "1.0").exists()
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "1.0" / "layer.json").write_text("{}", "utf-8")
    assert main(["--check"]) == 1
    assert main(["--chekc"]) == 2


def test_hundred_thousand_boxes_load_in_seconds() -> None:
    n = 200
    track = {
        "object_id": "o",
        "label": "car",
        "frame_id": "world",
        "stamp_ns": [1557539956500022000 + i * 100_000_000 for i in range(n)],
        "center_m": [[i * 0.1, 0.25, 1.125] for i in range(n)],
        "size_lwh_m": [[4.1, 1.8, 1.5]] * n,
        "quaternion_wxyz": [[1.0, 0.0, 0.0, 0.0]] * n,
        "keyframe_attributes": {"lidar_points": list(range(n))},
    }
    text = json.dumps({**HEAD, "tracks_3d": [{**track, "id": f"t{i}"} for i in range(500)]})
    start = time.process_time()
    layer = read_layer(text)
    seconds = time.process_time() - start
    assert sum(t.keyframe_count for t in layer.tracks_3d) == 100_000
    assert seconds < 2  # of CPU, however busy the machine is; 0.4 s on an idle core
