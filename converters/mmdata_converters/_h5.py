"""HDF5 datasets of other formats: opening, walking, pictures in their several disguises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import ConversionError
from mmdata.media import sniff_image


def open_h5(path: Path) -> Any:
    """An HDF5 file for reading. Raises ConversionError when it is damaged."""
    import h5py

    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConversionError(f"{path} is not a readable HDF5 file: {error}") from error


def is_h5(path: Path) -> bool:
    """Whether a file starts as HDF5 does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def walk(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path below the group, dataset) of everything in it, names in natural order."""
    import h5py

    from mmdata_converters._common import natural

    for name in sorted(group, key=natural):
        item = group.get(name)
        if isinstance(item, h5py.Dataset):
            yield prefix + name, item
        elif isinstance(item, h5py.Group):
            yield from walk(item, f"{prefix}{name}/")


def is_numeric(dataset: Any) -> bool:
    """Whether it holds rows of plain numbers."""
    return dataset.dtype.kind in "iufb" and len(dataset.shape) >= 1


def is_encoded(dataset: Any) -> bool:
    """Whether it looks like one compressed picture per row: bytes, or padded uint8 (T, L)."""
    if len(dataset.shape) == 1:
        return dataset.dtype.kind in "OSV"
    return dataset.dtype == np.uint8 and len(dataset.shape) == 2 and dataset.shape[1] >= 100


def picture_of(dataset: Any) -> Callable[[int], bytes | None]:
    """How to get the compressed picture of a row, without the zeros it is padded with."""

    def get(row: int) -> bytes | None:
        value = dataset[row]
        data = value if isinstance(value, bytes) else np.asarray(value).tobytes()
        if sniff_image(data) == "jpeg":
            end = data.rfind(b"\xff\xd9")
            return data[: end + 2] if end > 0 else data
        if sniff_image(data) == "png":
            end = data.rfind(b"IEND")
            return data[: end + 8] if end > 0 else data
        return data.rstrip(b"\0") or None

    return get


def text_of(value: Any) -> str | None:
    """Text in an attribute or scalar dataset, None where it is none."""
    if value is None:
        return None
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        value = value[()]
    if isinstance(value, np.ndarray) and value.size >= 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes | np.bytes_):
        value = bytes(value).decode("utf-8", errors="replace")
    return str(value).strip() if isinstance(value, str | np.str_) and str(value).strip() else None
