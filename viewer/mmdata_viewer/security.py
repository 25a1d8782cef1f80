"""Who may talk to the server, and what the page may do. Wraps the whole application."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES = 8 << 20
COOKIE = "mmdata_viewer"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Checks Host, Origin, token and body size; adds the security headers.

    hosts: names the server may be addressed by (a page of another site that resolves to this
    machine carries its own name: DNS rebinding). token: needed on every request when given; a
    visit of `/?token=...` turns it into a cookie.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str | None = None) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._problem(scope, headers)
        if scope["type"] == "websocket":
            if problem:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": problem[1]})
                return
            await self._app(scope, receive, send)
            return
        answer: ASGIApp | None = None
        if problem:
            status, text = problem
            answer = (
                JSONResponse({"error": text}, status)
                if scope["path"].startswith("/api/")
                else PlainTextResponse(text, status)
            )
        elif self._token and scope["path"] == "/" and self._query_token(scope):
            redirect = RedirectResponse("/", 303)
            redirect.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", path="/")
            answer = redirect
        await (answer or self._app)(scope, _limited(receive), _with_headers(send))

    def _problem(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = _host_name(headers.get("host", ""))
        if host not in self._hosts:
            return 421, f"this server does not answer to the name {host!r}"
        origin = headers.get("origin")
        writes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
            return 403, "requests from other sites are refused"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            writes or scope["path"].startswith("/api/")
        ):
            return 403, "requests from other sites are refused"
        if scope["type"] == "http" and writes:
            kind = headers.get("content-type", "").split(";")[0]
            if kind != "application/json":
                return 415, "send application/json"
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > MOST_BODY_BYTES:
                return 413, f"a request holds at most {MOST_BODY_BYTES >> 20} MiB"
        if self._token and not self._known(scope, headers):
            return 401, "open the address with ?token=..., as `mmdata view` printed it"
        return None

    def _known(self, scope: Scope, headers: Headers) -> bool:
        assert self._token is not None
        cookie = SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except Exception:  # http.cookies raises its own error on malformed cookies: no cookie then
            cookie.clear()
        offered = [cookie[COOKIE].value] if COOKIE in cookie else []
        offered.append(headers.get("authorization", "").removeprefix("Bearer "))
        if self._query_token(scope):
            offered.append(self._query_token(scope))
        return any(hmac.compare_digest(o.encode(), self._token.encode()) for o in offered)

    @staticmethod
    def _query_token(scope: Scope) -> str:
        if scope["path"] != "/":
            return ""
        query = parse_qs(str(scope["query_string"], "latin-1"))
        return query.get("token", [""])[0]


def _host_name(host: str) -> str:
    """Name of a Host header without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _limited(receive: Receive) -> Receive:
    """Refuse bodies that turn out longer than they may be (chunked ones declare no length)."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", ())}
            message["headers"] = [
                *message.get("headers", ()),
                *(
                    (name.encode(), value.encode())
                    for name, value in _HEADERS.items()
                    if name.encode() not in present
                ),
            ]
        await send(message)

    return wrapped
