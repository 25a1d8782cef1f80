"""A headless Chromium of the tests' own: nothing it does, or fails to do, can hold up a test run.

It is started here rather than by playwright, so that its process group is known: whatever waits for
longer than it may ends with the whole group killed, after which playwright's calls raise and the
next test gets a new browser. It ends with the test run, however that ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless=new",
    # No zygote and no sandbox: processes are started, not forked off a template in namespaces of
    # its own, where on some virtual machines they were seen to spin for ever.
    "--no-zygote", "--no-sandbox", "--disable-gpu-sandbox", "--disable-breakpad",
    # As on a machine without a GPU: only WebGL is drawn by SwiftShader.
    "--disable-gpu", "--disable-gpu-rasterization", "--disable-accelerated-2d-canvas",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--disable-extensions", "--disable-hang-monitor",
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows", "--metrics-recording-only", "--mute-audio",
    "--password-store=basic", "--force-color-profile=srgb", "--hide-scrollbars",
    "--disable-features=Translate,MediaRouter,OptimizationHints,PaintHolding,PreloadTopChromeWebUI",
    "--no-first-run", "--no-default-browser-check", "--remote-debugging-port=0",
    "--enable-precise-memory-info", "--js-flags=--expose-gc",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
START_S, ACTION_S, CLOSE_S = 60.0, 30.0, 10.0


def tied(command: list[str]) -> list[str]:
    """The command, to be killed by the kernel when this process ends, where that can be had."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


class Chromium:
    """One browser, started when first needed and anew after it was killed.

    playwright: what `sync_playwright()` gives.
    """

    def __init__(self, playwright: Any) -> None:
        self._playwright = playwright
        self._process: subprocess.Popen[bytes] | None = None
        self._browser: Any = None
        self._profile = ""
        self._killed = False

    @property
    def pid(self) -> int | None:
        """Of the browser and of its process group; None while there is none."""
        return self._process.pid if self._process is not None else None

    def new_context(self, **options: Any) -> Any:
        """A context that shares nothing with others; none of its waits is without an end."""
        if self._process is None or self._killed or self._process.poll() is not None:
            self.close()
            self._start()
        context = self._browser.new_context(**options)
        context.set_default_timeout(1000 * ACTION_S)
        return context

    def _start(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        self._killed = False
        command = [PROGRAM, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            tied(command), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        told = Path(self._profile) / "DevToolsActivePort"
        end = time.monotonic() + START_S
        while not (told.exists() and told.read_text().count("\n")):
            if time.monotonic() > end or self._process.poll() is not None:
                self.close()
                raise RuntimeError(f"{PROGRAM} did not start within {START_S:.0f} s")
            time.sleep(0.05)
        with self.limit(START_S):
            self._browser = self._playwright.chromium.connect_over_cdp(
                f"http://127.0.0.1:{told.read_text().split()[0]}", timeout=1000 * START_S
            )

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Kills the browser when the body takes longer; what waits for it then raises."""
        timer = threading.Timer(seconds, self.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End the browser and all its processes at once."""
        self._killed = True
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def close(self) -> None:
        """End the browser; returns within about CLOSE_S whatever state it is in."""
        if self._browser is not None:
            try:
                with self.limit(CLOSE_S):
                    self._browser.close()
            except Exception:  # killed, or gone before: that is what was wanted
                pass
            self._browser = None
        self.kill()
        if self._process is not None:
            try:
                self._process.wait(CLOSE_S)
            except subprocess.TimeoutExpired:
                # Not even SIGKILL ends it: the run goes on, and says so.
                print(f"chromium {self._process.pid} does not die of SIGKILL", flush=True)
            self._process = None
        shutil.rmtree(self._profile, ignore_errors=True)
