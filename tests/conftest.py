"""Fixtures for every test: the shared sample logs (or a visible skip), a simulated log."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A run started in the background ignores SIGINT, and so would every program it starts: the tests of
# Ctrl-C need the handler that a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared, busy machines: no deadline, and fewer examples than hypothesis would take.
settings.register_profile(
    "mmdata", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mmdata")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what drives a browser, so that those tests can run in a process of their own."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of sample logs: $MMDATA_SHARED_DATA, else ../shared/data. Skips when it is absent."""
    path = Path(os.environ.get("MMDATA_SHARED_DATA", _SHARED))
    if not path.is_dir():
        pytest.skip(f"sample logs are absent ({path})")
    return path


@pytest.fixture(scope="session")
def simulated_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short simulated pick-and-place as a ROS 2 MCAP log (a rosbag2 folder)."""
    from mmdata.simulate import pick_place, write_mcap

    folder = tmp_path_factory.mktemp("simulated") / "pick_place"
    write_mcap(folder, pick_place(seed=1, duration_s=3.0))
    return folder


@pytest.fixture(scope="session")
def simulated_episode(simulated_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated log, converted. Do not change the file."""
    from mmdata.conversion.job import convert_source
    from mmdata.conversion.sources import find_sources

    out = tmp_path_factory.mktemp("episodes")
    return convert_source(find_sources([simulated_log]).sources[0], out).episodes[0].path
