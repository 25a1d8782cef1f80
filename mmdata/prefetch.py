"""Running an iterator ahead on a thread, within a bound in bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

AHEAD_BYTES = 32 << 20


def prefetch(
    items: Iterable[Item], size_of: Callable[[Item], int], limit_bytes: int = AHEAD_BYTES
) -> Iterator[Item]:
    """Items in their order, made by a thread that is at most limit_bytes (and one item) ahead.

    An exception of the iterator is raised here, after the items before it. When the consumer stops
    early, the thread stops at its next item.
    """
    ready: deque[Item] = deque()
    state = _State()

    def produce() -> None:
        try:
            for item in items:
                size = size_of(item)
                with state.changed:
                    while state.held and state.held + size > limit_bytes and not state.stopped:
                        state.changed.wait()
                    if state.stopped:
                        return
                    ready.append(item)
                    state.held += size
                    state.changed.notify_all()
        except BaseException as error:  # it is raised again on the consumer's side
            state.error = error
        finally:
            if isinstance(items, Generator):
                items.close()
            with state.changed:
                state.done = True
                state.changed.notify_all()

    thread = threading.Thread(target=produce, name="mmdata-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            with state.changed:
                while not ready and not state.done:
                    state.changed.wait()
                if not ready:
                    break
                item = ready.popleft()
                state.held -= size_of(item)
                state.changed.notify_all()
            yield item
        if state.error is not None:
            raise state.error
    finally:
        with state.changed:
            state.stopped = True
            state.changed.notify_all()
        thread.join()


class _State:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.held = 0
        self.done = False
        self.stopped = False
        self.error: BaseException | None = None
