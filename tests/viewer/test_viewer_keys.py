"""Every row of the shortcut sheet, pressed in a real browser: what it says is what happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from viewer_helpers import Page, Server

from mmdata.annotations import read_episode_layer
from mmdata.geometry import quat_conjugate, quat_multiply

SECOND = 1_000_000_000
SHEET = """() => Object.fromEntries([...document.querySelectorAll('.sheet section')].map((s) =>
  [s.querySelector('h3').innerText, [...s.querySelectorAll('dt')].map((d) =>
    [...d.querySelectorAll('kbd')].map((k) => k.innerText).join(' / '))]))"""


class Keys:
    """A page on the demo drive and what its keys change. Anna's layer is the one written to."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.press = page.press

    def session(self, expression: str, argument: Any = None) -> Any:
        return self.page.run(
            f"(a) => {{ const s = window.mmdata.session; return {expression}; }}", argument
        )

    @property
    def t(self) -> int:
        return int(self.session("s.clock.t"))

    def at(self, t: float, focus: str = "camera_front") -> int:
        """Cursor to an instant, with a stream in focus; pointer and focus of the page elsewhere."""
        self.session("(s.focus = a[1], s.clock.seek(a[0]))", [int(t), focus])
        return self.t

    def select(self, id: str | None, collection: str = "phases", layer: str = "anna") -> None:
        chosen = id and {"layer": layer, "collection": collection, "id": id}
        self.session("s.select(a)", chosen)

    def all(self, collection: str, layer: str = "anna") -> dict[str, Any]:
        self.page.saved()
        rows = self.session("s.layers.all(a[0], a[1]).map((r) => r.item)", [collection, layer])
        return {row["id"]: row for row in rows}

    def chosen(self, collection: str = "tracks_3d") -> dict[str, Any]:
        """The selected annotation, once the journal has it."""
        self.page.saved()
        item: dict[str, Any] = self.session("s.selected(a)", collection)
        return item

    def stamps(self, stream: str) -> np.ndarray[Any, Any]:
        return np.array(self.session("[...s.stamps.get(a).ns]", stream))

    def undo(self) -> None:
        self.page.saved()
        self.press("Control+z")
        self.page.saved()

    def type(self, text: str, *keys: str) -> None:
        self.page.wait("() => !!document.querySelector('dialog')")
        self.page.page.keyboard.type(text)
        self.press(*(keys or ("Enter",)))


Rows = dict[str, Callable[[Keys], None]]


@pytest.fixture
def keys(server: Server, open_page: Callable[..., Page]) -> Keys:
    hidden = ["cameras", "signals", "tactile"]  # keys work without, and it takes half the time
    server.ask("/api/preferences", {"hidden": hidden}, method="PUT", user="anna")
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.saved()
    return Keys(page)


def press_all(keys: Keys, group: str, rows: Rows) -> None:
    """Every row of a group of the sheet, which must have no others."""
    keys.press("?")
    sheet = keys.page.wait(f"() => {{ const s = ({SHEET})(); return s['{group}'] && s; }}")
    keys.press("Escape")
    keys.page.wait("() => !document.querySelector('dialog')")
    assert set(sheet[group]) == set(rows)
    assert len(sheet[group]) == len(rows), "two rows with the same keys"
    for name, row in rows.items():
        try:
            row(keys)
        except AssertionError as error:
            raise AssertionError(f"{group}, {name}: {error}") from error


def sign(before: float, after: float) -> int:
    return int(np.sign(after - before))


# -- time ------------------------------------------------------------------------------------------


def space(k: Keys) -> None:
    k.press("a")  # silent: here no audio device leads the cursor
    k.at(0)
    k.press("Space")
    k.page.wait("() => window.mmdata.session.clock.playing && window.mmdata.session.clock.t > 0")
    k.press("Space")
    assert k.session("s.clock.playing") is False
    k.press("a")


def frames(by: dict[str, int]) -> Callable[[Keys], None]:
    def row(k: Keys) -> None:
        front = k.stamps("camera_front")
        for key, step in by.items():
            k.at(front[40])
            k.press(key)
            assert k.t == front[40 + step], key

    return row


def speed(k: Keys) -> None:
    seen = []
    for key in ("+", "=", "+", "-", "-", "-", "-", "-", "-", "-", "+", "+", "+"):
        k.press(key)
        seen.append(k.session("s.clock.speed"))
    assert seen == [2, 4, 4, 2, 1, 0.5, 0.25, 0.1, 0.1, 0.1, 0.25, 0.5, 1]


def home_end(k: Keys) -> None:
    k.at(2 * SECOND)
    k.press("End")
    assert k.t == k.session("s.clock.duration")
    k.press("Home")
    assert k.t == 0


def loop(k: Keys) -> None:
    k.select("p1")
    k.press("l")
    phase = k.all("phases")["p1"]
    assert k.session("s.clock.loop") == [phase["start_ns"], phase["end_ns"]]
    k.press("l")
    assert k.session("s.clock.loop") is None
    k.select(None)
    k.press("l")
    assert k.session("s.clock.loop") == [0, k.session("s.clock.duration")]
    k.press("l")


def zoom(k: Keys) -> None:
    k.select(None)
    k.at(4 * SECOND)
    k.press("Control+ArrowUp")
    low, high = k.session("s.clock.view")
    assert high - low == pytest.approx(0.6 * k.session("s.clock.duration"))
    assert low < k.t < high
    k.press("Control+ArrowDown")
    low, high = k.session("s.clock.view")
    assert high - low == pytest.approx(k.session("s.clock.duration"))


def whole(k: Keys) -> None:
    k.press("Control+ArrowUp", "0")
    assert k.session("s.clock.view") == [0, k.session("s.clock.duration")]


def focus(k: Keys) -> None:
    k.at(0, focus="camera_front")
    names = k.session("s.streams.map((x) => x.name)")
    k.press("o")
    assert k.session("s.focus") == names[(names.index("camera_front") + 1) % len(names)]


TIME: Rows = {
    "Space": space,
    ",": frames({",": -1}),
    ".": frames({".": 1}),
    "< / >": frames({"<": -10, ">": 10}),
    "- / + / =": speed,
    "Home / End": home_end,
    "L": loop,
    "Ctrl+↑ / Ctrl+↓": zoom,
    "0": whole,
    "O": focus,
    "← / →": frames({"ArrowLeft": -1, "ArrowRight": 1}),
}


def test_keys_of_time(keys: Keys) -> None:
    keys.session("s.select(null)")
    press_all(keys, "Time", TIME)


# -- phases and events -----------------------------------------------------------------------------


def new_phase(k: Keys) -> None:
    before = set(k.all("phases"))
    k.at(7.6 * SECOND)
    k.press("n")
    k.type("keep_lane")
    (made,) = set(k.all("phases")) - before
    phase = k.chosen("phases")
    assert (phase["id"], phase["label"], phase["start_ns"]) == (made, "keep_lane", 7.6 * SECOND)
    k.undo()


def digits(k: Keys) -> None:
    labels = k.session("s.taxonomy.tiers.find((t) => t.name === s.tier).labels.map((l) => l.label)")
    k.select("p1")
    for digit in (1, 2, 3):
        k.press(str(digit))
        assert k.chosen("phases")["label"] == labels[digit - 1]
    # While playing a digit labels as long as it is held.
    before = set(k.all("phases"))
    k.press("a")
    k.at(7.55 * SECOND)
    k.session("s.clock.setSpeed(0.1)")
    k.press("Space")
    k.page.page.keyboard.down("2")
    held = k.t
    k.page.wait(f"() => window.mmdata.session.clock.t > {held} + 6e7")
    k.page.page.keyboard.up("2")
    k.press("Space", "a")
    k.session("s.clock.setSpeed(1)")
    (made,) = set(k.all("phases")) - before
    assert k.all("phases")[made]["label"] == labels[1]
    for _ in range(4):
        k.undo()


def event(k: Keys) -> None:
    k.at(5 * SECOND)
    k.press("v")
    k.type("contact")
    made = k.chosen("events")
    assert (made["label"], made["stamp_ns"]) == ("contact", 5 * SECOND)
    k.undo()


def edge(key: str, field: str, at: float) -> Callable[[Keys], None]:
    def row(k: Keys) -> None:
        k.select("p1")
        k.at(at * SECOND)
        k.press(key)
        assert k.all("phases")["p1"][field] == at * SECOND
        neighbour, other = ("p0", "end_ns") if key == "[" else ("p2", "start_ns")
        assert k.all("phases")[neighbour][other] == at * SECOND, "a shared edge moves in both"
        k.undo()
        k.select("e1", "events")
        k.press(key)
        assert k.all("events")["e1"]["stamp_ns"] == at * SECOND
        k.undo()

    return row


def nudge(modifier: str, field: str) -> Callable[[Keys], None]:
    def row(k: Keys) -> None:
        front = k.stamps("camera_front")
        k.at(0)
        k.select("p1")
        start = k.all("phases")["p1"][field]
        k.press(f"{modifier}+ArrowRight")
        later = k.all("phases")["p1"][field]
        assert later == front[front > start].min()
        assert k.t == later
        k.press(f"{modifier}+ArrowLeft")
        assert k.all("phases")["p1"][field] == front[front < later].max()
        k.undo()
        k.undo()
        if field == "start_ns":
            k.select("e1", "events")
            k.press(f"{modifier}+ArrowRight")
            assert k.all("events")["e1"]["stamp_ns"] == front[front > 3 * SECOND].min()
            k.undo()

    return row


def move_whole(k: Keys) -> None:
    front = k.stamps("camera_front")
    k.select("p1")
    k.at(0)
    before = k.all("phases")["p1"]
    k.press("Control+ArrowRight")
    assert k.all("phases")["p1"] == before, "between its neighbours there is no room"
    for neighbour in ("p0", "p2"):
        k.select(neighbour)
        k.press("Delete")
        k.page.saved()
    length = before["end_ns"] - before["start_ns"]
    k.select("p1")
    for key, to in (
        ("Control+ArrowRight", front[front > before["start_ns"]][0]),
        ("Control+Shift+ArrowRight", front[front > before["start_ns"]][10]),
        ("Control+ArrowLeft", front[front > before["start_ns"]][9]),
        ("Control+Shift+ArrowLeft", front[front <= before["start_ns"]][-1]),
    ):
        k.press(key)
        moved = k.all("phases")["p1"]
        assert moved["start_ns"] == to == k.t, key
        assert moved["end_ns"] - moved["start_ns"] == length, key
    for _ in range(6):
        k.undo()
    k.select("e1", "events")
    k.press("Control+ArrowRight")
    assert k.all("events")["e1"]["stamp_ns"] == front[front > 3 * SECOND].min()
    k.undo()


def change_points(k: Keys) -> None:
    key = k.session("s.api.manifest.key")
    points = sorted(
        p["stamp_ns"]
        for p in k.page.run(f"async () => (await fetch('/api/e/{key}/changepoints')).json()")[
            "points"
        ]
    )
    middle = 4 * SECOND
    later, earlier = [p for p in points if p > middle], [p for p in points if p < middle]
    assert later, "the spike at 4.2 s"
    assert earlier
    k.at(middle)
    k.press("j")
    k.page.wait(f"() => window.mmdata.session.clock.t === {later[0]}")
    k.at(middle)
    k.press("Shift+J")
    assert k.t == earlier[-1]
    k.at(points[-1])
    k.press("j")
    assert k.t == points[-1]


def split_phase(k: Keys) -> None:
    k.select("p1")
    k.at(3 * SECOND)
    k.press("s")
    phases = k.all("phases")
    assert len(phases) == 4
    assert phases["p1"]["end_ns"] == 3 * SECOND
    k.undo()


def merge_phase(k: Keys) -> None:
    end = k.all("phases")["p1"]["end_ns"]
    k.select("p0")
    k.press("m")
    assert set(k.all("phases")) == {"p0", "p2"}
    assert k.all("phases")["p0"]["end_ns"] == end
    k.undo()


def outcome(k: Keys) -> None:
    k.select("p1")
    seen = []
    for _ in range(3):
        k.press("y")
        seen.append(k.all("phases")["p1"].get("success"))
    assert seen == [True, False, None]


def instruct(k: Keys) -> None:
    k.press("i")
    k.type(" carefully", "Control+Enter")
    assert k.all("captions")["c1"]["text"] == "follow the bend carefully"
    k.undo()


def tier(k: Keys) -> None:
    names = k.session("s.taxonomy.tiers.map((t) => t.name)")
    now = k.session("s.tier")
    k.press("t")
    assert k.session("s.tier") == names[(names.index(now) + 1) % len(names)]
    k.session("(s.tier = a)", now)


def cycle(k: Keys) -> None:
    k.select("p0")
    seen = []
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        k.press(key)
        seen.append(k.session("s.selection.id"))
        assert k.t == k.session("(s.selected('phases') ?? {start_ns: a}).start_ns", k.t)
    everything = ["p0", "auto-p0", "p1", "auto-p1", "e1"]
    assert set(seen) <= set(everything)
    assert seen[0] == seen[2] != seen[1]


LABEL: Rows = {
    "N": new_phase,
    "1…9": digits,
    "V": event,
    "[": edge("[", "start_ns", 1.8),
    "]": edge("]", "end_ns", 4.2),
    "Alt+← / Alt+→": nudge("Alt", "start_ns"),
    "Alt+Shift+← / Alt+Shift+→": nudge("Alt+Shift", "end_ns"),
    "Ctrl+← / Ctrl+→": move_whole,
    "J": change_points,
    "S": split_phase,
    "M": merge_phase,
    "Y": outcome,
    "I": instruct,
    "T": tier,
    "↓ / ↑": cycle,
}


def test_keys_of_phases_and_events(keys: Keys) -> None:
    press_all(keys, "Phases and events", LABEL)


# -- boxes -----------------------------------------------------------------------------------------

CAR = "t-car-1"


def box(k: Keys) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Centre, size and quaternion of the car's first keyframe."""
    track = k.all("tracks_3d")[CAR]
    values = (track["center_m"][0], track["size_lwh_m"][0], track["quaternion_wxyz"][0])
    return np.array(values[0]), np.array(values[1]), np.array(values[2])


def adjusts(what: str, axis: int, by: dict[str, float]) -> Callable[[Keys], None]:
    """Keys that move, size or turn (degrees) the car, and with Shift by less."""

    def row(k: Keys) -> None:
        k.select(CAR, "tracks_3d")
        k.at(k.all("tracks_3d")[CAR]["stamp_ns"][0])
        for key, step in by.items():
            centre, size, q = box(k)
            k.press(key)
            centre2, size2, q2 = box(k)
            expected = np.zeros(3)
            expected[axis] = np.deg2rad(step) if what == "turn" else step
            turned = quat_multiply(quat_conjugate(q), q2)
            # The car's axes are the world's.
            change = {"move": centre2 - centre, "size": size2 - size, "turn": 2 * turned[1:]}[what]
            np.testing.assert_allclose(change, expected, atol=2e-3, err_msg=key)
            k.undo()

    return row


def new_box(k: Keys) -> None:
    k.select(None)
    k.at(2 * SECOND)
    k.press("b")
    k.type("bicycle")
    made = k.chosen()
    lidar = k.stamps("lidar")
    assert (made["label"], made["frame_id"]) == ("bicycle", "world")
    assert made["stamp_ns"] == [lidar[np.abs(lidar - 2 * SECOND).argmin()]]
    k.undo()


def next_object(k: Keys) -> None:
    k.select(None)
    seen = []
    for key in ("w", "w", "w", "w", "Shift+W"):
        k.press(key)
        seen.append(k.session("s.selection.id"))
    assert seen == [CAR, "t-car-2", "t-pedestrian-1", CAR, "t-pedestrian-1"]


def half_turn(k: Keys) -> None:
    k.select(CAR, "tracks_3d")
    k.at(k.all("tracks_3d")[CAR]["stamp_ns"][0])
    k.press("r")
    assert abs(box(k)[2][3]) == pytest.approx(1)
    k.undo()


def fit(k: Keys) -> None:
    k.select(CAR, "tracks_3d")
    k.at(k.all("tracks_3d")[CAR]["stamp_ns"][0])
    true = box(k)[0]
    k.press("ArrowUp", "ArrowUp", "ArrowUp")
    moved = box(k)[0]
    k.press("f")
    k.page.wait(
        "(x) => window.mmdata.session.selected('tracks_3d').center_m[0][0] !== x",
        moved.tolist()[0],
    )
    assert np.abs(box(k)[0] - true)[:2].max() < 0.1 < np.abs(moved - true)[:2].max()
    for _ in range(4):
        k.undo()


def keyframe(k: Keys) -> None:
    k.select(CAR, "tracks_3d")
    stamps = k.all("tracks_3d")[CAR]["stamp_ns"]
    lidar = k.stamps("lidar")
    new = next(t for t in lidar.tolist() if t not in stamps and t > stamps[0])
    k.at(new)
    k.press("k")
    assert k.all("tracks_3d")[CAR]["stamp_ns"] == sorted([*stamps, new])
    k.press("Shift+K")
    assert k.all("tracks_3d")[CAR]["stamp_ns"] == stamps


def gone(k: Keys) -> None:
    k.select(CAR, "tracks_3d")
    k.at(k.all("tracks_3d")[CAR]["stamp_ns"][1])
    k.press("g")
    assert k.all("tracks_3d")[CAR]["gap_after"][:3] == [False, True, False]
    k.press("g")
    assert not any(k.all("tracks_3d")[CAR]["gap_after"])


def split_track(k: Keys) -> None:
    k.select(CAR, "tracks_3d")
    whole = k.all("tracks_3d")[CAR]["stamp_ns"]
    k.at(whole[3])
    k.press("s")
    tracks = k.all("tracks_3d")
    assert len(tracks) == 4
    assert tracks[CAR]["stamp_ns"] == whole[:3]
    assert len({t["object_id"] for t in tracks.values()}) == 4
    k.undo()


def merge_track(k: Keys) -> None:
    k.select(CAR, "tracks_3d")
    k.press("m")
    k.type("car-2")
    assert set(k.all("tracks_3d")) == {CAR, "t-pedestrian-1"}
    k.undo()


def clone(k: Keys) -> None:
    k.select(CAR, "tracks_3d")
    k.at(k.all("tracks_3d")[CAR]["stamp_ns"][0])
    k.press("d")
    made = k.chosen()
    assert made["id"] != CAR
    assert made["object_id"] != "car-1"
    assert np.array(made["center_m"][0])[1] > box(k)[0][1] + 1
    k.undo()


BOX: Rows = {
    "B": new_box,
    "W": next_object,
    "↑ / ↓": adjusts("move", 0, {"ArrowUp": 0.1, "ArrowDown": -0.1, "Shift+ArrowUp": 0.01}),
    "← / →": adjusts("move", 1, {"ArrowLeft": 0.1, "ArrowRight": -0.1, "Shift+ArrowLeft": 0.01}),
    "PgUp / PgDn": adjusts("move", 2, {"PageUp": 0.1, "PageDown": -0.1, "Shift+PageUp": 0.01}),
    "Q / E": adjusts("turn", 2, {"q": 5, "e": -5, "Shift+Q": 1, "Shift+E": -1}),
    "Alt+Q / Alt+E": adjusts("turn", 0, {"Alt+q": -5, "Alt+e": 5}),
    "Alt+PgUp / Alt+PgDn": adjusts("turn", 1, {"Alt+PageUp": -5, "Alt+PageDown": 5}),
    "R": half_turn,
    "Ctrl+↑ / Ctrl+↓": adjusts("size", 0, {"Control+ArrowUp": 0.1, "Control+ArrowDown": -0.1}),
    "Ctrl+→ / Ctrl+←": adjusts("size", 1, {"Control+ArrowRight": 0.1, "Control+ArrowLeft": -0.1}),
    "Ctrl+PgUp / Ctrl+PgDn": adjusts("size", 2, {"Control+PageUp": 0.1, "Control+PageDown": -0.1}),
    "F": fit,
    "K": keyframe,
    "G": gone,
    "S": split_track,
    "M": merge_track,
    "D": clone,
}


def test_keys_of_boxes(keys: Keys) -> None:
    press_all(keys, "3D boxes", BOX)


# -- everything else -------------------------------------------------------------------------------


def relabel(k: Keys) -> None:
    for collection, id, label in (
        ("phases", "p1", "overtake"),
        ("events", "e1", "contact_lost"),
        ("tracks_3d", CAR, "bus"),
    ):
        k.select(id, collection)
        k.press("c")
        k.type(label)
        assert k.all(collection)[id]["label"].startswith(label)
        k.undo()


def accept(k: Keys) -> None:
    proposed = k.all("phases", "auto")["auto-p1"]
    k.select("auto-p1", layer="auto")
    k.press("Enter")
    copy = k.chosen("phases")
    assert copy["provenance"]["derived_from"][0]["layer"] == "auto"
    # It takes the place of what the own tier held there.
    own = sorted((p["start_ns"], p["end_ns"]) for p in k.all("phases").values())
    assert (proposed["start_ns"], proposed["end_ns"]) in own
    assert len(own) == 3
    k.undo()


def accept_all(k: Keys) -> None:
    k.select("auto-p1", layer="auto")
    k.press("Shift+Enter")
    phases = k.all("phases")
    assert len(phases) == 3
    assert all(p["provenance"]["derived_from"][0]["layer"] == "auto" for p in phases.values())
    k.undo()


def remove(k: Keys) -> None:
    for key in ("Delete", "Backspace"):
        k.select("e1", "events")
        k.press(key)
        assert k.all("events") == {}
        assert k.session("s.selection") is None
        k.undo()


def undo(k: Keys) -> None:
    k.select("e1", "events")
    k.press("Delete")
    k.page.saved()
    k.press("Control+z")
    assert set(k.all("events")) == {"e1"}


def redo(k: Keys) -> None:
    for key in ("Control+y", "Control+Shift+Z"):
        k.press(key)
        assert k.all("events") == {}
        k.undo()


def comment(k: Keys) -> None:
    k.select("p1")
    k.at(2.5 * SECOND, focus="camera_left")
    k.press("p")
    k.type("too late", "Control+Enter")
    (made,) = k.all("comments").values()
    assert made["pin"] == {"stamp_ns": 2.5 * SECOND, "annotation_id": "p1", "stream": "camera_left"}
    k.undo()


def escape(k: Keys) -> None:
    k.select("p1")
    k.press("l", "Escape")
    assert k.session("s.selection") is None
    assert k.session("s.clock.loop") is None


def findings(k: Keys) -> None:
    k.session(
        "s.layers.edit([{collection: 'phases', id: 'p1', after: {...a, start_ns: 1.5e9}}])",
        k.all("phases")["p1"],
    )
    k.page.wait("() => window.mmdata.worklist.findings.some((f) => f.rule === 'label/overlap')")
    k.select(None)
    k.at(0)
    k.press("x")
    assert k.session("s.selection.id") == "p1"
    assert k.t == 1.5 * SECOND
    k.press("x", "Shift+X")
    assert k.t == 1.5 * SECOND
    k.undo()


def publish(k: Keys) -> None:
    k.select("e1", "events")
    k.press("Delete")
    k.page.saved()
    k.press("Control+s")
    k.page.wait("() => document.querySelector('.toasts')?.innerText.includes('published anna')")
    k.undo()


def theme(k: Keys) -> None:
    before = k.page.run("() => document.documentElement.dataset.theme")
    k.press("h")
    assert {before, k.page.run("() => document.documentElement.dataset.theme")} == {"dark", "light"}


def large(k: Keys) -> None:
    k.at(0, "camera_left")
    is_large = "document.querySelector('[data-stream=camera_left]').classList.contains('large')"
    k.press("z")
    assert k.session(is_large)
    k.press("z")
    assert not k.session(is_large)


def sound(k: Keys) -> None:
    k.press("a")
    k.page.wait("() => document.querySelector('.toasts')?.innerText.includes('sound off')")
    k.press("a")
    k.page.wait("() => document.querySelector('.toasts')?.innerText.includes('sound on')")


def help_sheet(k: Keys) -> None:
    k.press("?")
    k.page.wait("() => !!document.querySelector('dialog .sheet')")
    k.press("Escape")
    k.page.wait("() => !document.querySelector('dialog')")


ALL: Rows = {
    "C": relabel,
    "Enter": accept,
    "Shift+Enter": accept_all,
    "Delete / Backspace": remove,
    "Ctrl+Z": undo,
    "Ctrl+Y / Ctrl+Shift+Z": redo,
    "P": comment,
    "Escape": escape,
    "X": findings,
    "Ctrl+S": publish,
    "Z": large,
    "H": theme,
    "A": sound,
    "?": help_sheet,
}


def test_keys_of_everything(keys: Keys, server: Server) -> None:
    press_all(keys, "Everything", ALL)
    assert read_episode_layer(server.root / "drive.h5", "anna").by_id().get("e1") is None
