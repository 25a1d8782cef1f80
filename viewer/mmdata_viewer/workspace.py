"""Layers of all episodes under one root: read, edited, published, hidden where blind."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import mmdata.annotations as files
from mmdata import __version__
from mmdata.annotations import RevisionConflictError
from mmdata.errors import MmdataError
from mmdata_schema import (
    COLLECTIONS,
    Layer,
    Provenance,
    Review,
    SchemaError,
    Software,
    write_layer,
)
from mmdata_viewer.errors import BadRequestError, ConflictError, NotThereError, RefusedError
from mmdata_viewer.journal import Journal, Operation
from mmdata_viewer.layers import LayerState
from mmdata_viewer.opened import Opened

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DONE = ("review", "accepted")


def layer_name(user: str) -> str:
    """The layer a user writes to unless they choose another one."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", user).strip("-_")[:64]
    return name or "annotator"


class Workspace:
    """What users see and change. Every method may be called from any thread."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._lock = threading.RLock()
        self._states: dict[tuple[str, str], LayerState] = {}

    # -- looking -----------------------------------------------------------------------------

    def listed(self, opened: Opened, user: str) -> list[dict[str, Any]]:
        """Layers of an episode with who made them, their state, and whether they can be edited."""
        with self._lock:
            rows: dict[str, dict[str, Any]] = {}
            for entry in files.list_layers(opened.entry.path):
                rows[entry.name] = {
                    "name": entry.name,
                    "author": entry.author,
                    "state": entry.review_state,
                    "counts": entry.counts or {},
                    "problem": entry.problem,
                    "embedded": entry.place != "sidecar",
                }
            for name in self.journal.layers(opened.entry.name):
                state = self._state(opened, name)
                rows[name] = {
                    "name": name,
                    "author": state.layer.provenance.author,
                    "state": str(state.layer.review_state),
                    "counts": _counts(state.layer),
                    "problem": None,
                    "embedded": False,
                    "revision": state.revision,
                    "unpublished": state.unpublished(),
                }
            hidden = self._hidden(opened, user, {n: r["state"] for n, r in rows.items()})
            return [
                {"name": name, "hidden": True} if name in hidden else row
                for name, row in sorted(rows.items())
            ]

    def read(self, opened: Opened, name: str, user: str) -> tuple[Layer, LayerState | None]:
        """A layer, and its state where it is being edited. RefusedError while it is blind."""
        with self._lock:
            self._refuse_hidden(opened, name, user)
            if name in self.journal.layers(opened.entry.name):
                state = self._state(opened, name)
                return state.layer, state
            return self._from_file(opened, name), None

    def visible(self, opened: Opened, user: str) -> dict[str, Layer]:
        """All layers a user may see, by name; broken ones are left out."""
        layers = {}
        for row in self.listed(opened, user):
            if not row.get("hidden") and not row.get("problem"):
                layers[row["name"]] = self.read(opened, row["name"], user)[0]
        return layers

    def seen_by(self, opened: Opened, name: str, users: set[str]) -> set[str]:
        """Those of some users from whom a layer is not hidden."""
        seen = set()
        with self._lock:
            for user in users:
                try:
                    self._refuse_hidden(opened, name, user)
                except RefusedError:
                    continue
                seen.add(user)
        return seen

    # -- changing ----------------------------------------------------------------------------

    def open(self, opened: Opened, name: str, user: str) -> LayerState:
        """A layer for editing: continued from the journal, from its file, or begun."""
        if not _NAME.fullmatch(name):
            raise BadRequestError(f"{name!r} is no layer name: letters, digits, '_' and '-'")
        with self._lock:
            self._refuse_hidden(opened, name, user)
            if name in opened.episode.annotations:
                raise RefusedError(
                    f"layer {name!r} is embedded in the episode and cannot be edited"
                )
            if self.journal.base(opened.entry.name, name) is None:
                try:
                    layer = files.read_episode_layer(opened.entry.path, name)
                except MmdataError as error:
                    if files.layer_path(opened.entry.path, name).exists():
                        raise RefusedError(f"layer {name!r} cannot be read: {error}") from error
                    layer = self._begun(opened, name, user)
                self.journal.set_base(opened.entry.name, name, write_layer(layer))
            return self._state(opened, name)

    def change(
        self, opened: Opened, name: str, user: str, act: Callable[[LayerState], Operation]
    ) -> tuple[Operation, LayerState]:
        """Run one edit, undo or redo on a layer under the lock."""
        with self._lock:
            state = self.open(opened, name, user)
            if str(state.layer.review_state) == "accepted":
                raise RefusedError(f"layer {name!r} is accepted; reopen it (QA) before editing")
            return act(state), state

    def review(
        self, opened: Opened, name: str, user: str, to: str, note: str | None, base: int
    ) -> tuple[Operation, LayerState]:
        """Advance the review of a layer. BadRequestError for a step that is not allowed."""
        with self._lock:
            state = self.open(opened, name, user)
            try:
                after = (state.layer.review or Review()).advance(to, user, time.time_ns(), note)
            except SchemaError as error:
                raise BadRequestError(str(error)) from error
            change = {"collection": "layer", "id": "review", "after": after.to_dict()}
            return state.edit(user, base, [change], None), state

    def publish(self, opened: Opened, name: str, user: str) -> tuple[Layer, LayerState]:
        """Write a layer beside its episode. ConflictError when the file was changed by others."""
        with self._lock:
            state = self.open(opened, name, user)
            expected = state.published.revision
            provenance = state.layer.provenance.edit(modified_unix_ns=time.time_ns())
            path = files.layer_path(opened.entry.path, name)
            try:
                layer = state.layer.edit(provenance=provenance)
                written = files.write_layer_file(path, layer, expected)
            except RevisionConflictError as error:
                raise ConflictError(
                    f"{path.name} is at revision {error.found}, this layer started from "
                    f"{error.expected}: merge it first",
                    merge=True,
                ) from error
            state.record_publish(user, written)
            return written, state

    def merge(self, opened: Opened, name: str, user: str) -> tuple[Operation, list[str]]:
        """Take over changes that others made to a layer's file; ids changed by both keep ours."""
        with self._lock:
            state = self.open(opened, name, user)
            return state.merge(user, files.read_episode_layer(opened.entry.path, name))

    # -- internals ---------------------------------------------------------------------------

    def _state(self, opened: Opened, name: str) -> LayerState:
        key = (opened.entry.name, name)
        if key not in self._states:
            self._states[key] = LayerState(self.journal, *key)
        return self._states[key]

    def _begun(self, opened: Opened, name: str, user: str) -> Layer:
        tool = Software(name="mmdata view", version=__version__)
        who = Provenance(author=user, tool=tool, created_unix_ns=time.time_ns())
        return Layer(
            episode_id=opened.episode.episode_id,
            name=name,
            provenance=who,
            reference_clock=opened.episode.reference_clock,
        )

    def _from_file(self, opened: Opened, name: str) -> Layer:
        if name not in {entry.name for entry in files.list_layers(opened.entry.path)}:
            raise NotThereError(f"{opened.entry.name} has no layer {name!r}")
        return files.read_episode_layer(opened.entry.path, name)

    def _hidden(self, opened: Opened, user: str, states: dict[str, Any]) -> set[str]:
        """Layers of the other blind annotators, until a user's own work is handed in."""
        assigned = self.journal.assignment(opened.entry.name)
        if assigned is None or user not in assigned[0]:
            return set()
        if states.get(layer_name(user)) in _DONE:
            return set()
        return {layer_name(other) for other in assigned[0] if other != user} & set(states)

    def _refuse_hidden(self, opened: Opened, name: str, user: str) -> None:
        assigned = self.journal.assignment(opened.entry.name)
        if assigned is None or user not in assigned[0] or name == layer_name(user):
            return
        if name in {layer_name(other) for other in assigned[0]}:
            own = layer_name(user)
            known = own in self.journal.layers(opened.entry.name)
            state = str(self._state(opened, own).layer.review_state) if known else "draft"
            if state not in _DONE:
                raise RefusedError(f"layer {name!r} is hidden until you hand in your own")


def _counts(layer: Layer) -> dict[str, int]:
    return {name: len(getattr(layer, name)) for name in COLLECTIONS if getattr(layer, name)}
