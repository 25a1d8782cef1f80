"""Columns of ranges of rows of Parquet files as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError


class ParquetRows:
    """Rows [start, stop) of a Parquet file. Raises ConversionError when it is damaged."""

    def __init__(self, path: Path, start: int = 0, stop: int | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            # pre_buffer would hold whole row groups of pictures.
            self._file = pq.ParquetFile(path, pre_buffer=False)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise ConversionError(f"{path} is not a readable Parquet file: {error}") from error
        self.start = start
        self.stop = self._file.metadata.num_rows if stop is None else stop
        self.names: list[str] = list(self._file.schema_arrow.names)

    def __len__(self) -> int:
        return self.stop - self.start

    def type_of(self, name: str) -> Any:
        """Arrow type of a column."""
        return self._file.schema_arrow.field(name).type

    def values(self, name: str) -> Any:
        """A column as an Arrow array."""
        import pyarrow as pa

        parts = [part for _, part in self.parts(name)]
        return pa.concat_arrays(parts) if parts else pa.array([], self.type_of(name))

    def parts(self, name: str, rows: int = 4096) -> Iterator[tuple[int, Any]]:
        """(first row, Arrow array) over a column, reading the row groups that hold the rows."""
        import pyarrow as pa

        at = 0
        groups = []
        base = None
        for group in range(self._file.metadata.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            if at < self.stop and at + count > self.start:
                groups.append(group)
                base = at if base is None else base
            at += count
        if base is None:
            return
        try:
            for batch in self._file.iter_batches(rows, row_groups=groups, columns=[name]):
                column = batch.column(0)
                first, last = max(self.start, base), min(self.stop, base + len(column))
                if first < last:
                    yield first - self.start, column.slice(first - base, last - first)
                base += len(column)
        except (pa.ArrowException, OSError) as error:
            raise ConversionError(f"{self.path}: column {name}: {error}") from error

    def numbers(self, name: str) -> NDArray[Any] | None:
        """A numeric column as (n, ...), missing values as NaN; None where it holds no numbers or
        rows of different shapes.
        """
        return numbers_of(self.values(name))

    def close(self) -> None:
        self._file.close()


class ParquetPieces(ParquetRows):
    """Rows that lie in several places, one after the other, as if they were in one."""

    def __init__(self, pieces: Sequence[ParquetRows]) -> None:
        self._pieces = pieces
        self.path = pieces[0].path
        self.names = [n for n in pieces[0].names if all(n in p.names for p in pieces)]

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def type_of(self, name: str) -> Any:
        return self._pieces[0].type_of(name)

    def parts(self, name: str, rows: int = 4096) -> Iterator[tuple[int, Any]]:
        done = 0
        for piece in self._pieces:
            for first, values in piece.parts(name, rows):
                yield done + first, values
            done += len(piece)

    def close(self) -> None:
        for piece in self._pieces:
            piece.close()


def numbers_of(values: Any) -> NDArray[Any] | None:
    """An Arrow array as (n, ...) numbers, None where it is none."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        values, kind = values.storage, values.storage.type
    if pa.types.is_boolean(kind):
        return np.asarray(values.cast("uint8").to_numpy(zero_copy_only=False))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pa.types.is_timestamp(kind):
        return np.asarray(values.cast(pa.timestamp("ns")).cast("int64").to_numpy())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if values.null_count:
            return None
        if pa.types.is_fixed_size_list(kind):
            width = kind.list_size
        else:
            lengths = np.diff(values.offsets.to_numpy())
            if not len(lengths) or (lengths != lengths[0]).any():
                return None
            width = int(lengths[0])
        inner = numbers_of(values.flatten())
        return None if inner is None else inner.reshape(len(values), width, *inner.shape[1:])
    return None
