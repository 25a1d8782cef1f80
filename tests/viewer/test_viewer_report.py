"""Reports without a browser, the commands, and how the report of `mmdata check` looks in one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import typer
from chromium import Chromium
from make_episode import BITS, CELL, read_number
from typer.testing import CliRunner

from mmdata import open_episode
from mmdata.cli import check as check_command
from mmdata.cli import view as commands
from mmdata.errors import ConfigError, MissingDependencyError
from mmdata_viewer import render, show_desktop

CAPTION = 20


def numbers(picture: np.ndarray, columns: int = 2) -> list[int]:
    """The burnt-in numbers of the tiles of a report that is 2 x 640 pixels wide."""
    tall = round(640 * 0.75)
    found = []
    for k in range(3):
        y, x = divmod(k, columns)
        cell = picture[y * tall : (y + 1) * tall, x * 640 : (x + 1) * 640][CAPTION:]
        scale = min(640 / 320, (tall - CAPTION) / 240)
        left = (640 - round(320 * scale)) // 2
        tile = cv2.resize(cell[:, left : left + round(320 * scale)], (320, 240))
        found.append(read_number(tile[:CELL, : BITS * CELL]))
    return found


def test_a_picture_shows_the_frames_nearest_to_the_instant(drive: Path, tmp_path: Path) -> None:
    written = render(drive, tmp_path / "x.png", time_s=2.5)
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert (written["width"], written["height"]) == (picture.shape[1], picture.shape[0])
    with open_episode(drive) as episode:
        at = (episode.start_ns or 0) + 2_500_000_000
        names = [n for n in episode.streams if n.startswith("camera")]
        expected = [int(np.abs(episode.streams[n].stamp_ns - at).argmin()) for n in names]
    assert numbers(picture) == expected
    # Without layers there are no box lines over the frames.
    render(drive, tmp_path / "bare.png", time_s=2.5, layers=[])
    bare = cv2.imread(str(tmp_path / "bare.png"))
    assert (bare[:480, 640:] != picture[:480, 640:]).any()


def test_a_film_has_the_frames_asked_for(drive: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    written = render(drive, path, time_s=1.0, end_s=2.0, fps=5, width=1280)
    assert written["frames"] == 6
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]
    assert len(frames) == 6
    with open_episode(drive) as episode:
        start = episode.start_ns or 0
        stamps = episode.streams["camera_fisheye"].stamp_ns
        expected = [
            int(np.abs(stamps - start - int(t * 1e9)).argmin()) for t in np.arange(1, 2.1, 0.2)
        ]
    assert [numbers(f)[0] for f in frames] == expected


def test_arguments_that_make_no_sense_are_refused(drive: Path, tmp_path: Path) -> None:
    for bad in ({"output": "x.gif"}, {"width": 10}, {"layers": ["nobody"]}):
        arguments = {"output": "x.png", **bad}
        with pytest.raises(ConfigError):
            render(drive, tmp_path / str(arguments.pop("output")), **arguments)
    with pytest.raises(ConfigError):
        render(drive, tmp_path / "x.mp4", time_s=3, end_s=2)


def test_the_commands(drive: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    commands.register(app)
    run = CliRunner().invoke
    done = run(app, ["render", str(drive), "-o", str(tmp_path / "c.png"), "--time", "1", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["frames"] == 1
    assert run(app, ["render", str(drive), "-o", str(tmp_path / "c.gif")]).exit_code == 2
    assert run(app, ["view", str(tmp_path / "nothing")]).exit_code == 1
    assert "--no-browser" in run(app, ["view", "--help"]).stdout


def test_open3d_is_asked_for_only_by_the_desktop_window(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "open3d" not in sys.modules
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(MissingDependencyError, match=r"mmdata\[open3d\]"):
        show_desktop(drive)


def test_the_report_of_the_checks_fits_a_window(
    drive_copy: Path, tmp_path: Path, chromium: Chromium
) -> None:
    """Nothing wider than the page, no number beside its heading, no text cut off in a plot."""
    app = typer.Typer()
    check_command.register(app)
    page_path = tmp_path / "report.html"
    asked = ["check", str(drive_copy), "--html", str(page_path), "--json"]
    found = json.loads(CliRunner().invoke(app, asked).stdout)
    context = chromium.new_context(viewport={"width": 1024, "height": 768})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(page_path.as_uri())
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    table = page.evaluate("""() => [...document.querySelector('table').rows].map((row) =>
      [...row.cells].map((c) => c.innerText))""")
    assert table[0] == ["episode", "verdict", "errors", "warnings", "infos"]
    failed = [f["severity"] for f in found["episodes"][0]["findings"] if f["status"] == "FAILED"]
    counts = [str(failed.count(severity)) for severity in ("error", "warning", "info")]
    assert table[1][2:] == counts
    assert sum(map(int, counts)) > 0
    # Where a column holds numbers at its right, its heading stands there, too.
    crooked = page.evaluate("""() => [...document.querySelectorAll('table')].flatMap((t) => {
      const [head, first] = t.rows; if (!first) return [];
      return [...first.cells].flatMap((cell, k) => {
        const align = (c) => getComputedStyle(c).textAlign;
        return align(cell) === align(head.cells[k]) ? [] : [head.cells[k].innerText]; }); })""")
    assert crooked == []
    cut = page.evaluate("""() => [...document.querySelectorAll('svg text')].flatMap((t) => {
      const [a, b] = [t.getBoundingClientRect(), t.ownerSVGElement.getBoundingClientRect()];
      return a.right > b.right + 0.5 || a.left < b.left - 0.5 ? [t.textContent] : []; })""")
    assert cut == []
    assert page.locator("figure").count() > 5
    assert said == []
    context.close()
