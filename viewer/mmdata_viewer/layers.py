"""One layer being edited: its document, its operations, undo and redo, conflicts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mmdata_schema import (
    COLLECTIONS,
    Layer,
    SchemaError,
    collection_of,
    parse_annotation,
    read_layer,
    write_layer,
)
from mmdata_viewer.errors import BadRequestError, ConflictError, NotThereError
from mmdata_viewer.journal import Item, Journal, Operation

#: Pseudo-collection of items that change a field of the layer itself.
LAYER = "layer"
LAYER_FIELDS = ("review", "taxonomy")
MOST_ITEMS = 5000


class LayerState:
    """The layer as the journal says it is. Callers hold the workspace's lock."""

    def __init__(self, journal: Journal, episode: str, name: str) -> None:
        document = journal.base(episode, name)
        if document is None:
            raise NotThereError(f"layer {name!r} was never opened for editing")
        self._journal, self._episode, self.name = journal, episode, name
        self.layer = read_layer(document)
        #: What was last written to, or read from, the layer's file; what a publish starts from.
        self.published = self.layer
        self.revision = 0
        self.operations: list[Operation] = []
        #: Annotation -> revision of the operation that touched it last.
        self._touched: dict[str, int] = {}
        self._undo: dict[str, list[int]] = {}
        self._redo: dict[str, list[int]] = {}
        self._requests: dict[str, Operation] = {}
        for operation in journal.operations(episode, name):
            self._take(operation)

    # -- looking -----------------------------------------------------------------------------

    def hash(self) -> str:
        """SHA-256 of the layer's canonical JSON."""
        return hashlib.sha256(write_layer(self.layer).encode()).hexdigest()

    def unpublished(self) -> bool:
        """Whether there is anything a publish would write."""
        return self.layer != self.published

    def history(self, annotation_id: str) -> list[Operation]:
        """Operations that touched an annotation, with only its item."""
        return [
            replace(o, items=tuple(i for i in o.items if i.id == annotation_id))
            for o in self.operations
            if any(i.id == annotation_id for i in o.items)
        ]

    def can_undo(self, user: str) -> bool:
        return bool(self._undo.get(user))

    def can_redo(self, user: str) -> bool:
        return bool(self._redo.get(user))

    # -- changing ----------------------------------------------------------------------------

    def edit(
        self, user: str, base: int, changes: list[dict[str, Any]], request: str | None
    ) -> Operation:
        """Apply changes ({collection, id, after}) all or none.

        base: the revision the author looked at. ConflictError when somebody else touched one of the
        annotations since, with their state in the facts. A request that was answered before gets
        the same answer again.
        """
        if request is not None and request in self._requests:
            return self._requests[request]
        if not 0 <= base <= self.revision:
            raise BadRequestError(f"base revision {base}; the layer is at {self.revision}")
        if not changes or len(changes) > MOST_ITEMS:
            raise BadRequestError(
                f"an operation holds 1 to {MOST_ITEMS} changes, not {len(changes)}"
            )
        items = [self._item(change) for change in changes]
        if len({(i.collection, i.id) for i in items}) != len(items):
            raise BadRequestError("one operation changes an annotation twice")
        self._refuse_stale(items, base)
        return self._append(user, base, "edit", None, items, request)

    def undo(self, user: str, request: str | None = None) -> Operation:
        """Take back the user's last operation that still stands."""
        return self._reverse(user, "undo", self._undo, request)

    def redo(self, user: str, request: str | None = None) -> Operation:
        """Apply again what the user took back last."""
        return self._reverse(user, "redo", self._redo, request)

    def record_publish(self, user: str, written: Layer) -> Operation:
        """Note that the layer was written to its file as `written`."""
        facts = {"revision": written.revision, "base_revision": written.base_revision}
        note = Item(LAYER, "published", None, {**facts, "document": write_layer(written)})
        return self._append(user, self.revision, "publish", None, [note], None)

    def merge(self, user: str, theirs: Layer) -> tuple[Operation, list[str]]:
        """Take over what changed in the layer's file since it was last read or published.

        Annotations changed on both sides keep ours; their ids are returned.
        """
        base, ours, them = self.published.by_id(), self.layer.by_id(), theirs.by_id()
        items, both = [], []
        for id in sorted(set(base) | set(them)):
            if base.get(id) == them.get(id) or ours.get(id) == them.get(id):
                continue
            if ours.get(id) != base.get(id):
                both.append(id)
                continue
            after = them[id].to_dict() if id in them else None
            items.append(
                Item(collection_of(ours.get(id) or them[id]), id, _json(ours.get(id)), after)
            )
        facts = {"revision": theirs.revision, "base_revision": theirs.base_revision}
        note = Item(LAYER, "published", None, {**facts, "document": write_layer(theirs)})
        return self._append(user, self.revision, "merge", None, [*items, note], None), both

    # -- internals ---------------------------------------------------------------------------

    def _item(self, change: dict[str, Any]) -> Item:
        collection, id, after = (change.get(k) for k in ("collection", "id", "after"))
        if not isinstance(collection, str) or not isinstance(id, str):
            raise BadRequestError("a change names a collection and an id")
        if after is not None and not isinstance(after, dict):
            raise BadRequestError("`after` is an annotation, or null to remove it")
        if collection == LAYER:
            if id not in LAYER_FIELDS:
                raise BadRequestError(f"of a layer, {' and '.join(LAYER_FIELDS)} can be changed")
            return Item(LAYER, id, _json(getattr(self.layer, id)), after)
        if collection not in COLLECTIONS:
            raise BadRequestError(
                f"no collection {collection!r}; there are {', '.join(COLLECTIONS)}"
            )
        current = self.layer.get(id)
        if after is not None:
            try:
                parsed = parse_annotation(collection, after)
            except SchemaError as error:
                raise BadRequestError(str(error)) from error
            if parsed.id != id:
                raise BadRequestError(f"change of {id!r} carries the id {parsed.id!r}")
            after = parsed.to_dict()
        elif current is None:
            raise self._gone(collection, id)
        if current is not None and collection_of(current) != collection:
            raise BadRequestError(f"id {id!r} is used in {collection_of(current)}")
        return Item(collection, id, _json(current), after)

    def _gone(self, collection: str, id: str) -> ConflictError:
        who = self._last(id)
        message = f"{id} is not there (any more)"
        if who is not None:
            message = f"{who.user} removed {id} in the meantime"
        return ConflictError(
            message, conflicts=[{"collection": collection, "id": id, "theirs": None}]
        )

    def _last(self, id: str) -> Operation | None:
        at = self._touched.get(id)
        return None if at is None else self.operations[at - 1]

    def _refuse_stale(self, items: Iterable[Item], base: int) -> None:
        stale = [i for i in items if self._touched.get(self._key(i), 0) > base]
        if stale:
            last = self._last(self._key(stale[0]))
            who = last.user if last else "somebody"
            raise ConflictError(
                f"{who} changed {stale[0].id} after you had looked at it",
                user=who,
                conflicts=[
                    {"collection": i.collection, "id": i.id, "theirs": i.before, "mine": i.after}
                    for i in stale
                ],
            )

    def _reverse(
        self, user: str, kind: str, stacks: dict[str, list[int]], request: str | None
    ) -> Operation:
        if request is not None and request in self._requests:
            return self._requests[request]
        if not stacks.get(user):
            raise NotThereError(f"nothing to {kind}")
        target = stacks[user][-1]
        items = [i.inverse() for i in self.operations[target - 1].items]
        if kind == "redo":
            items = [i.inverse() for i in items]
        for item in items:
            if item.before != self._now(item):
                last = self._last(self._key(item))
                who = last.user if last else "somebody"
                raise ConflictError(
                    f"cannot {kind}: {who} changed {item.id} since",
                    user=who,
                    conflicts=[
                        {
                            "collection": item.collection,
                            "id": item.id,
                            "theirs": self._now(item),
                            "mine": item.after,
                        }
                    ],
                )
        return self._append(user, self.revision, kind, target, items[::-1], request)

    def _now(self, item: Item) -> dict[str, Any] | None:
        if item.collection == LAYER:
            return _json(getattr(self.layer, item.id))
        return _json(self.layer.get(item.id))

    @staticmethod
    def _key(item: Item) -> str:
        return f"{LAYER}:{item.id}" if item.collection == LAYER else item.id

    def _append(
        self,
        user: str,
        base: int,
        kind: str,
        target: int | None,
        items: list[Item],
        request: str | None,
    ) -> Operation:
        operation = Operation(
            self.revision + 1, base, user, time.time_ns(), kind, target, tuple(items), request
        )
        applied = self._applied(operation)  # refuses before anything is written
        self._journal.append(self._episode, self.name, operation)
        self._take(operation, applied)
        return operation

    def _applied(self, operation: Operation) -> Layer:
        layer = self.layer
        for item in operation.items:
            if item.collection == LAYER:
                if item.id in LAYER_FIELDS:
                    try:
                        layer = layer.edit(**{item.id: item.after})
                    except SchemaError as error:
                        raise BadRequestError(str(error)) from error
            elif item.after is None:
                layer = layer.remove(item.id)
            else:
                layer = layer.put(parse_annotation(item.collection, item.after))
        return layer

    def _take(self, operation: Operation, applied: Layer | None = None) -> None:
        self.layer = applied if applied is not None else self._applied(operation)
        self.revision = operation.revision
        self.operations.append(operation)
        for item in operation.items:
            self._touched[self._key(item)] = operation.revision
            if item.collection == LAYER and item.id == "published" and item.after is not None:
                self.published = read_layer(item.after["document"])
                numbers = {k: item.after[k] for k in ("revision", "base_revision")}
                self.layer = self.layer.edit(**numbers, provenance=self.published.provenance)
        if operation.request is not None:
            self._requests[operation.request] = operation
        undo = self._undo.setdefault(operation.user, [])
        redo = self._redo.setdefault(operation.user, [])
        if operation.kind == "edit":
            undo.append(operation.revision)
            redo.clear()
        elif operation.kind == "undo":
            redo.append(undo.pop())
        elif operation.kind == "redo":
            undo.append(redo.pop())


def _json(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    out: dict[str, Any] = value.to_dict()
    return out
