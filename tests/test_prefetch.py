"""Running ahead: order, bound, errors, stopping early."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.prefetch import prefetch


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 100))
def test_order_and_completeness(sizes: list[int], limit: int) -> None:
    assert list(prefetch(sizes, lambda s: s, limit)) == sizes


def test_never_further_ahead_than_the_limit() -> None:
    made, taken, worst = 0, 0, 0

    def produce():
        nonlocal made
        for _ in range(200):
            made += 1
            yield 10

    for _ in prefetch(produce(), lambda s: s, 50):
        time.sleep(0.0005)
        taken += 1
        worst = max(worst, made - taken)
    # five items wait, one is being made, one has just been taken
    assert worst <= 7
    assert taken == 200


def test_an_error_comes_after_the_items_before_it() -> None:
    def produce():
        yield from (1, 2)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        for item in prefetch(produce(), lambda s: 1):
            seen.append(item)
    assert seen == [1, 2]


def test_stopping_early_ends_the_thread() -> None:
    before = threading.active_count()
    iterator = prefetch(iter(int, 1), lambda _: 1, 3)
    next(iterator)
    iterator.close()
    assert threading.active_count() == before
