"""Every exception mmdata raises on purpose.

A message says what went wrong, where, and what to do next. Operating-system errors
(`FileNotFoundError`, `PermissionError`, `OSError` on a full disk) pass through unwrapped.
The command line prints any of these as one line; a traceback there means a bug.
"""

from __future__ import annotations


class MmdataError(Exception):
    """Base of all errors raised by mmdata."""


class FormatError(MmdataError):
    """A file is not what it should be: not an episode, damaged, or of a newer version."""


class ConversionError(MmdataError):
    """A recording cannot be converted. The message is the reason written to the quarantine."""


class ConfigError(MmdataError):
    """A configuration or command-line value makes no sense."""


class SchemaError(MmdataError):
    """An annotation document does not follow the annotation schema."""


class SyncError(MmdataError):
    """A synchronisation method was asked for something the data cannot give."""


class MissingDependencyError(MmdataError):
    """An optional package is needed; the message holds the command that installs it."""

    def __init__(self, package: str, extra: str | None = None, purpose: str = "this") -> None:
        command = f"pip install 'mmdata[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"{purpose} needs the package {package!r}: run `{command}`")
        self.package = package
        self.extra = extra
