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

from chromium import CLOSE_S, PROGRAM, Chromium
from make_episode import write_drive
from viewer_helpers import Page, Server

TEST_S = 200.0


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
    with Server(drive_copy.parent) as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One browser for all tests; those that need it are skipped where there is none."""
    if not os.access(PROGRAM, os.X_OK):
        pytest.skip("no chromium: `apt-get install chromium` runs the browser tests")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = Chromium(playwright)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Chromium) -> Iterator[Callable[..., Page]]:
    """Opens tabs of users that share nothing; page errors fail the test.

    A test that takes longer than TEST_S loses its browser, and so fails.
    """
    opened: list[tuple[Any, Page]] = []

    def make(url: str, **options: Any) -> Page:
        viewport = options.pop("viewport", {"width": 1440, "height": 900})
        context = chromium.new_context(viewport=viewport, **options)
        page = Page(context.new_page())
        opened.append((context, page))
        return page.open(url)

    with chromium.limit(TEST_S):
        yield make
    for context, page in opened:
        with chromium.limit(CLOSE_S):
            context.close()
        assert page.errors == []
