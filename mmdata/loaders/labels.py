"""Annotation columns and filters: what layers and metadata say about ticks and episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.episode import Episode
from mmdata.loaders.spec import LabelSpec, PhaseFilter
from mmdata_schema import Layer, Phase, read_layer

_YES, _NO = ("success", "succeeded", "true", "1", "yes"), ("failure", "failed", "false", "0", "no")


@dataclass
class EpisodeLabels:
    """Layers and metadata of one episode. layers: those embedded and those beside the file."""

    metadata: Mapping[str, Any]
    layers: dict[str, Layer]

    def phases(self, layer: str | None, tier: str | None) -> list[Phase]:
        """Phases of a layer (absent: of all) on a tier (absent: any), by start."""
        if layer is not None and layer not in self.layers:
            return []
        chosen = self.layers.values() if layer is None else [self.layers[layer]]
        found = [p for a in chosen for p in a.phases if tier is None or p.tier == tier]
        return sorted(found, key=lambda p: (p.start_ns, p.end_ns))

    def phase_of(self, stamps: Stamps, spec: LabelSpec | PhaseFilter) -> NDArray[np.int64]:
        """(n,) i8 position of each stamp's phase among the spec's labels, -1 for none of them.

        Where phases of one label set overlap, the one that starts last counts.
        """
        labels: Sequence[str] = spec.classes if isinstance(spec, LabelSpec) else spec.labels
        code = {label: n for n, label in enumerate(labels)}
        result = np.full(len(stamps), -1, np.int64)
        for phase in self.phases(spec.layer, spec.tier):
            inside = (stamps >= phase.start_ns) & (stamps < phase.end_ns)
            result[inside] = code.get(phase.label, -1)
        return result

    def instruction(self, stamp_ns: int, layer: str | None = None) -> str:
        """The instruction at an instant: narrowest caption, else metadata, else ""."""
        found = [
            (c.end_ns - c.start_ns if c.start_ns is not None and c.end_ns is not None else None, c)
            for name, a in self.layers.items()
            if layer in (None, name)
            for c in a.captions
            if c.style == "instruction"
            and (c.start_ns is None or c.end_ns is None or c.start_ns <= stamp_ns < c.end_ns)
        ]
        if found:
            return min(found, key=lambda f: (f[0] is None, f[0] or 0, f[1].id))[1].text
        return str(self.metadata.get("instruction", self.metadata.get("task", "")))

    @property
    def success(self) -> int:
        """1, 0, or -1 when neither the metadata's `outcome` nor a `success` tag says so."""
        value: Any = self.metadata.get("outcome")
        for layer in self.layers.values():
            value = next((t.value for t in layer.tags if t.label in ("success", "outcome")), value)
        text = str(value).lower()
        return 1 if text in _YES else 0 if text in _NO else -1

    @property
    def grade(self) -> str | None:
        """The episode's quality grade: metadata `quality_grade`, or a tag of that label."""
        value = self.metadata.get("quality_grade")
        for layer in self.layers.values():
            value = next((t.value for t in layer.tags if t.label == "quality_grade"), value)
        return None if value is None else str(value)

    def column(self, spec: LabelSpec, tick_ns: Stamps) -> Sequence[Any] | NDArray[Any]:
        """Values of one label column at ticks (T,)."""
        if spec.kind == "phase":
            offsets = spec.offset_ns()
            stamps = (tick_ns[:, None] + offsets).ravel()
            found = self.phase_of(stamps, spec).reshape(len(tick_ns), len(offsets))
            return found[:, 0] if isinstance(spec.at, float | int) else found
        if spec.kind == "instruction":
            return [self.instruction(int(t), spec.layer) for t in tick_ns]
        if spec.kind == "success":
            return np.full(len(tick_ns), self.success, np.int8)
        return [str(self.metadata.get(spec.name or "", ""))] * len(tick_ns)


def sidecars_of(folder: Path) -> dict[str, list[Path]]:
    """Annotation documents in a folder by episode id: `<episode_id>.<layer>.json`."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        episode_id, _, layer = path.name.removesuffix(".json").rpartition(".")
        if path.suffix == ".json" and episode_id and layer:
            found.setdefault(episode_id, []).append(path)
    return found


def read_labels(episode: Episode, sidecars: Sequence[Path] = ()) -> EpisodeLabels:
    """Layers embedded in an episode and those beside it. Raises mmdata_schema.SchemaError."""
    layers = {name: read_layer(text) for name, text in episode.annotations.items()}
    for path in sidecars:
        layers[path.name.removesuffix(".json").rpartition(".")[2]] = read_layer(path.read_bytes())
    return EpisodeLabels(episode.metadata, layers)
