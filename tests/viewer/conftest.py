"""A served demo episode, and a real browser where Debian's chromium and playwright are there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from make_episode import write_drive
from viewer_helpers import CHROMIUM, FLAGS, Page, Server


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo drive; never changed by a test."""
    return write_drive(tmp_path_factory.mktemp("drive") / "drive.h5")


@pytest.fixture
def drive_copy(drive: Path, tmp_path: Path) -> Path:
    """A folder of its own with the demo drive and its layers."""
    for file in drive.parent.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path / file.name)
    return tmp_path / "drive.h5"


@pytest.fixture
def server(drive_copy: Path) -> Iterator[Server]:
    made = Server(drive_copy.parent).start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running browser; the tests that need one are skipped where there is none."""
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip("no chromium: `apt-get install chromium` runs the browser tests")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Page]]:
    """Opens tabs of users that share nothing; page errors fail the test."""
    opened: list[tuple[Any, Page]] = []

    def make(url: str, **options: Any) -> Page:
        viewport = options.pop("viewport", {"width": 1440, "height": 900})
        context = chromium.new_context(viewport=viewport, **options)
        page = Page(context.new_page())
        opened.append((context, page))
        return page.open(url)

    yield make
    for context, page in opened:
        context.close()
        assert page.errors == []
