"""The hash of a file that is read on the way: whatever is shown, it is that of the whole file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mmdata import digest
from mmdata.digest import FileHash


@given(
    st.binary(max_size=400),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 120)), max_size=12),
    st.integers(1, 64),
)
def test_any_parts_in_any_order(content: bytes, parts: list[tuple[int, int]], block: int) -> None:
    before, digest._BLOCK_BYTES = digest._BLOCK_BYTES, block
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            path.write_bytes(content)
            running = FileHash(path)
            for position, size in parts:
                if position <= len(content):
                    running.saw(position, content[position : position + size])
            assert running.hexdigest() == blake3(content).hexdigest()
            assert running.hexdigest() == blake3(content).hexdigest(), "asked again"
    finally:
        digest._BLOCK_BYTES = before


def test_what_was_shown_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    running = FileHash(tmp_path / "file")
    running.saw(0, b"abcd")  # not what the file holds, so that it shows where bytes come from
    running.saw(2, b"CDEF")
    assert running.hexdigest() == blake3(b"abcdEF6789").hexdigest()


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    running = FileHash(tmp_path / "none")
    running.saw(0, b"ab")
    with pytest.raises(FileNotFoundError):
        running.hexdigest()
