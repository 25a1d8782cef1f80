"""What an annotator sees and does: lists under the hand, sound, the review queue, blind work."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from test_viewer_review import reach, shift, write
from viewer_helpers import PHASES, Page, Server

from mmdata import EpisodeWriter, Kind, StreamInfo

OpenPage = Callable[..., Page]

# Two frames of the page's own loop have run.
FRAMES = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(
  () => requestAnimationFrame(done))))"""


@contextmanager
def between_frames(page: Page) -> Iterator[None]:
    """No animation frame runs meanwhile: what a fast hand does between two of them."""
    page.run("""() => { const real = window.requestAnimationFrame; const kept = [];
      window.requestAnimationFrame = (f) => kept.push(f);
      window.letFramesRun = () => { window.requestAnimationFrame = real;
        kept.forEach((f) => real(f)); }; }""")
    # The frame asked for before is the last one.
    page.wait("() => new Promise((done) => setTimeout(() => done(true), 100))")
    yield
    page.run("() => window.letFramesRun()")


def test_a_list_that_changes_under_a_pressed_button_keeps_the_click(
    server: Server, open_page: OpenPage
) -> None:
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.saved()
    item = page.page.get_by_role("option", name="keep_lane")
    item.hover()
    page.page.mouse.down()
    page.run("""() => { window.held = [...document.querySelectorAll('.item')].find(
      (e) => e.innerText.includes('keep_lane')); }""")
    # Meanwhile the labels change, as by a colleague's edit: a new one is to be listed.
    page.run("""() => window.mmdata.session.layers.edit([{ collection: 'events', id: 'new',
      after: { id: 'new', label: 'release', stamp_ns: 1e9 } }])""")
    page.run(FRAMES)
    assert page.run("() => window.held.isConnected"), "drawn anew under the hand"
    assert page.page.get_by_role("option", name="release").count() == 0
    page.page.mouse.up()
    assert page.wait("() => window.mmdata.session.selection")["id"] == "p1"
    # What was held back is drawn once the button is released.
    page.wait("() => !window.held.isConnected")
    assert page.page.get_by_role("option", name="release").count() == 1
    # A press that ends elsewhere, too.
    page.page.get_by_role("option", name="release").hover()
    page.page.mouse.down()
    page.page.mouse.move(300, 300)
    page.page.mouse.up()
    page.run("""() => window.mmdata.session.layers.edit([
      { collection: 'events', id: 'new', after: null }])""")
    page.wait("() => ![...document.querySelectorAll('.item')].some("
              "(e) => e.innerText.includes('release'))")  # fmt: skip


def test_a_difference_chosen_is_accepted_by_the_next_key_however_fast(
    server: Server, open_page: OpenPage
) -> None:
    write(server, shift(server, "t-car-1", 0.8).edit(name="ben"))
    page = open_page(f"{server.url}?ep=drive.h5&user=carla")
    page.saved()
    page.page.get_by_role("tab", name="Review").click()
    page.page.get_by_role("button", name="Compare two layers").click()
    for name in ("anna", "ben"):
        page.wait("() => !!document.querySelector('dialog')")
        page.page.keyboard.type(name)
        page.press("Enter")
    page.wait("() => /objects: 3 matched/.test(document.body.innerText)")
    reach(page, "ben: car")
    with between_frames(page):
        page.press("Enter")  # chooses
        assert page.run("() => window.mmdata.session.selection.layer") == "ben"
        page.press("Enter")  # takes over, though no list was drawn since
        page.saved()
        taken = page.run("() => window.mmdata.session.layers.all('tracks_3d', 'carla').length")
    assert taken == 1


# What the page hands to the audio device, and where each frame leaves the cursor. The drive's sound
# begins with the episode, so that a second of it is a second of the cursor.
LISTEN = """() => {
  const { clock } = window.mmdata.session;
  const heard = window.heard = { playing: null, started: [], stopped: 0, pairs: [] };
  const { start, stop } = AudioBufferSourceNode.prototype;
  AudioBufferSourceNode.prototype.start = function (when, offset) {
    heard.playing = { node: this, offset, since: this.context.currentTime };
    heard.started.push(offset);
    return start.call(this, when, offset); };
  AudioBufferSourceNode.prototype.stop = function (...a) {
    heard.playing = null; heard.stopped++; return stop.call(this, ...a); };
  heard.at = () => { const p = heard.playing;
    return p && p.offset + (p.node.context.currentTime - p.since) * p.node.playbackRate.value; };
  const tick = clock.tick.bind(clock);
  clock.tick = (now) => { tick(now); const at = heard.at();
    if (at !== null && clock.playing) heard.pairs.push([clock.t / 1e9, at]); };
}"""


def followed(page: Page, frames: int = 15) -> list[list[float]]:
    """Cursor and sound, seconds, after each of the next frames in which something is heard."""
    page.run("() => { window.heard.pairs = []; }")
    page.wait("(n) => window.heard.pairs.length >= n", frames)
    pairs: list[list[float]] = page.run("() => window.heard.pairs")
    return pairs


def test_the_cursor_follows_the_sound_that_plays(server: Server, open_page: OpenPage) -> None:
    hidden = ["scene", "signals"]  # frames that are quick to draw
    server.ask("/api/preferences", {"hidden": hidden}, method="PUT", user="anna")
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.wait("() => window.mmdata.sound.available")
    page.run(LISTEN)
    page.run("() => window.mmdata.session.clock.seek(5e8)")
    page.press("Space")
    first = followed(page)
    assert all(abs(cursor - sound) < 0.06 for cursor, sound in first)
    assert first[-1][0] > first[0][0]
    # It is the sound of this instant: the drive hums in every other second.
    loud = """(t) => { const { buffer } = window.heard.playing.node;
      const k = Math.round(t * buffer.sampleRate);
      return Math.max(...buffer.getChannelData(0).subarray(k, k + buffer.sampleRate / 10)); }"""
    assert page.run(loud, 0.5) > 0.15
    assert page.run(loud, 1.5) < 0.01
    # A device that stops for a moment stops the cursor, which then goes on with it.
    before, after = page.run("""async () => { const { clock } = window.mmdata.session;
      const { context } = window.heard.playing.node; await context.suspend();
      const t = clock.t; await new Promise((done) => setTimeout(done, 300));
      const waited = clock.t; await context.resume(); return [t / 1e9, waited / 1e9]; }""")
    assert after - before < 0.06
    assert all(abs(cursor - sound) < 0.06 for cursor, sound in followed(page))
    # A jump, by a click in the timeline as by any key.
    starts = page.run("() => window.heard.started.length")
    page.run("() => window.mmdata.session.clock.seek(4e9)")
    page.wait("(n) => window.heard.started.length > n && window.heard.playing", starts)
    assert 4.0 <= page.run("() => window.heard.started.at(-1)") < 4.5
    assert all(abs(cursor - sound) < 0.06 for cursor, sound in followed(page))
    # Half as fast, the two stay together.
    page.run("() => window.mmdata.session.clock.setSpeed(0.5)")
    slow = followed(page)
    assert all(abs(cursor - sound) < 0.06 for cursor, sound in slow)
    assert page.run("() => window.heard.playing.node.playbackRate.value") == 0.5
    # Silence: switched off, and paused.
    page.press("a")
    assert page.run("() => window.heard.playing") is None
    page.wait("(t) => window.mmdata.session.clock.t / 1e9 > t + 0.1", slow[-1][0])
    page.press("a")
    page.wait("() => window.heard.playing")
    page.press("Space")
    assert page.run("() => window.heard.playing") is None
    assert not page.run("() => window.mmdata.session.clock.playing")


def test_a_sound_device_that_hangs_is_left_behind(server: Server, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.wait("() => window.mmdata.sound.available")
    page.run(LISTEN)
    page.press("Space")
    followed(page, 2)
    page.run("() => window.heard.playing.node.context.suspend()")
    page.wait("() => document.querySelector('.toasts')?.innerText.includes('stands still')")
    t = page.run("() => window.mmdata.session.clock.t")
    page.wait("(t) => window.mmdata.session.clock.t > t + 3e8", t)


def hand_in(server: Server, episode: str, user: str) -> None:
    """A user's own layer of an episode, made and handed in for review."""
    layer = f"/api/e/{server.key(episode)}/layers/{user}"
    server.ask(f"{layer}/open", {}, user=user)
    assert server.ask(f"{layer}/review", {"state": "review", "base": 0}, user=user)[0] == 200


def test_a_reviewer_goes_from_episode_to_episode_by_the_queue(
    server: Server, open_page: OpenPage
) -> None:
    shutil.copy(server.root / "drive.h5", server.root / "later.h5")
    shutil.copy(server.root / "drive.anna.json", server.root / "later.anna.json")
    hand_in(server, "drive.h5", "anna")
    hand_in(server, "later.h5", "anna")
    # The reviewer has an episode open in which nothing waits.
    shutil.copy(server.root / "drive.h5", server.root / "other.h5")
    page = open_page(f"{server.url}?ep=other.h5&user=rita")
    page.page.get_by_role("tab", name="Review").click()
    heading = "(text) => [...document.querySelectorAll('h3')].some((e) => e.innerText === text)"
    page.wait(heading, "Review queue (2)")
    queue = page.page.locator(".side-body a.item")
    assert queue.all_inner_texts() == ["drive.h5\nanna, by anna", "later.h5\nanna, by anna"]
    # The first leads to the layer that waits, ready to be judged.
    queue.first.click()
    page.wait("() => document.body.innerText.includes('Layer anna: review')")
    page.wait("() => window.mmdata?.session.api.manifest.name === 'drive.h5'")
    page.wait(heading, "Review queue (2)")
    page.page.get_by_role("button", name="Reject").click()
    page.page.keyboard.type("the second boundary is late")
    page.press("Control+Enter")
    page.wait("() => document.body.innerText.includes('Layer anna: rejected')")
    text = page.run("() => document.querySelector('.side-body').innerText")
    assert "review → rejected by rita: the second boundary is late" in text
    # One less waits; it is the next.
    page.wait(heading, "Review queue (1)")
    queue.first.click()
    page.wait("() => window.mmdata?.session.api.manifest.name === 'later.h5'")
    page.wait("() => document.body.innerText.includes('Layer anna: review')")
    page.page.get_by_role("button", name="Accept", exact=True).click()
    page.wait("() => document.body.innerText.includes('Layer anna: accepted')")
    page.wait(heading, "Review queue (0)")
    # What was decided is in the journal, signed.
    steps = []
    for episode in ("drive.h5", "later.h5"):
        document = server.ask(f"/api/e/{server.key(episode)}/layers/anna")[1]["document"]
        steps.append([(s["state"], s["by"]) for s in document["review"]["history"]])
    assert steps == [
        [("review", "anna"), ("rejected", "rita")],
        [("review", "anna"), ("accepted", "rita")],
    ]


def test_a_layer_handed_in_shows_up_for_the_reviewer_who_waits(
    server: Server, open_page: OpenPage
) -> None:
    page = open_page(f"{server.url}?ep=drive.h5&user=rita")
    page.page.get_by_role("tab", name="Review").click()
    page.wait("() => document.body.innerText.includes('Review queue (0)')")
    hand_in(server, "drive.h5", "anna")
    page.wait("() => document.body.innerText.includes('Review queue (1)')")


def test_pictures_and_points_come_back_with_the_server(server: Server, open_page: OpenPage) -> None:
    """Nothing is asked for without pause meanwhile, and nothing is given up for good."""
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.saved()
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    page.run("""() => { window.asked = 0; const { postMessage } = Worker.prototype;
      Worker.prototype.postMessage = function (m, ...rest) {
        window.asked += (m.ask ?? []).length; return postMessage.call(this, m, ...rest); }; }""")
    server.stop()
    page.run("() => window.mmdata.session.clock.seek(6e9)")
    said = """() => window.mmdata.cameras.tiles.every((tile) =>
      tile.failed?.why === 'the server does not answer')"""
    page.wait(said)
    asked = page.run("() => { const before = window.asked; return new Promise((done) => "
                     "setTimeout(() => done(window.asked - before), 1000)); }")  # fmt: skip
    assert asked <= 3
    server.start(port)
    page.wait("() => window.mmdata.settled()")
    shown = page.run("() => window.mmdata.cameras.tiles.map((t) => [t.shown, t.label.title])")
    assert all(number > 0 for number, _ in shown)
    assert sum("WebCodecs" in how for _, how in shown) == 1, "video is decoded as before"
    points = "() => document.querySelector('.scene-bar .delta').innerText"
    assert page.run(points).startswith("7,200 of 7,200 points")


# Everything the page knows of a layer: its document, what it draws, what it writes.
TRACES = """(name) => { const { session, timeline } = window.mmdata; const { layers } = session;
  return { document: layers.docs.has(name),
    drawn: ['phases', 'events', 'tracks_3d', 'comments'].flatMap((c) => layers.all(c))
      .filter((r) => r.layer === name).length,
    text: document.querySelector('.side-body').innerText,
    people: timeline.people.map((p) => p.user) }; }"""


def test_a_blind_annotator_sees_nothing_of_the_other_until_done(
    server: Server, open_page: OpenPage
) -> None:
    ben = open_page(f"{server.url}?ep=drive.h5&user=ben")
    ben.saved()
    anna = open_page(f"{server.url}?ep=drive.h5&user=anna")
    anna.saved()
    cleo = open_page(f"{server.url}?ep=drive.h5&user=cleo")
    # Before anybody is assigned, Ben sees what Anna has.
    ben.page.locator("summary", has_text="other layers").click()
    traces = ben.run(TRACES, "anna")
    assert traces["document"]
    assert traces["drawn"] > 3
    assert "car-1" in traces["text"]
    ben.wait("() => window.mmdata.timeline.people.some((p) => p.user === 'anna')")
    # Cleo assigns the two, and Anna's labels leave Ben's open page.
    cleo.page.get_by_role("tab", name="Review").click()
    cleo.page.get_by_role("button", name="Assign").click()
    cleo.page.keyboard.type("anna, ben")
    cleo.press("Enter")
    cleo.wait("() => document.querySelector('dialog h2')?.innerText.startsWith('Adjudicator')")
    cleo.page.keyboard.type("cleo")
    cleo.press("Enter")
    cleo.wait("() => document.body.innerText.includes('blind: anna, ben; adjudicator cleo')")
    ben.wait("() => !window.mmdata.session.layers.docs.has('anna')")
    ben.wait("() => document.body.innerText.includes('hidden until you hand in')")
    # Nor does what she does now reach it, not even over the wire.
    ben.run("""() => { window.told = [];
      window.mmdata.session.layers.receive = async (...a) => { window.told.push(a); }; }""")
    anna.run("""() => window.mmdata.session.layers.edit([{ collection: 'events', id: 'secret',
      after: { id: 'secret', label: 'release', stamp_ns: 1e9 } }])""")
    anna.saved()
    anna.run("() => window.mmdata.session.clock.seek(2e9)")
    cleo.wait("() => !!window.mmdata.session.layers.get('anna', 'events', 'secret')")
    cleo.wait("() => window.mmdata.timeline.people.some((p) => p.user === 'anna' && p.t === 2e9)")
    ben.run(FRAMES)
    traces = ben.run(TRACES, "anna")
    assert ben.run("() => window.told") == []
    assert not traces["document"]
    assert traces["drawn"] == 0
    assert "car-1" not in traces["text"]
    assert "release" not in traces["text"]
    assert traces["people"] == ["cleo"]
    assert not ben.page.get_by_label("show layer anna").is_enabled()
    assert "cleo" in cleo.run("() => window.mmdata.session.layers.own")
    # Having handed in his own, he may look.
    ben.page.get_by_role("tab", name="Review").click()
    ben.page.get_by_role("button", name="Hand in for review").click()
    ben.page.get_by_role("tab", name="Labels").click()
    ben.page.get_by_label("show layer anna").check()
    ben.wait("() => !!window.mmdata.session.layers.get('anna', 'events', 'secret')")


def test_what_opens_fits_a_small_window_and_closes(server: Server, open_page: OpenPage) -> None:
    viewport = {"width": 1024, "height": 768}
    page = open_page(f"{server.url}?ep=drive.h5&user=anna", viewport=viewport)
    page.page.get_by_role("tab", name="Streams").click()
    page.wait("() => !!document.querySelector('table.streams')")
    assert (
        page.run("""() => { const e = document.querySelector('.side-body');
      return e.scrollWidth - e.clientWidth; }""")
        == 0
    )
    page.press("?")
    assert page.run("() => document.querySelector('dialog').scrollTop") == 0
    inside = """(selector) => { const r = document.querySelector(selector).getBoundingClientRect();
      return r.width > 0 && r.top >= 0 && r.bottom <= innerHeight && r.right <= innerWidth; }"""
    assert page.run(inside, "dialog .buttons button")
    page.press("Escape")
    page.run("""() => window.mmdata.session.select(
      { layer: 'anna', collection: 'phases', id: 'p1' })""")
    for place in (".bar", ".signals"):
        page.page.locator(f"{place} .picker summary").click()
        page.wait(inside, f"{place} .picker-list")
        page.press("Escape")
        assert not page.run(f"() => document.querySelector('{place} .picker').open")
        assert page.run("() => window.mmdata.session.selection.id") == "p1"
        page.page.locator(f"{place} .picker summary").click()
        page.page.mouse.click(500, 740)  # beside it, on the timeline
        page.wait(f"() => !document.querySelector('{place} .picker').open")
        page.run("""() => window.mmdata.session.select(
          { layer: 'anna', collection: 'phases', id: 'p1' })""")


def test_an_arm_is_offered_its_motions_and_a_new_label_says_so(
    tmp_path: Path, open_page: OpenPage
) -> None:
    n = 40
    stamps = np.arange(n) * 100_000_000
    with EpisodeWriter(tmp_path / "arm.h5") as writer:
        writer.append("joint_states", stamps, {"position": np.zeros((n, 7))})
        child = {"child_frame_id": "hand"}
        writer.add_stream(StreamInfo("eef_pose", Kind.SIGNAL, {}, frame_id="base", attrs=child))
        turn = np.tile([1.0, 0, 0, 0], (n, 1))
        position = np.stack([0.1 * np.arange(n), np.zeros(n), np.zeros(n)], axis=-1)
        writer.append("eef_pose", stamps, {"position": position, "orientation": turn})
    with Server(tmp_path) as server:
        page = open_page(f"{server.url}?ep=arm.h5&user=eve")
        page.saved()
        assert page.run("() => window.mmdata.session.tier") == "motion"
        page.press("n")
        options = page.page.locator("dialog .choice")
        assert "approach" in options.all_inner_texts()[1]
        page.page.keyboard.type("gras")
        assert [text.split("\n")[0] for text in options.all_inner_texts()] == ["grasp", "gras"]
        assert "new: not in the list" in options.nth(1).inner_text()
        page.press("ArrowDown", "Enter")
        page.saved()
        assert page.run(PHASES) == [["gras", 0, int(stamps[-1])]]
        # Where only what is there can be chosen, nothing else is taken.
        page.page.get_by_role("tab", name="Review").click()
        page.page.get_by_role("button", name="Compare two layers").click()
        page.wait("() => document.body.innerText.includes('no second layer')")
        assert page.run("() => document.querySelector('dialog')") is None


LABELLED = """(label) => { const { layers } = window.mmdata.session;
  void layers.edit([{ collection: 'phases', id: 'p1',
    after: { ...layers.get(layers.active, 'phases', 'p1'), label } }]); }"""


@pytest.mark.parametrize("reload", [False, True])
def test_what_others_did_while_the_server_was_away_is_not_overwritten(
    server: Server, open_page: OpenPage, reload: bool
) -> None:
    """Two edits wait in Ben's page; Anna changes the same phase before they can be sent."""
    url = f"{server.url}?ep=drive.h5&user=ben&layer=anna"
    ben = open_page(url)
    ben.saved()
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    server.stop()
    # Nothing can be sent until Anna is done.
    ben.run("""() => { const real = window.fetch; window.fetch = (where, how) =>
      window.letGo || !String(where).endsWith('/edit') ? real(where, how)
        : Promise.reject(new TypeError('Failed to fetch')); }""")
    ben.run(LABELLED, "overtake")
    ben.run(LABELLED, "reverse")
    ben.wait("() => window.mmdata.session.layers.saving === 'offline'")
    assert ben.run("() => document.querySelector('.status').innerText") == "offline: kept here"
    server.start(port)
    layer = f"/api/e/{server.key('drive.h5')}/layers/anna"

    def label() -> str:
        phases = server.ask(layer)[1]["document"]["phases"]
        return next(str(p["label"]) for p in phases if p["id"] == "p1")

    server.ask(f"{layer}/open", {})
    before = next(p for p in server.ask(layer)[1]["document"]["phases"] if p["id"] == "p1")
    after = {**before, "label": "park"}
    changes = [{"collection": "phases", "id": "p1", "after": after}]
    assert server.ask(f"{layer}/edit", {"base": 0, "changes": changes})[0] == 200
    if reload:
        ben.page.goto(url)
    else:
        # Ben's page is back and has fetched what happened, before it sends.
        ben.wait("() => window.mmdata.session.layers.document.standing.revision === 1")
        ben.run("() => { window.letGo = true; }")
    ben.wait(
        "() => document.querySelector('dialog')?.innerText.includes('Nothing was overwritten')"
    )
    assert label() == "park"
    ben.page.get_by_role("button", name="Use mine").click()
    ben.wait("() => window.mmdata.session.layers.document?.standing.revision === 2")
    ben.saved()
    assert label() == "reverse", "the last of what waited"


def test_edits_a_full_disk_refuses_are_kept_and_sent_again(
    server: Server, open_page: OpenPage
) -> None:
    """So are those that a proxy before the server answers while that is away."""
    page = open_page(f"{server.url}?ep=drive.h5&user=anna")
    page.saved()
    page.run("""() => { const real = window.fetch; window.refusals = 0; window.fetch = (...a) =>
      window.roomy || !String(a[0]).endsWith('/edit') ? real(...a)
        : (window.refusals++, Promise.resolve(new Response('{}', { status: 503 }))); }""")
    page.run(LABELLED, "overtake")
    page.wait("() => window.refusals >= 2")
    assert page.run("() => window.mmdata.session.layers.saving") == "offline"
    page.run("() => { window.roomy = true; }")
    page.saved()
    document = server.ask(f"/api/e/{server.key('drive.h5')}/layers/anna")[1]["document"]
    assert "overtake" in {p["label"] for p in document["phases"]}
