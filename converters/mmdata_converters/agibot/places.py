"""Where the files of an AgiBot episode lie: by data type, by episode, or all beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mmdata_converters._h5 import is_h5, open_h5

#: The table's names: Alpha and Beta, Digital World, newer recordings.
TABLES = ("proprio_stats.h5", "proprio_states.h5", "aligned_joints.h5")
#: Folders of a dataset that hold <task>/<episode>/<table>.
_TOPS = ("proprio_stats", "meta_info")
#: How far above an episode's table the dataset's root may be.
_LEVELS = 4


@dataclass(frozen=True)
class Place:
    """The files of an episode. root: the folder that the folders by data type lie in."""

    table: Path
    root: Path
    task: str
    episode: str

    @property
    def observations(self) -> Path | None:
        """Folder of videos and depth pictures."""
        for name in ("observations", "observation"):
            folder = self.root / name / self.task / self.episode
            if folder.is_dir():
                return folder
        own = self.table.parent
        beside = any(own.glob("*.mp4")) or any((own / n).is_dir() for n in ("videos", "video"))
        return own if beside else None

    @property
    def parameters(self) -> Path | None:
        """Folder of the cameras' parameters."""
        own = self.root / "parameters" / self.task / self.episode
        beside = self.table.parent
        for folder in (
            own / "parameters" / "camera", own / "camera", own,
            beside / "parameters" / "camera", beside / "camera", beside,
        ):  # fmt: skip
            if folder.is_dir() and any(folder.glob("*_intrinsic_params.json")):
                return folder
        return None

    @property
    def descriptions(self) -> Iterator[Path]:
        """Files that may describe the episode, those of its own first."""
        for name in ("task_info.json", "data_info.json"):
            yield self.table.parent / name
        for name in (f"task_info/task_{self.task}.json", f"task_info_{self.task}.json",
                     f"task_{self.task}.json"):  # fmt: skip
            yield self.root / name


def own_table(folder: Path) -> Path | None:
    """The table of a folder that is one episode."""
    for name in TABLES:
        file = folder / name
        if is_h5(file):
            with open_h5(file) as opened:
                if "state" in opened or "action" in opened:
                    return file
    return None


def is_dataset(path: Path) -> bool:
    """Whether a folder holds episodes by data type; stops at the first one."""
    return any(
        (folder / name).is_file()
        for top in _TOPS for folder in (path / top).glob("*/*") for name in TABLES
    )  # fmt: skip


def episodes(path: Path) -> dict[str, Path]:
    """Part -> table."""
    own = own_table(path)
    if own is not None:
        return {"": own}
    folders = [f for top in _TOPS for f in (path / top, *(path / top).glob("*")) if f.is_dir()]
    return _listed(path, tuple((str(f), f.stat().st_mtime_ns) for f in folders))


@lru_cache(maxsize=4)
def _listed(path: Path, changes: tuple[tuple[str, int], ...]) -> dict[str, Path]:
    """Part -> table, looked up again when a folder of a task changed."""
    return {f"{t.parent.parent.name}_{t.parent.name}": t for t in _tables(path)}


def _tables(path: Path) -> Iterator[Path]:
    for top in _TOPS:
        for folder in sorted((path / top).glob("*/*")):
            table = next((folder / n for n in TABLES if (folder / n).is_file()), None)
            if table is not None:
                yield table


def place_of(table: Path) -> Place:
    """The files that belong to a table."""
    table = table.resolve()
    task, episode = table.parent.parent.name, table.parent.name
    above = list(table.parents)[2 : 2 + _LEVELS]
    root = next(
        (
            r for r in above
            if (r / "observations" / task / episode).is_dir() or (r / "task_info").is_dir()
            or (r / f"task_info_{task}.json").is_file()
        ),
        above[0] if above else table.parent,
    )  # fmt: skip
    return Place(table, root, task, episode)
