"""Who may import whom (docs/architecture.md), read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "mmdata": ROOT / "mmdata",
    "mmdata_converters": ROOT / "converters/mmdata_converters",
    "mmdata_schema": ROOT / "annotation_schema/mmdata_schema",
    "mmdata_viewer": ROOT / "viewer/mmdata_viewer",
}
#: Lower may not import higher. Parts of one layer do not import each other.
LAYERS = [
    {"errors"},
    {"clocks", "geometry", "media", "prefetch", "config", "cores", "digest",
     "memory"},
    {"streams"},
    {"episode"},
    {"recording"},
    {"registry"},
    {"store"},
    {"align"},
    {"annotations", "checks", "exporters", "loaders", "phases", "quality", "simulate", "sync",
     "testing"},
    {"conversion"},
    {"cli"},
]  # fmt: skip
#: Siblings that do import each other, each with its reason in docs/architecture.md.
ALLOWED: set[tuple[str, str]] = set()
_RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def _modules() -> Iterator[tuple[str, str, Path]]:
    """(package, dotted module, file) of every module."""
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            relative = file.relative_to(folder).with_suffix("")
            parts = [p for p in relative.parts if p != "__init__"]
            yield package, ".".join([package, *parts]), file


def _imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Imported modules, and whether the import runs when the module is imported."""
    tree = ast.parse(file.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, id(node) in top


def test_packages_import_downwards() -> None:
    allowed = {
        "mmdata_schema": {"mmdata_schema"},
        "mmdata": {"mmdata", "mmdata_schema"},
        "mmdata_converters": {"mmdata", "mmdata_schema", "mmdata_converters"},
        "mmdata_viewer": {"mmdata", "mmdata_schema", "mmdata_viewer"},
    }
    wrong = [
        f"{module} imports {name}"
        for package, module, file in _modules()
        for name, _ in _imports(file)
        if name.split(".")[0] in PACKAGES and name.split(".")[0] not in allowed[package]
    ]
    assert wrong == []


def test_parts_of_the_core_import_downwards() -> None:
    wrong = []
    for package, module, file in _modules():
        parts = module.split(".")
        if package != "mmdata" or len(parts) < 2 or parts[1] == "__init__":
            continue
        for name, _ in _imports(file):
            target = name.split(".")
            if target[0] != "mmdata" or len(target) < 2 or target[1] == parts[1]:
                continue
            if target[1] not in _RANK:
                continue
            same = _RANK[target[1]] == _RANK[parts[1]]
            if _RANK[target[1]] > _RANK[parts[1]] or (
                same and (parts[1], target[1]) not in ALLOWED
            ):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_every_part_of_the_core_has_a_layer() -> None:
    found = {
        p.stem for p in (ROOT / "mmdata").iterdir()
        if (p.suffix == ".py" or (p / "__init__.py").exists()) and p.stem != "__init__"
    }  # fmt: skip
    assert found <= set(_RANK)


def test_only_the_store_uses_h5py() -> None:
    users = {
        module
        for package, module, file in _modules()
        for name, _ in _imports(file)
        if name.split(".")[0] == "h5py"
    }
    known = {"mmdata.testing.converters"}  # the contract suite writes foreign files
    outside = {m for m in users if not m.startswith(("mmdata.store", "mmdata_converters."))}
    assert outside <= known


def test_converters_use_the_contract_only() -> None:
    """Neither each other nor the store."""
    wrong = []
    for package, module, file in _modules():
        if package != "mmdata_converters":
            continue
        own = module.split(".")[1] if module.count(".") else ""
        for name, _ in _imports(file):
            target = name.split(".")
            if target[:2] == ["mmdata", "store"]:
                wrong.append(f"{module} imports {name}")
            shared = len(target) > 1 and target[1].startswith("_")
            if target[0] == package and len(target) > 1 and target[1] != own and not shared:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("heavy", ["torch", "ray", "open3d"])
def test_heavy_packages_load_on_use_only(heavy: str) -> None:
    home = {"torch": "mmdata.loaders.torch", "ray": "mmdata.loaders.ray"}.get(heavy)
    at_top = {
        module
        for _, module, file in _modules()
        for name, top in _imports(file)
        if top and name.split(".")[0] == heavy
    }
    assert at_top <= {home}


def test_no_init_files_in_the_plain_folders() -> None:
    for folder in ("converters", "annotation_schema", "viewer"):
        assert not (ROOT / folder / "__init__.py").exists()
