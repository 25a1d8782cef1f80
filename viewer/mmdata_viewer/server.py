"""Running the viewer: address, token, browser."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from mmdata.errors import ConfigError, MissingDependencyError

STATE_FOLDER = ".mmdata-viewer"
JOURNAL = "journal.sqlite3"


def serve(
    path: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    open_browser: bool = True,
    state: str | os.PathLike[str] | None = None,
    token: str | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve one episode or a folder of them until interrupted.

    port 0 takes a free one. Off the loopback interface a token is needed and made up when not
    given. state: folder of the annotation journal; by default `.mmdata-viewer` in the root.

    Raises FileNotFoundError, ConfigError when the address cannot be used, MissingDependencyError.
    """
    try:
        import uvicorn
        import websockets  # noqa: F401 - uvicorn refuses WebSockets without it, and only logs that
    except ImportError as error:
        raise MissingDependencyError(error.name or "uvicorn", "viewer", "the viewer") from error
    from mmdata_viewer.app import make_app
    from mmdata_viewer.background import Background
    from mmdata_viewer.catalog import Catalog
    from mmdata_viewer.journal import Journal
    from mmdata_viewer.security import LOOPBACK

    catalog = Catalog(path)
    loopback = is_loopback(host)
    if not loopback and token is None:
        token = secrets.token_urlsafe(24)
    folder = Path(state) if state is not None else catalog.root / STATE_FOLDER
    journal = Journal(folder / JOURNAL)
    listener = listen(host, port)
    port = listener.getsockname()[1]
    hosts = {*LOOPBACK, host.lower()} if loopback else {*LOOPBACK, *_own_names(host)}
    background = Background()
    app = make_app(catalog, journal, hosts=hosts, token=token, background=background)
    shown = "127.0.0.1" if loopback or host in ("0.0.0.0", "::") else host
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    if token:
        url += f"?token={token}"
    announce(url)
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [url]).start()
    config = uvicorn.Config(
        app, log_level="warning", ws_per_message_deflate=False, ws_max_size=1 << 16,
        server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            background.close()  # or open requests would wait for its checks to finish
            super().handle_exit(sig, frame)

    try:
        Server(config).run(sockets=[listener])
    finally:
        background.close()
        journal.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _own_names(host: str) -> set[str]:
    """Names and addresses others may use for this machine."""
    names = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    if host in ("0.0.0.0", "::"):
        names |= {
            str(info[4][0]).lower() for info in socket.getaddrinfo(socket.gethostname(), None)
        }
    return names - {"0.0.0.0", "::"}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address. ConfigError when it cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it, an answer of
    # headers and body waits some 40 ms for an acknowledgement in between.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.listen(128)
    return listener
