"""Findings, review, comments, comparison and adjudication in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from viewer_helpers import PHASES, Page, Server

from mmdata.annotations import layer_path, read_episode_layer, write_layer_file
from mmdata_schema import Layer

OpenPage = Callable[..., Page]
SECOND = 1_000_000_000


def shift(server: Server, id: str, by_m: float, *, keyframe: int | None = None) -> Layer:
    """Anna's layer with one keyframe of a track, or all, moved along x; not written."""
    layer = read_episode_layer(server.root / "drive.h5", "anna")
    track: Any = layer.get(id)
    centres = [
        (x + by_m * (keyframe in (None, k)), y, z) for k, (x, y, z) in enumerate(track.center_m)
    ]
    return layer.put(track.edit(center_m=centres))


def write(server: Server, layer: Layer) -> None:
    path = layer_path(server.root / "drive.h5", layer.name)
    write_layer_file(path, layer, layer.revision if path.exists() else 0)


def test_a_gap_is_found_at_once_and_closed_by_its_fix(server: Server, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}?ep=drive.h5&user=ben")
    page.saved()
    page.run("""() => { const l = window.mmdata.session.layers; const p = (id, label, a, b) => (
      { collection: 'phases', id, after: { id, tier: 'motion', label, start_ns: a, end_ns: b } });
      return l.edit([p('a', 'approach', 1e9, 2e9), p('b', 'descend', 2.5e9, 3e9)]); }""")
    page.wait("() => window.mmdata.worklist.findings.some((f) => f.rule === 'label/gap')")
    page.press("x")
    page.wait("() => window.mmdata.session.clock.t === 2.5e9")
    assert page.run("() => window.mmdata.session.selection.id") == "b"
    page.page.get_by_role("tab", name="Findings").click()
    page.wait("() => document.querySelector('[aria-selected=true]').innerText.startsWith('Find')")
    # "Nothing found" is said only once everything was looked for.
    page.wait("() => window.mmdata.worklist.checks === 'done'", seconds=60)
    page.wait("() => !document.querySelector('.side-body').innerText.includes('is running')")
    page.page.get_by_role("button", name="extend approach to here").click()
    page.saved()
    assert page.run(PHASES)[0] == ["approach", 1e9, 2.5e9]
    page.wait("() => !window.mmdata.worklist.findings.some((f) => f.rule === 'label/gap')")


def test_review_comments_and_comparison_in_the_page(server: Server, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}?ep=drive.h5&t=2.25&sel=p1&user=anna")
    page.press("p")
    page.page.keyboard.type("boundary too late")
    page.press("Control+Enter")
    page.saved()
    (comment,) = page.run(
        "() => window.mmdata.session.layers.all('comments', 'anna').map((c) => c.item)"
    )
    assert comment["text"] == "boundary too late"
    assert comment["pin"]["stamp_ns"] == 2_250_000_000
    assert comment["pin"]["annotation_id"] == "p1"
    assert comment["provenance"]["author"] == "anna"
    page.run("t => window.mmdata.session.clock.seek(t)", 0)
    page.page.get_by_role("tab", name="Review").click()
    page.page.get_by_role("button", name="anna boundary too late").click()
    assert page.run("() => window.mmdata.session.clock.t") == 2_250_000_000
    page.page.get_by_role("button", name="Hand in for review").click()
    page.wait("() => document.body.innerText.includes('Layer anna: review')")
    page.page.get_by_role("button", name="Accept", exact=True).click()
    page.wait("() => document.body.innerText.includes('Layer anna: accepted')")
    page.run(
        "() => window.mmdata.session.layers.edit([{collection: 'events', id: 'e1', after: null}])"
    )
    page.wait("() => document.body.innerText.includes('is accepted; reopen it')")
    assert page.run("() => !!window.mmdata.session.layers.get('anna', 'events', 'e1')")
    page.page.get_by_role("button", name="Compare two layers").click()
    page.page.keyboard.type("anna")
    page.press("Enter")
    page.page.keyboard.type("auto")
    page.press("Enter")
    page.wait("() => /manoeuvre: same label 100.0 % of the time/.test(document.body.innerText)")


def test_a_finding_of_the_checks_leads_to_instant_view_and_object(
    server: Server, open_page: OpenPage
) -> None:
    layer = shift(server, "t-car-2", 6.0, keyframe=3)
    write(server, layer)
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    found = """() => window.mmdata.worklist.findings.find((f) =>
      f.details?.some((d) => d.object_id === 'car-2' && d.stream))"""
    page.wait(f"() => !!({found})()", seconds=60)
    places = page.run(f"() => ({found})().details")
    track: Any = layer.get("t-car-2")
    start = page.run("() => window.mmdata.session.stamps.get('lidar').ns[0]")
    jumped = track.stamp_ns[3] - track.stamp_ns[0] + start
    assert {p["stamp_ns"] for p in places} == {jumped}
    page.run("() => window.mmdata.session.clock.seek(0)")
    for _ in range(40):  # from place to place, until it is there
        page.press("x")
        if page.run("() => window.mmdata.session.selection?.id") == "t-car-2":
            break
    assert page.run("() => window.mmdata.session.clock.t") == jumped
    streams = [p.get("stream") for p in places]
    while page.run("() => window.mmdata.session.focus") not in streams:
        page.press("x")
        assert page.run("() => window.mmdata.session.clock.t") == jumped
    # The list leads there as well.
    page.page.get_by_role("tab", name="Findings").click()
    page.run("() => window.mmdata.session.clock.seek(0)")
    row = page.page.locator(".finding", has_text=page.run(f"() => ({found})().message"))
    row.get_by_role("button").first.click()
    assert page.run("() => window.mmdata.session.clock.t") == jumped


def test_every_place_of_a_finding_is_reached(server: Server, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.saved()
    page.wait("() => window.mmdata.worklist.findings.length > 0", seconds=60)
    finding = {
        "rule": "TST001",
        "severity": "warning",
        "message": "three places",
        "details": [
            {"stream": "camera_left", "stamp_ns": 1 * SECOND},
            {"stream": "imu", "stamp_ns": 2 * SECOND, "end_ns": 3 * SECOND, "message": "a span"},
            {"layer": "anna", "annotation_ids": ["p2"], "stream": "camera_front"},
        ],
    }
    page.run("(f) => { window.mmdata.worklist.set([f]); window.mmdata.session.touch(); }", finding)
    state = """() => { const { session } = window.mmdata;
      return [session.clock.t, session.focus, session.selection?.id ?? null]; }"""
    p2 = page.run("() => window.mmdata.session.layers.get('anna', 'phases', 'p2').start_ns")
    places = [
        [1 * SECOND, "camera_left", None],
        [2 * SECOND, "imu", None],
        [p2, "camera_front", "p2"],
    ]
    seen = []
    for key in ("x", "x", "x"):
        page.press(key)
        seen.append(page.run(state))
    assert seen == places
    page.press("Shift+X")
    assert page.run(state)[:2] == places[1][:2]
    page.page.get_by_role("tab", name="Findings").click()
    row = page.page.locator(".finding", has_text="three places")
    row.locator("summary").click()
    row.get_by_role("button", name="imu · a span").click()
    assert page.run(state)[:2] == places[1][:2]
    assert row.locator(".place").count() == 3, "the list stays open"


def test_differences_are_adjudicated_one_by_one(server: Server, open_page: OpenPage) -> None:
    """Ben's boundary and Ben's car are taken over into a third layer that began as Anna's."""
    other = shift(server, "t-car-1", 0.8)
    phase: Any = other.get("p1")
    later: Any = other.get("p2")
    moved = phase.end_ns + SECOND // 2
    other = other.put(phase.edit(end_ns=moved)).put(later.edit(start_ns=moved))
    write(server, other.edit(name="ben"))
    page = open_page(f"{server.url}?ep=drive.h5&user=carla")
    page.saved()
    for id in ("p1", "t-car-1"):
        collection = "phases" if id == "p1" else "tracks_3d"
        page.run("(s) => window.mmdata.session.select(s)",
                 {"layer": "anna", "collection": collection, "id": id})  # fmt: skip
        page.press("Shift+Enter")
        page.saved()
    own = "(c) => window.mmdata.session.layers.all(c, 'carla').map((r) => r.item)"
    assert len(page.run(own, "phases")) == len(page.run(own, "tracks_3d")) == 3
    page.page.get_by_role("tab", name="Review").click()
    page.page.get_by_role("button", name="Compare two layers").click()
    page.page.keyboard.type("anna")
    page.press("Enter")
    page.page.keyboard.type("ben")
    page.press("Enter")
    page.wait("() => /objects: 3 matched/.test(document.body.innerText)")
    rows = page.page.locator(".finding", has_text="select one, Enter takes it over")
    assert rows.count() >= 2
    # The phases: Ben's boundary.
    difference = rows.filter(has_text="manoeuvre").first
    difference.get_by_role("button", name="ben:").click()
    assert page.run("() => window.mmdata.session.selection.layer") == "ben"
    page.press("Enter")
    page.saved()
    phases = sorted(page.run(own, "phases"), key=lambda p: p["start_ns"])
    assert len(phases) == 3
    assert all(a["end_ns"] <= b["start_ns"] for a, b in pairwise(phases))
    # The object: Ben's takes the place of the own one instead of standing beside it.
    before = {t["id"]: t for t in page.run(own, "tracks_3d") if t["object_id"] == "car-1"}
    page.page.get_by_role("tab", name="Review").click()
    difference = rows.filter(has_text="car-1").first
    difference.get_by_role("button", name="ben:").click()
    page.wait("() => window.mmdata.session.selection.layer === 'ben'")
    page.press("Enter")
    page.saved()
    after = {t["id"]: t for t in page.run(own, "tracks_3d") if t["object_id"] == "car-1"}
    assert set(after) == set(before)
    ((id, track),) = after.items()
    moved_m = track["center_m"][0][0] - before[id]["center_m"][0][0]
    assert moved_m == pytest.approx(0.8)
    assert track["provenance"]["derived_from"][0]["layer"] == "ben"
    page.press("Control+z")
    page.saved()
    restored = {t["id"]: t for t in page.run(own, "tracks_3d") if t["object_id"] == "car-1"}
    assert restored == before


def reach(page: Page, name: str) -> None:
    """Tab to what is called so."""
    for _ in range(150):
        if page.run("(n) => document.activeElement?.innerText?.startsWith(n)", name):
            return
        page.press("Tab")
    pytest.fail(f"Tab does not lead to {name!r}")


def test_review_and_adjudication_need_no_pointer(server: Server, open_page: OpenPage) -> None:
    write(server, shift(server, "t-car-1", 0.8).edit(name="ben"))
    page = open_page(f"{server.url}?ep=drive.h5&user=carla")
    page.saved()
    reach(page, "Review")
    page.press("Enter")
    reach(page, "Compare two layers")
    page.press("Enter")
    for name in ("anna", "ben"):
        page.wait("() => !!document.querySelector('dialog')")
        page.page.keyboard.type(name)
        page.press("Enter")
    page.wait("() => /objects: 3 matched/.test(document.body.innerText)")
    reach(page, "ben: car")
    page.press("Enter")
    chosen = "() => window.mmdata.session.selection"
    assert page.wait(chosen)["layer"] == "ben"
    # The list was made anew, and the keyboard is where it was: Enter now takes it over.
    page.wait("() => document.activeElement?.getAttribute('aria-selected') === 'true'")
    page.press("Enter")
    page.saved()
    taken = page.run("() => window.mmdata.session.layers.all('tracks_3d', 'carla')[0].item")
    assert taken["provenance"]["derived_from"][0]["layer"] == "ben"
    reach(page, "Hand in for review")
    page.press("Enter")
    page.wait("() => document.body.innerText.includes('Layer carla: review')")
    # Another label is chosen in the list, and its class changed, in the same way.
    reach(page, "Labels")
    page.press("Enter")
    reach(page, "car car-1")
    page.press("Enter")
    page.wait("() => window.mmdata.session.selection?.layer === 'carla'")
