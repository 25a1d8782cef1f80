"""What the viewer's page does in a headless browser: seeks, playing, plots, points.

    python benchmarks/viewer.py [EPISODE.h5]

Without an episode a demo drive with three cameras is made. Needs Debian's chromium and the Python
package playwright. The browser renders in software here unless the machine has a GPU, which the
table says; numbers of points per second then speak of the CPU.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests" / "viewer"
sys.path.insert(0, str(TESTS))

SEEKS = """async ([times]) => {
  const { session, cameras } = window.mmdata; const out = [];
  for (const t of times) {
    const start = performance.now();
    session.clock.seek(t);
    for (const tile of cameras.tiles) tile.update();
    while (!cameras.settled()) {
      await new Promise((r) => setTimeout(r, 0));
      for (const tile of cameras.tiles) tile.update();
    }
    out.push(performance.now() - start);
    await new Promise((r) => setTimeout(r, 5));
  }
  return out; }"""
ZOOMS = """async ([count, duration]) => {
  const { session } = window.mmdata; const out = [], script = [];
  let last = performance.now();
  for (let k = 0; k < count; k++) {
    const width = duration * Math.pow(0.5, 6 * (0.5 - 0.5 * Math.cos(k / 9)));
    const middle = duration * (0.5 + 0.4 * Math.sin(k / 7));
    session.clock.setView(middle - width / 2, middle + width / 2);
    const start = performance.now();
    for (const panel of window.mmdata.panels) panel.update();
    script.push(performance.now() - start);
    await new Promise((r) => requestAnimationFrame(r));
    const now = performance.now(); out.push(now - last); last = now;
  }
  return [out, script]; }"""


def percentiles(values: list[float]) -> str:
    p50, p95, p100 = np.percentile(values, [50, 95, 100])
    return f"p50 {p50:7.1f}  p95 {p95:7.1f}  max {p100:7.1f} ms"


def long_signal(path: Path) -> None:
    """One hour of a 6-channel signal at 1 kHz."""
    from mmdata import EpisodeWriter

    n = 3_600_000
    with EpisodeWriter(path) as writer:
        for start in range(0, n, 400_000):
            k = np.arange(start, min(start + 400_000, n))
            values = np.sin(k[:, None] / np.array([50, 90, 400, 1e3, 1e4, 1e5])).astype("<f4")
            writer.append("wrench", k * 1_000_000, {"force": values})


def load() -> str:
    return f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"


def main(arguments: list[str]) -> None:
    from chromium import Chromium
    from make_episode import write_drive
    from playwright.sync_api import sync_playwright
    from viewer_helpers import Server

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        if arguments:
            (root / "episode.h5").symlink_to(Path(arguments[0]).resolve())
            root = Path(arguments[0]).resolve().parent
            name = Path(arguments[0]).name
        else:
            write_drive(root / "drive.h5", seconds=20.0)
            name = "drive.h5"
        long_signal(Path(folder) / "hour.h5")
        browser = Chromium(playwright)
        try:
            with Server(root) as server:
                pictures(browser, server, name)
            with Server(Path(folder)) as server:
                signals(browser, server)
        finally:
            browser.close()


def tab(browser: Any, server: Any, name: str, user: str) -> Any:
    from viewer_helpers import Page

    context = browser.new_context(viewport={"width": 1440, "height": 900})
    return Page(context.new_page()).open(f"{server.url}?ep={name}&user={user}")


def pictures(browser: Any, server: Any, name: str) -> None:
    """Seeks with the cameras alone and with all panels; renders of clouds of three sizes."""
    hidden = ["scene", "signals", "timeline", "sidebar", "tactile"]
    server.ask("/api/preferences", {"hidden": hidden}, method="PUT", user="bare")
    rng = np.random.default_rng(0)
    for user, what in (("bare", "cameras alone"), ("all", "all panels")):
        page = tab(browser, server, name, user)
        duration = page.run("() => window.mmdata.session.clock.duration")
        count = page.run("() => window.mmdata.cameras.tiles.length")
        took = page.run(SEEKS, [rng.integers(0, duration, 200).tolist()])
        print(f"seek to shown, {count} cameras, {what:14s} {percentiles(took)}  ({load()})")
        if user == "bare":
            page.page.context.close()
    software = page.run("() => window.mmdata.scene.software")
    for budget in (50_000, 200_000, 1_000_000):
        took = points(page, budget)
        print(f"render {took[0]:9,.0f} points  {percentiles(took[1:])}  software: {software}")
    page.page.context.close()


def signals(browser: Any, server: Any) -> None:
    """Panning and zooming one hour at 1 kHz."""
    page = tab(browser, server, "hour.h5", "all")
    duration = page.run("() => window.mmdata.session.clock.duration")
    page.run(ZOOMS, [60, duration])
    took, script = page.run(ZOOMS, [240, duration])
    print(f"1 h at 1 kHz, 6 channels, pan and zoom: frame {percentiles(took)}  ({load()})")
    print(f"    of which the page's own work: {percentiles(script)}")


def points(page: Any, budget: int) -> list[Any]:
    """Points drawn and the times of 15 renders of a synthetic cloud of that size."""
    return page.run(
        """(n) => { const { scene } = window.mmdata; const cloud = scene.clouds[0].objects[0];
          const xyz = new Int16Array(3 * n);
          for (let k = 0; k < xyz.length; k++) xyz[k] = (Math.random() - 0.5) * 60000;
          cloud.set(cloud.shown, { count: n, total: n, origin: [0, 0, 0],
            step: 0.001, xyz, intensity: null });
          const gl = scene.renderer.getContext(); const pixel = new Uint8Array(4); const out = [n];
          for (let k = 0; k < 15; k++) { const start = performance.now(); scene.render();
            gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
            out.push(performance.now() - start); }
          return out; }""",
        budget,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
