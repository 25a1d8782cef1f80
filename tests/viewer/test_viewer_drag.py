"""Labelling with the pointer in a real browser: timeline, side views, the perspective view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from viewer_helpers import Page, Server

from mmdata.geometry import quat_conjugate, quat_multiply

OpenPage = Callable[..., Page]
SECOND = 1_000_000_000
CAR = "t-car-1"


@pytest.fixture
def page(server: Server, open_page: OpenPage) -> Page:
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.saved()
    return page


def phases(page: Page, drawn: bool = False) -> dict[str, tuple[str, int, int]]:
    """Label, start and end by id: as journalled, or as drawn right now."""
    how = "drawn" if drawn else "all"
    rows = page.run(
        f"""() => window.mmdata.session.layers.{how}('phases', 'anna').map((r) =>
          [r.item.id, r.item.label, r.item.start_ns, r.item.end_ns])"""
    )
    return {id: (label, start, end) for id, label, start, end in rows}


def point(page: Page, t: float, lane: str) -> tuple[float, float]:
    """Screen position of an instant on a lane of the timeline ("" is the ruler)."""
    x, y = page.run(
        """([t, lane]) => { const { timeline } = window.mmdata;
          const r = document.querySelector('.timeline-canvas').getBoundingClientRect();
          const l = timeline.lanes.find((l) => l.label === lane);
          return [r.left + timeline.x(t), r.top + (l ? l.top + l.height / 2 : 8)]; }""",
        [t, lane],
    )
    return x, y


def drag(page: Page, start: tuple[float, float], *to: tuple[float, float], key: str = "") -> None:
    """Press, move along the points, release."""
    mouse = page.page.mouse
    mouse.move(*start)
    mouse.down()
    if key:
        page.page.keyboard.down(key)
    for x, y in to:
        mouse.move(x, y, steps=3)
    mouse.up()
    if key:
        page.page.keyboard.up(key)
    page.saved()


def pixel(page: Page) -> float:
    """Nanoseconds per pixel of the timeline."""
    width: float = page.run(
        "() => window.mmdata.timeline.time(201) - window.mmdata.timeline.time(200)"
    )
    return width


def test_a_shared_edge_takes_the_neighbour_along_while_it_is_dragged(page: Page) -> None:
    before = phases(page)
    assert before["p0"][2] == before["p1"][1]
    x, y = point(page, before["p0"][2], "manoeuvre")
    mouse = page.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 25, y, steps=5)
    live = phases(page, drawn=True)
    assert live["p0"][2] == live["p1"][1] > before["p0"][2]
    assert phases(page) == before, "nothing is journalled before the button is released"
    mouse.up()
    page.saved()
    assert phases(page) == live
    page.press("Control+z")
    page.saved()
    assert phases(page) == before


def test_an_edge_follows_the_pointer_pixel_by_pixel(page: Page) -> None:
    """It takes the cursor along, which must not hold it back."""
    x, y = point(page, phases(page)["p0"][2], "manoeuvre")
    mouse = page.page.mouse
    mouse.move(x, y)
    mouse.down()
    period = page.run("() => window.mmdata.session.stamps.get(window.mmdata.session.focus).period")
    for k in range(1, 30):
        mouse.move(x + k, y)
        if k > 12:
            at = phases(page, drawn=True)["p0"][2]
            under = page.run(
                "(x) => window.mmdata.timeline.time(x)",
                x + k - point(page, 0, "")[0] + page.run("() => window.mmdata.timeline.x(0)"),
            )
            assert abs(at - under) <= period
    mouse.up()
    page.saved()


def test_edges_snap_to_events_and_to_real_stamps(page: Page) -> None:
    end = phases(page)["p1"][2]
    step = pixel(page)
    # Within eight pixels of the event at 3 s: there.
    drag(page, point(page, end, "manoeuvre"), point(page, 3 * SECOND + 5 * step, "manoeuvre"))
    assert phases(page)["p1"][2] == phases(page)["p2"][1] == 3 * SECOND
    # Far from everything: at a frame of the stream in focus.
    page.run("() => { window.mmdata.session.focus = 'camera_front'; }")
    drag(page, point(page, 3 * SECOND, "manoeuvre"), point(page, 5.52 * SECOND, "manoeuvre"))
    moved = phases(page)["p1"][2]
    assert moved in page.run("() => [...window.mmdata.session.stamps.get('camera_front').ns]")
    assert abs(moved - 5.52 * SECOND) < SECOND / 15
    # With Alt where the pointer is, and without the neighbour. A little left of what two phases
    # share is the end of the first.
    near, target = (point(page, t, "manoeuvre") for t in (moved - 3 * step, 3 * SECOND + 5 * step))
    drag(page, near, target, key="Alt")
    now = phases(page)
    assert abs(now["p1"][2] - 3 * SECOND - 5 * step) <= 1.5 * step
    assert now["p1"][2] != 3 * SECOND
    assert now["p2"][1] == moved


def test_phases_are_made_and_moved_without_overlapping(page: Page) -> None:
    # From the empty end of the tier back into the last phase: that one is cut.
    drag(page, point(page, 7.8 * SECOND, "manoeuvre"), point(page, 6.5 * SECOND, "manoeuvre"))
    now = phases(page)
    (made,) = set(now) - {"p0", "p1", "p2"}
    assert now["p2"][2] == now[made][1]
    assert abs(now[made][1] - 6.5 * SECOND) < 0.1 * SECOND
    # Moved to the right it is free, to the left it stops at its neighbour.
    middle = (now[made][1] + now[made][2]) / 2
    drag(page, point(page, middle, "manoeuvre"), point(page, middle - 3 * SECOND, "manoeuvre"))
    assert phases(page)[made] == now[made]
    drag(page, point(page, middle, "manoeuvre"), point(page, middle + 0.15 * SECOND, "manoeuvre"))
    later = phases(page)[made]
    assert later[1] > now[made][1]
    assert later[2] - later[1] == now[made][2] - now[made][1]


def test_events_and_loops_are_dragged(page: Page) -> None:
    x, y = point(page, 3 * SECOND, "events")
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.move(x + 60, y, steps=4)
    event = "(how) => window.mmdata.session.layers[how]('events', 'anna')[0].item.stamp_ns"
    live = page.run(event, "drawn")
    assert live > 3 * SECOND
    assert page.run(event, "all") == 3 * SECOND
    page.page.mouse.up()
    page.saved()
    assert page.run(event, "all") == live
    assert page.run("() => window.mmdata.session.clock.t") == live
    page.page.keyboard.down("Shift")
    drag(page, point(page, 1 * SECOND, ""), point(page, 2 * SECOND, ""))
    page.page.keyboard.up("Shift")
    low, high = page.run("() => window.mmdata.session.clock.loop")
    step = pixel(page)
    assert abs(low - 1 * SECOND) < 2 * step
    assert abs(high - 2 * SECOND) < 2 * step


# -- boxes -----------------------------------------------------------------------------------------


def car(
    page: Page, k: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Centre, size and quaternion of the car's keyframe k, in world."""
    page.saved()
    track = page.run("(id) => window.mmdata.session.layers.get('anna', 'tracks_3d', id)", CAR)
    values = [np.array(track[f][k]) for f in ("center_m", "size_lwh_m", "quaternion_wxyz")]
    return values[0], values[1], values[2]


def look_at_car(page: Page) -> int:
    """Selects the car at one of its keyframes; returns which."""
    stamps = page.run(
        "(id) => window.mmdata.session.layers.get('anna', 'tracks_3d', id).stamp_ns", CAR
    )
    page.run(
        "(id) => window.mmdata.session.select({layer: 'anna', collection: 'tracks_3d', id})", CAR
    )
    page.seek(stamps[2])
    page.wait("() => window.mmdata.scene.views.length === 3")
    return 2


def grip(page: Page, view: str, u: float, v: float) -> tuple[float, float, float]:
    """Screen position in a side view, (u, v) in half sizes of the box from its centre to the right
    and up, and pixels per metre. v = "turn" is the handle that turns."""
    x, y, scale = page.run(
        """([name, u, v]) => { const { scene, session } = window.mmdata;
          const view = scene.views.find((w) => w.name === name);
          const size = session.selected('tracks_3d').size_lwh_m[2];
          const r = scene.overlay.getBoundingClientRect();
          return [r.left + view.left + view.width / 2 + u * size[view.u[0]] / 2 * view.scale,
            r.top + view.top + view.height / 2 - v * size[view.v[0]] / 2 * view.scale,
            view.scale]; }""",
        [view, u, v],
    )
    return x, y, scale


def test_a_box_is_moved_resized_and_turned_in_its_side_views(page: Page) -> None:
    k = look_at_car(page)
    # (view, axis to the right with its sign, axis up); the car's axes are the world's.
    for view, (across, sign), up in (
        ("top", (1, -1), 0),
        ("side", (0, 1), 2),
        ("front", (1, 1), 2),
    ):
        centre, size, q = car(page, k)
        x, y, scale = grip(page, view, 0, 0)
        drag(page, (x, y), (x + 12, y - 9))
        moved = car(page, k)
        expected = np.zeros(3)
        expected[across] += sign * 12 / scale
        expected[up] += 9 / scale
        np.testing.assert_allclose(moved[0] - centre, expected, atol=0.02, err_msg=view)
        np.testing.assert_allclose(moved[1], size, atol=1e-9)
        page.press("Control+z")

        # The right side is drawn out; the left one stays.
        page.saved()
        x, y, scale = grip(page, view, 1, 0)
        drag(page, (x, y), (x + 10, y))
        grown = car(page, k)
        assert grown[1][across] - size[across] == pytest.approx(10 / scale, abs=0.02)
        fixed = (grown[0] - centre)[across] - sign * (grown[1][across] - size[across]) / 2
        assert fixed == pytest.approx(0, abs=1e-6)
        page.press("Control+z")

        # A quarter turn clockwise by the handle above the box.
        page.saved()
        x, y, _ = grip(page, view, 0, 1)
        cx, cy, _ = grip(page, view, 0, 0)
        drag(page, (x, y - 26), (cx + 40, cy - 30), (cx + 60, cy))
        turned = quat_multiply(quat_conjugate(q), car(page, k)[2])
        about = {"top": 2, "side": 1, "front": 0}[view]
        assert abs(turned[0]) == pytest.approx(np.sqrt(0.5), abs=0.02)
        assert abs(turned[1 + about]) == pytest.approx(np.sqrt(0.5), abs=0.02)
        page.press("Control+z")
        page.saved()
        np.testing.assert_allclose(car(page, k)[2], q, atol=1e-9)


def test_a_box_of_another_layer_is_not_dragged(server: Server, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}?ep=drive.h5&user=ben")
    page.saved()
    k = look_at_car(page)
    before = car(page, k)[0]
    x, y, _ = grip(page, "top", 0, 0)
    drag(page, (x, y), (x + 30, y))
    np.testing.assert_array_equal(car(page, k)[0], before)


def test_a_box_is_selected_and_slides_on_the_ground_in_the_perspective_view(page: Page) -> None:
    k = look_at_car(page)
    page.press("Escape")
    page.wait("() => window.mmdata.scene.views.length === 0")
    where = """(id) => { const { scene, session } = window.mmdata; scene.update();
      const b = scene.boxes().find((b) => b.track.id === id);
      const r = scene.overlay.getBoundingClientRect();
      const p = scene.project(b.box.center_m, scene.main, r.height);
      return [r.left + p[0], r.top + p[1]]; }"""
    page.page.mouse.click(*page.run(where, CAR))
    page.wait("() => window.mmdata.scene.views.length === 3")
    assert page.run("() => window.mmdata.session.selection.id") == CAR
    before = car(page, k)
    x, y = page.run(where, CAR)
    drag(page, (x, y), (x + 20, y + 6))
    moved = car(page, k)
    assert moved[0][2] == pytest.approx(before[0][2], abs=1e-6)
    assert np.hypot(*(moved[0] - before[0])[:2]) > 0.3
    after = page.run(where, CAR)
    assert after == pytest.approx([x + 20, y + 6], abs=6)
    x, y = after
    drag(page, (x, y), (x, y - 15), key="Shift")
    lifted = car(page, k)
    np.testing.assert_allclose(lifted[0][:2], moved[0][:2], atol=1e-6)
    assert lifted[0][2] > moved[0][2] + 0.1
    np.testing.assert_array_equal(lifted[1], before[1])


def test_clouds_are_merged_where_things_stand_still(page: Page) -> None:
    page.seek(4 * SECOND)
    # Points in the standing car's box, in scene coordinates, whichever frame the scene shows.
    inside = """async (frame) => { const { scene } = window.mmdata; scene.setFrame(frame);
      do { scene.update(); await new Promise((r) => setTimeout(r, 5)); } while (!scene.settled());
      const { box } = scene.boxes().find((b) => b.track.id === 't-car-2');
      const [w, x, y, z] = box.quaternion_wxyz; let n = 0, all = 0;
      const axis = [[1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
        [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]];
      for (const c of scene.clouds) c.eachPoint((px, py, pz) => { all++;
        const d = [px - box.center_m[0], py - box.center_m[1], pz - box.center_m[2]];
        if (axis.every((a, k) => Math.abs(a[0] * d[0] + a[1] * d[1] + a[2] * d[2])
          <= box.size_lwh_m[k] / 2 + 0.03)) n++; });
      return [n, all]; }"""
    one, all_points = page.run(inside, "world")
    assert one >= 400
    page.page.get_by_label("samples merged").select_option(label="5 clouds merged")
    page.wait("() => window.mmdata.settled()")
    shown = page.run(
        "() => window.mmdata.scene.clouds[0].objects.map((o) => o.shown).sort((a, b) => a - b)"
    )
    middle = page.run(
        "() => window.mmdata.session.stamps.get('lidar').nearest(window.mmdata.session.clock.t)"
    )
    assert shown == [middle - 2, middle - 1, middle, middle + 1, middle + 2]
    for frame in ("world", "base", "lidar"):
        merged, total = page.run(inside, frame)
        assert total == 5 * all_points
        assert merged >= 5 * 400, f"in {frame} the standing car is smeared"
    # What the cursor leaves goes, and one cloud is one again.
    page.seek(6 * SECOND)
    assert page.run(inside, "world")[1] == 5 * all_points
    page.page.get_by_label("samples merged").select_option(label="1 cloud")
    page.wait("() => window.mmdata.settled()")
    assert page.run(inside, "world")[1] == all_points
