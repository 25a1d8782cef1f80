from __future__ import annotations

from pathlib import Path

import pytest
from loader_episodes import write_demo


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three episodes; nothing in it is changed by tests."""
    folder = tmp_path_factory.mktemp("demos")
    for n in range(3):
        write_demo(folder / f"demo_{n}.h5", seed=n, seconds=3.0 - 0.5 * n)
    return folder
