"""What the viewer's page does in a headless browser: seeks, plots, points.

    python benchmarks/viewer.py [EPISODE.h5] [--runs 3] [--parts seeks points signals]

Without an episode a demo drive with three cameras is made. Needs Debian's chromium and the Python
package playwright. The browser renders in software here unless the machine has a GPU, which the
table says; numbers of points per second then speak of the CPU.

A seek is over ("shown") when every camera has the right frame on its canvas, and "painted" when the
browser has painted the page with it. Every run has a server, a browser tab and seeks of its own.
"""

from __future__ import annotations

import argparse
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
  const painted = () => new Promise((r) => requestAnimationFrame(() => setTimeout(r, 0)));
  for (const t of times) {
    const start = performance.now();
    session.clock.seek(t);
    while (!cameras.settled()) await new Promise((r) => setTimeout(r, 0));
    const shown = performance.now() - start;
    await painted();
    out.push([shown, performance.now() - start]);
    await new Promise((r) => setTimeout(r, 5));
  }
  return out; }"""
CHECKED = """() => performance.getEntriesByType('resource')
  .some((e) => /api.e.[^/]*.findings/.test(e.name) && e.responseEnd > 0)"""
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("episode", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=3, help="of 200 seeks each, per layout")
    parts = ("seeks", "points", "signals")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    options = parser.parse_args(arguments)
    from chromium import Chromium
    from make_episode import write_drive
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        if options.episode:
            root, name = options.episode.resolve().parent, options.episode.name
        else:
            name = write_drive(root / "drive.h5", seconds=20.0).name
        browser = Chromium(playwright)
        try:
            if "seeks" in options.parts:
                seeks(browser, root, name, options.runs)
            if "points" in options.parts:
                renders(browser, root, name)
            if "signals" in options.parts:
                long_signal(Path(folder) / "hour.h5")
                signals(browser, Path(folder))
        finally:
            browser.close()


def tab(browser: Any, server: Any, name: str, user: str) -> Any:
    from viewer_helpers import Page

    context = browser.new_context(viewport={"width": 1440, "height": 900})
    return Page(context.new_page()).open(f"{server.url}?ep={name}&user={user}")


def seeks(browser: Any, root: Path, name: str, runs: int) -> None:
    """Random seeks with the cameras alone and with all panels, once the checks are done; then with
    all panels while they run."""
    layouts = {
        "cameras alone": ["scene", "signals", "timeline", "sidebar", "tactile"],
        "all panels": [],
        "all panels, while checks run": [],
    }
    for layout, hidden in layouts.items():
        tails: list[Any] = []
        for run in range(runs if hidden or layout == "all panels" else 1):
            times = np.random.default_rng(run)
            with server_of(root) as server:
                server.ask("/api/preferences", {"hidden": hidden}, method="PUT", user="bench")
                page = tab(browser, server, name, "bench")
                if "checks" not in layout:
                    page.wait(CHECKED, seconds=120)
                duration = page.run("() => window.mmdata.session.clock.duration")
                count = page.run("() => window.mmdata.cameras.tiles.length")
                took = np.array(page.run(SEEKS, [times.integers(0, duration, 200).tolist()]))
                page.page.context.close()
            what = f"seek, {count} cameras, {layout}"
            print(f"{what:46s} shown {percentiles(took[:, 0])}  ({load()})")
            print(f"{'':46s} painted {percentiles(took[:, 1])}")
            tails.append(np.percentile(took, 95, axis=0))
        for k, when in enumerate(("shown", "painted")):
            p95 = [tail[k] for tail in tails]
            spread = f"{min(p95):.0f} to {max(p95):.0f}"
            print(f"    p95 of {len(p95)} runs, {when}: median {np.median(p95):.0f}, {spread} ms")


def renders(browser: Any, root: Path, name: str) -> None:
    """Renders of clouds of three sizes."""
    with server_of(root) as server:
        page = tab(browser, server, name, "all")
        software = page.run("() => window.mmdata.scene.software")
        for budget in (50_000, 200_000, 1_000_000):
            took = points(page, budget)
            print(f"render {took[0]:9,.0f} points  {percentiles(took[1:])}  software: {software}")
        page.page.context.close()


def signals(browser: Any, root: Path) -> None:
    """Panning and zooming one hour at 1 kHz."""
    with server_of(root) as server:
        page = tab(browser, server, "hour.h5", "all")
        duration = page.run("() => window.mmdata.session.clock.duration")
        page.run(ZOOMS, [60, duration])
        took, script = page.run(ZOOMS, [240, duration])
        print(f"1 h at 1 kHz, 6 channels, pan and zoom: frame {percentiles(took)}  ({load()})")
        print(f"    of which the page's own work: {percentiles(script)}")
        page.page.context.close()


def server_of(root: Path) -> Any:
    """A server on a folder, with a state of its own."""
    from viewer_helpers import Server

    return Server(root)


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
