"""The pictures of docs/viewer.md, taken from the running program.

    python docs/images/make.py [FOLDER]

Needs what the browser tests need. Without a folder the pictures here are replaced.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "viewer"))

SELECT = "(s) => window.mmdata.session.select(s)"


def pick_place(folder: Path) -> str:
    """A simulated pick-and-place, converted and segmented; its name."""
    from mmdata.conversion.job import convert_source
    from mmdata.conversion.sources import find_sources
    from mmdata.simulate import pick_place as simulate
    from mmdata.simulate import write_mcap

    with tempfile.TemporaryDirectory() as logs:
        write_mcap(Path(logs) / "pick_place", simulate(seed=4))
        path = convert_source(find_sources([Path(logs) / "pick_place"]).sources[0], folder)
    episode = path.episodes[0].path
    program = Path(sys.executable).with_name("mmdata")
    subprocess.run(
        [program, "segment", episode, "--write", "--no-quality", "--grammar", "pick_place"],
        check=True,
    )
    return episode.name


def main(out: Path) -> None:
    from chromium import Chromium
    from make_episode import write_drive
    from playwright.sync_api import sync_playwright
    from viewer_helpers import Page, Server

    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        folder = Path(root)
        write_drive(folder / "drive.h5")
        picked = pick_place(folder)
        browser = Chromium(playwright)
        try:
            with Server(folder) as server:

                def take(
                    name: str, episode: str, user: str, theme: str, act: Callable[[Page], Any]
                ) -> None:
                    server.ask("/api/preferences", {"theme": theme}, method="PUT", user=user)
                    context = browser.new_context(viewport={"width": 1440, "height": 900})
                    page = Page(context.new_page())
                    page.open(f"{server.url}?ep={episode}&user={user}")
                    act(page)
                    page.page.mouse.move(700, 5)
                    page.wait("() => window.mmdata.settled()")
                    page.wait("() => !document.querySelector('.toast')")
                    page.page.wait_for_timeout(500)
                    page.page.screenshot(path=out / f"{name}.png")
                    context.close()

                take("viewer-pick-place", picked, "ben", "dark", lambda p: p.seek(4.2e9))
                take("viewer-drive", "drive.h5", "anna", "dark", drive)
                take("viewer-keys", "drive.h5", "anna", "light", lambda p: p.press("?"))
                take("viewer-review", "drive.h5", "anna", "light", review)
        finally:
            browser.close()
        program = Path(sys.executable).with_name("mmdata")
        report = [program, "render", folder / "drive.h5", "-o", out / "viewer-report.png"]
        subprocess.run([*report, "--time", "2.5"], check=True)


def drive(page: Any) -> None:
    """A car selected, five sweeps put together."""
    page.run(SELECT, {"layer": "anna", "collection": "tracks_3d", "id": "t-car-1"})
    page.page.get_by_label("samples merged").select_option(label="5 clouds merged")
    page.seek(2_500_000_000)
    page.wait("() => /points inside/.test(document.querySelector('.inspector').innerText)")


def review(page: Any) -> None:
    """A boundary and a car in dispute, a comment on them."""
    page.run("""async () => { const l = window.mmdata.session.layers;
      const at = l.get('anna', 'phases', 'p1'), car = l.get('anna', 'tracks_3d', 't-car-1');
      await l.edit([{ collection: 'phases', id: 'p1', after: { ...at, end_ns: at.end_ns - 6e8 } },
        { collection: 'phases', id: 'p2',
          after: { ...l.get('anna', 'phases', 'p2'), start_ns: at.end_ns - 6e8 } }]); }""")
    page.seek(4.2e9)
    page.run(SELECT, {"layer": "anna", "collection": "phases", "id": "p1"})
    page.press("p")
    page.page.keyboard.type("The brake lights come on later.")
    page.press("Control+Enter")
    page.saved()
    page.page.get_by_role("tab", name="Review").click()
    page.page.get_by_role("button", name="Compare two layers").click()
    for name in ("anna", "auto"):
        page.page.keyboard.type(name)
        page.press("Enter")
    page.wait("() => /same label/.test(document.body.innerText)")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
