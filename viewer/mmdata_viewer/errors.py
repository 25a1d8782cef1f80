"""What the server answers with when it cannot do what was asked."""

from __future__ import annotations

from typing import Any

from mmdata.errors import MmdataError


class ViewerError(MmdataError):
    """Base; `status` is the HTTP status, `facts` go into the JSON answer."""

    status = 400

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts


class BadRequestError(ViewerError):
    """The request makes no sense."""


class NotThereError(ViewerError):
    """No such episode, stream, sample, layer or operation."""

    status = 404


class ConflictError(ViewerError):
    """Somebody else changed it first; nothing was overwritten."""

    status = 409


class RefusedError(ViewerError):
    """Not allowed for this user or in this state."""

    status = 403


class UnavailableError(ViewerError):
    """It cannot be kept at the moment (a full disk, a locked database): to be sent again."""

    status = 503


def describe(error: Exception) -> tuple[int, str]:
    """HTTP status of an exception and what to say of it.

    Anything can come out of HDF5 and the decoders when a file is damaged or hostile.
    """
    if isinstance(error, MmdataError):
        return error.status if isinstance(error, ViewerError) else 422, str(error)
    text = f"{type(error).__name__}: {error}"[:500]
    return 500, f"this part of the episode cannot be read ({text})"
