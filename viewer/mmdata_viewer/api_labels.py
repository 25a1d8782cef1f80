"""Layers, edits, checks, QA and people over HTTP, and the WebSocket that tells about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from mmdata_viewer import findings, points
from mmdata_viewer.agreement import agreement
from mmdata_viewer.background import Background
from mmdata_viewer.errors import BadRequestError
from mmdata_viewer.hub import Hub
from mmdata_viewer.journal import Operation
from mmdata_viewer.layers import LayerState
from mmdata_viewer.opened import Opened, Pool
from mmdata_viewer.proposals import change_points
from mmdata_viewer.wire import from_wire, to_wire
from mmdata_viewer.workspace import Workspace, layer_name

T = TypeVar("T")
_MOST_USER = 64
_MOST_PREFERENCES = 64 << 10


class LabelApi:
    """Endpoints that read and change annotations. Who asks is said by the header `x-user`.

    That name is a signature, not a proof: whoever holds the token may sign as anybody.
    """

    def __init__(self, pool: Pool, workspace: Workspace, hub: Hub, background: Background) -> None:
        self.pool, self.workspace, self.hub = pool, workspace, hub
        self.background = background
        self.taxonomy = findings.vocabulary()
        self._checks: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
        self._changepoints: dict[tuple[str, str], Any] = {}

    def routes(self) -> list[BaseRoute]:
        e = "/api/e/{key}"
        layer = e + "/layers/{layer}"
        return [
            Route("/api/taxonomy", self.get_taxonomy),
            Route("/api/preferences", self.preferences, methods=["GET", "PUT"]),
            Route(e + "/layers", self.layers),
            Route(layer, self.layer),
            Route(layer + "/open", self.open, methods=["POST"]),
            Route(layer + "/edit", self.edit, methods=["POST"]),
            Route(layer + "/undo", self.undo, methods=["POST"]),
            Route(layer + "/redo", self.redo, methods=["POST"]),
            Route(layer + "/review", self.review, methods=["POST"]),
            Route(layer + "/publish", self.publish, methods=["POST"]),
            Route(layer + "/merge", self.merge, methods=["POST"]),
            Route(layer + "/history/{id}", self.history),
            Route(layer + "/findings", self.layer_findings),
            Route(e + "/findings", self.findings),
            Route(e + "/changepoints", self.changepoints),
            Route(e + "/assignment", self.assignment, methods=["GET", "PUT"]),
            Route(e + "/agreement", self.agreement),
            Route(e + "/count", self.count, methods=["POST"]),
            Route(e + "/fit", self.fit, methods=["POST"]),
            Route("/api/queue", self.queue),
            WebSocketRoute("/ws/{key}", self.socket),
        ]

    # -- looking -----------------------------------------------------------------------------

    def get_taxonomy(self, request: Request) -> Response:
        return JSONResponse(self.taxonomy.model_dump(mode="json"))

    def layers(self, request: Request) -> Response:
        user = _user(request)
        with self._use(request) as opened:
            rows = self.workspace.listed(opened, user)
            return JSONResponse({"layers": rows, "own": layer_name(user)})

    def layer(self, request: Request) -> Response:
        user = _user(request)
        with self._use(request) as opened:
            layer, state = self.workspace.read(opened, request.path_params["layer"], user)
            document = to_wire(
                layer.model_dump(mode="json", exclude_defaults=True), opened.start_ns
            )
            return JSONResponse({"document": document, **_standing(state, user)})

    def history(self, request: Request) -> Response:
        user, path = _user(request), request.path_params
        with self._use(request) as opened:
            _, state = self.workspace.read(opened, path["layer"], user)
            rows = state.history(path["id"]) if state else []
            return JSONResponse({"operations": [_operation(o, opened.start_ns) for o in rows]})

    def layer_findings(self, request: Request) -> Response:
        """Label rules on one layer: quick, asked after every edit."""
        user = _user(request)
        with self._use(request) as opened:
            layer, _ = self.workspace.read(opened, request.path_params["layer"], user)
            rows = findings.label_findings(layer, self.taxonomy)
            return JSONResponse({"findings": to_wire(rows, opened.start_ns)})

    def findings(self, request: Request) -> Response:
        """All rules of `mmdata check`; kept until the file or a layer changes."""
        user = _user(request)
        with self._use(request) as opened:
            layers = self.workspace.visible(opened, user)
        documents = {name: layer.model_dump(mode="json") for name, layer in layers.items()}
        state = (opened.version, documents)
        known = self._checks.get(opened.entry.key)
        if known is None or known[0] != state:
            rows = self.background.run(findings.check_findings, opened.entry.path, documents)
            self._checks[opened.entry.key] = known = (state, rows)
        return JSONResponse({"findings": to_wire(known[1], opened.start_ns)})

    def changepoints(self, request: Request) -> Response:
        with self._use(request) as opened:
            key = (opened.entry.key, opened.version)
        if key not in self._changepoints:
            found = self.background.run(change_points, opened.entry.path)
            self._changepoints[key] = to_wire(found, opened.start_ns)
        return JSONResponse({"points": self._changepoints[key]})

    def agreement(self, request: Request) -> Response:
        """How far two layers agree. Query: a, b."""
        user = _user(request)
        names = [request.query_params.get(x, "") for x in ("a", "b")]
        with self._use(request) as opened:
            a, b = (self.workspace.read(opened, name, user)[0] for name in names)
            return JSONResponse(to_wire(agreement(a, b), opened.start_ns))

    def queue(self, request: Request) -> Response:
        """Layers of all episodes that wait for a review, and labelled episodes that cannot be
        opened, with the reason."""
        user, rows, unreadable = _user(request), [], []
        for entry in self.pool.catalog.entries():
            if not self.workspace.journal.layers(entry.name):
                continue
            try:
                with self.pool.use(entry.key) as opened:
                    listed = self.workspace.listed(opened, user)
            except Exception as error:  # anything can come out of a damaged file
                reason = str(error) or type(error).__name__
                unreadable.append({"episode": entry.name, "reason": reason})
                continue
            rows += [
                {"key": entry.key, "episode": entry.name, **row}
                for row in listed
                if row.get("state") == "review"
            ]
        return JSONResponse({"queue": rows, "unreadable": unreadable})

    # -- changing ----------------------------------------------------------------------------

    async def open(self, request: Request) -> Response:
        await _body(request)
        user = _user(request)

        def act(opened: Opened) -> dict[str, Any]:
            state = self.workspace.open(opened, request.path_params["layer"], user)
            return _standing(state, user)

        return JSONResponse(await self._run(request, act))

    async def edit(self, request: Request) -> Response:
        body = await _body(request)
        changes, base = body.get("changes"), body.get("base")
        if not isinstance(changes, list) or not all(isinstance(c, dict) for c in changes):
            raise BadRequestError("`changes` is a list of {collection, id, after}")
        if not isinstance(base, int):
            raise BadRequestError("`base` is the revision the edit was made on")
        user, name = _user(request), _request_id(body)

        def act(opened: Opened) -> Any:
            try:
                absolute = from_wire(changes, opened.start_ns)
            except ValueError as error:
                raise BadRequestError(f"malformed change: {error}") from error
            return self._changed(
                opened, request, user, lambda s: s.edit(user, base, absolute, name)
            )

        return await self._tell(request, act)

    async def undo(self, request: Request) -> Response:
        body, user = await _body(request), _user(request)
        name = _request_id(body)
        return await self._tell(
            request, lambda o: self._changed(o, request, user, lambda s: s.undo(user, name))
        )

    async def redo(self, request: Request) -> Response:
        body, user = await _body(request), _user(request)
        name = _request_id(body)
        return await self._tell(
            request, lambda o: self._changed(o, request, user, lambda s: s.redo(user, name))
        )

    async def review(self, request: Request) -> Response:
        body, user = await _body(request), _user(request)
        to, note, base = body.get("state"), body.get("note"), body.get("base")
        if not isinstance(to, str) or not isinstance(base, int):
            raise BadRequestError("`state` and `base` are needed")
        layer = request.path_params["layer"]

        def act(opened: Opened) -> Any:
            done = self.workspace.review(opened, layer, user, to, note or None, base)
            return done, opened.start_ns

        return await self._tell(request, act)

    async def publish(self, request: Request) -> Response:
        await _body(request)
        user, name = _user(request), request.path_params["layer"]

        def act(opened: Opened) -> Any:
            written, state = self.workspace.publish(opened, name, user)
            return (state.operations[-1], state), opened.start_ns, {"published": written.revision}

        return await self._tell(request, act)

    async def merge(self, request: Request) -> Response:
        await _body(request)
        user, name = _user(request), request.path_params["layer"]

        def act(opened: Opened) -> Any:
            operation, both = self.workspace.merge(opened, name, user)
            state = self.workspace.open(opened, name, user)
            return (operation, state), opened.start_ns, {"kept_ours": both}

        return await self._tell(request, act)

    async def preferences(self, request: Request) -> Response:
        user, journal = _user(request), self.workspace.journal
        if request.method == "GET":
            return JSONResponse(await run_in_threadpool(journal.preferences, user))
        body = await _body(request)
        if len(json.dumps(body)) > _MOST_PREFERENCES:
            raise BadRequestError("preferences are too long")
        await run_in_threadpool(journal.set_preferences, user, body)
        return JSONResponse({})

    async def assignment(self, request: Request) -> Response:
        journal = self.workspace.journal
        body = await _body(request) if request.method == "PUT" else None

        def act(opened: Opened) -> dict[str, Any]:
            if body is not None:
                people, judge = body.get("annotators"), body.get("adjudicator")
                if not isinstance(people, list) or not all(isinstance(p, str) for p in people):
                    raise BadRequestError("`annotators` is a list of names")
                journal.assign(opened.entry.name, people, judge if isinstance(judge, str) else None)
            assigned = journal.assignment(opened.entry.name)
            people, judge = assigned or ([], None)
            return {"annotators": people, "adjudicator": judge}

        answer = await self._run(request, act)
        if body is not None:
            # What was seen may be hidden now, and the other way round.
            self.hub.broadcast(request.path_params["key"], {"type": "assignment"})
        return JSONResponse(answer)

    async def count(self, request: Request) -> Response:
        """Points of a sample inside a box that is given in the sample's own frame."""
        body = await _body(request)

        def act(opened: Opened) -> dict[str, Any]:
            cloud, box = self._cloud_and_box(opened, body)
            return {"count": points.count_in_box(cloud, *box)}

        return JSONResponse(await self._run(request, act))

    async def fit(self, request: Request) -> Response:
        """The box, in the sample's own frame, fitted to the points near a given one."""
        body = await _body(request)

        def act(opened: Opened) -> dict[str, Any]:
            cloud, box = self._cloud_and_box(opened, body)
            fitted = points.fit_box(cloud, *box)
            if fitted is None:
                return {"box": None}
            center, size, quaternion = (v.tolist() for v in fitted)
            return {
                "box": {"center_m": center, "size_lwh_m": size, "quaternion_wxyz": quaternion},
                "count": points.count_in_box(cloud, *fitted),
            }

        return JSONResponse(await self._run(request, act))

    async def socket(self, socket: WebSocket) -> None:
        user = socket.query_params.get("user", "")[:_MOST_USER] or "annotator"
        await self.hub.serve(socket, socket.path_params["key"], user)

    # -- internals ---------------------------------------------------------------------------

    def _use(self, request: Request) -> Any:
        return self.pool.use(request.path_params["key"])

    async def _run(self, request: Request, act: Callable[[Opened], T]) -> T:
        def locked() -> T:
            with self._use(request) as opened:
                return act(opened)

        return await run_in_threadpool(locked)

    def _changed(
        self,
        opened: Opened,
        request: Request,
        user: str,
        act: Callable[[LayerState], Operation],
    ) -> Any:
        layer = request.path_params["layer"]
        return self.workspace.change(opened, layer, user, act), opened.start_ns

    async def _tell(self, request: Request, act: Callable[[Opened], Any]) -> Response:
        """Answer with the operation made, and tell everybody else who may see the layer."""
        key = request.path_params["key"]
        people = self.hub.people(key)

        def act_and_ask(opened: Opened) -> tuple[Any, set[str]]:
            done = act(opened)
            return done, self.workspace.seen_by(opened, done[0][1].name, people)

        ((operation, state), start_ns, *more), to = await self._run(request, act_and_ask)
        row = _operation(operation, start_ns)
        message = {"type": "operation", "layer": state.name, "operation": row}
        self.hub.broadcast(key, message, to)
        extra = more[0] if more else {}
        return JSONResponse({"operation": row, **_standing(state, _user(request)), **extra})

    def _cloud_and_box(self, opened: Opened, body: dict[str, Any]) -> tuple[Any, list[Any]]:
        stream, i = body.get("stream"), body.get("i")
        if not isinstance(stream, str) or not isinstance(i, int):
            raise BadRequestError("`stream` and `i` name a sample")
        box = [body.get(k) for k in ("center_m", "size_lwh_m", "quaternion_wxyz")]
        for values, n in zip(box, (3, 3, 4), strict=True):
            fine = isinstance(values, list) and len(values) == n
            if not fine or not all(isinstance(v, int | float) for v in values or ()):
                raise BadRequestError("a box has center_m (3), size_lwh_m (3), quaternion_wxyz (4)")
        cloud, _ = points.read_points(opened.stream(stream), i, opened.episode.rig, opened.frames)
        return cloud, box


def _standing(state: LayerState | None, user: str) -> dict[str, Any]:
    if state is None:
        return {"editable": False, "revision": 0}
    return {
        "editable": True,
        "revision": state.revision,
        "hash": state.hash(),
        "can_undo": state.can_undo(user),
        "can_redo": state.can_redo(user),
        "unpublished": state.unpublished(),
    }


def _operation(operation: Operation, start_ns: int) -> dict[str, Any]:
    row = operation.to_dict()
    # The document of a publish is on disk and of no use to a page.
    for item in row["items"]:
        if item["collection"] == "layer" and item["id"] == "published":
            item["after"] = {k: v for k, v in item["after"].items() if k != "document"}
    wired: dict[str, Any] = to_wire(row, start_ns)
    return wired


def _user(request: Request) -> str:
    user = request.headers.get("x-user", "").strip()[:_MOST_USER]
    return user or "annotator"


def _request_id(body: dict[str, Any]) -> str | None:
    name = body.get("request")
    return name[:100] if isinstance(name, str) else None


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError("the body is a JSON object")
    return body


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
