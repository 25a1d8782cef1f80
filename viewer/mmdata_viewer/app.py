"""The ASGI application: page, sample data, annotations."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from mmdata.errors import MissingDependencyError, MmdataError
from mmdata_viewer.api_data import DataApi
from mmdata_viewer.api_labels import LabelApi
from mmdata_viewer.background import Background
from mmdata_viewer.catalog import Catalog
from mmdata_viewer.errors import ViewerError, describe
from mmdata_viewer.hub import Hub
from mmdata_viewer.journal import Journal
from mmdata_viewer.opened import Pool
from mmdata_viewer.security import LOOPBACK, Guard
from mmdata_viewer.workspace import Workspace

STATIC = Path(__file__).parent / "static"
log = logging.getLogger("mmdata.viewer")


def make_app(
    catalog: Catalog,
    journal: Journal,
    *,
    hosts: Iterable[str] = LOOPBACK,
    token: str | None = None,
    background: Background | None = None,
) -> ASGIApp:
    """The viewer's application over the episodes of a catalog.

    hosts: names it answers to. token: asked of everybody when given. background: where checks
    run; whoever passes one closes it.

    Raises MissingDependencyError when the page was never built (a source tree without an install).
    """
    if not (STATIC / "index.html").exists():
        raise MissingDependencyError("mmdata[viewer]", "viewer", "the viewer's page")
    pool = Pool(catalog)
    workspace = Workspace(journal)
    labels = LabelApi(pool, workspace, Hub(), background or Background())
    routes = [
        *DataApi(pool).routes(),
        *labels.routes(),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/", _page),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            MmdataError: _known_error,
            HTTPException: _http_error,
            Exception: _damaged,
        },
    )
    return Guard(_Caught(app), hosts, token)


class _Caught:
    """Keeps what Starlette re-raises after answering 500 out of the server's log: `_damaged` has
    logged it in one line already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # answered by _damaged; see the class
            log.debug("handled: %r", error)


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


async def _known_error(request: Request, error: Exception) -> Response:
    status, text = describe(error)
    facts = error.facts if isinstance(error, ViewerError) else {}
    return JSONResponse({"error": text, **facts}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _damaged(request: Request, error: Exception) -> Response:
    """A damaged or hostile file: the page says so, and the server goes on."""
    log.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    status, text = describe(error)
    return JSONResponse({"error": text}, status)
