"""The viewer: every stream of an episode on one clock, in a browser, with its labels.

`serve` runs it; `make_app` is the ASGI application behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata_viewer.desktop import show_desktop as show_desktop
    from mmdata_viewer.report import render as render
    from mmdata_viewer.server import serve as serve

_HOMES = {"serve": "server", "render": "report", "show_desktop": "desktop"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
