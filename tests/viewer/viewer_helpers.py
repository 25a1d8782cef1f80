"""A served episode and a page on it, for the viewer's tests."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from chromium import START_S, tied

SERVE = """
import sys
from mmdata_viewer import serve
if __name__ == "__main__":
    root, host, port = sys.argv[1:4]
    say = lambda url: print(url, flush=True)
    serve(root, host=host, port=int(port), open_browser=False, announce=say)
"""

# Label, start and end of the phases of the layer that is written to.
PHASES = """() => window.mmdata.session.layers.all('phases', window.mmdata.session.layers.active)
  .map((p) => p.item).sort((a, b) => a.start_ns - b.start_ns)
  .map((p) => [p.label, p.start_ns, p.end_ns])"""


@dataclass
class Server:
    """`serve` in a process of its own."""

    root: Path
    host: str = "127.0.0.1"
    process: Any = field(default=None, repr=False)
    url: str = ""

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> Server:
        self.process = subprocess.Popen(
            tied([sys.executable, "-c", SERVE, str(self.root), self.host, str(port)]),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            self.url = self._told()
            for _ in range(100):
                try:
                    urllib.request.urlopen(self.url, timeout=5).close()
                    return self
                except urllib.error.HTTPError:
                    return self
                except OSError:
                    time.sleep(0.1)
            pytest.fail(f"nothing answers at {self.url}")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def _told(self) -> str:
        """The address the server prints, waited for at most START_S."""
        line, end = b"", time.monotonic() + START_S
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            more = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not more:
                pytest.fail(f"the server did not start within {START_S:.0f} s")
            line += more
        return line.decode().strip()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server, by force when it does not go within 20 s."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait(20)
            process.stdout.close()

    def ask(
        self,
        path: str,
        body: Any = None,
        user: str = "anna",
        method: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """(status, JSON or bytes) of one request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url.split("?")[0].rstrip("/") + path, data, method=method
        )
        request.add_header("x-user", user)
        if data is not None:
            request.add_header("content-type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return _parsed(answer.status, answer)
        except urllib.error.HTTPError as error:
            return _parsed(error.code, error)

    def key(self, name: str) -> str:
        """Key of an episode by its name."""
        rows = self.ask("/api/episodes")[1]["episodes"]
        return next(row["key"] for row in rows if row["name"] == name)


def _parsed(status: int, answer: Any) -> tuple[int, Any]:
    content = answer.read()
    kind = answer.headers.get_content_type()
    return status, json.loads(content) if kind == "application/json" else content


class Page:
    """One tab on the viewer."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def wait(self, script: str, argument: Any = None, seconds: float = 30.0) -> Any:
        """Until a function gives something true. (The page's CSP forbids playwright's own wait.)"""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(script, argument)
            if value:
                return value
            time.sleep(0.05)
        pytest.fail(f"waited {seconds} s for {script}; page errors: {self.errors}")
        return None

    def open(self, url: str) -> Page:
        self.page.goto(url)
        self.wait("() => !!(window.mmdata && window.mmdata.settled())")
        return self

    def seek(self, t: float) -> None:
        self.run("t => window.mmdata.seek(t)", t)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def saved(self) -> None:
        """Until the journal has everything."""
        self.wait("() => window.mmdata.session.layers.saving === 'saved'")
