"""Who may ask, what they may ask for, and that hostile files and requests end in an answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from viewer_helpers import Server

from mmdata import EpisodeWriter, Kind, StreamInfo
from mmdata.errors import ConfigError
from mmdata_viewer.background import Background
from mmdata_viewer.catalog import Catalog
from mmdata_viewer.errors import ViewerError
from mmdata_viewer.server import is_loopback, listen, serve


@pytest.fixture(scope="module")
def shared(drive: Path) -> Iterator[Server]:
    """One server for the tests that change nothing."""
    with Server(drive.parent) as server:
        yield server


def raw(server: Server, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Any:
    host = server.url.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body and "Content-Length" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_it_listens_on_this_machine_only(shared: Server) -> None:
    port = int(shared.url.rstrip("/").rsplit(":", 1)[1])
    for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET):
        address = info[4][0]
        if not str(address).startswith("127."):
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, port)) != 0
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "[::1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, 200),
    ],
)
def test_other_sites_and_names_are_refused(
    shared: Server, headers: dict[str, str], status: int
) -> None:
    answer, _ = raw(shared, "GET", "/api/episodes", headers)
    assert answer.status == status


def test_every_answer_carries_the_policy(shared: Server) -> None:
    for path in ("/", "/static/main.js", "/api/episodes", "/nothing"):
        answer, _ = raw(shared, "GET", path, {})
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py",
        "/api/e/..%2f..%2fetc%2fpasswd", "/api/e/%2fetc%2fpasswd", "/api/e/....//....//etc",
        "/static//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/api/e/x/pictures?frame=a/0",
        "/api/e/x/layers/..%2f..%2fx",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_root(shared: Server, path: str) -> None:
    answer, content = raw(shared, "GET", path, {})
    assert answer.status in (400, 404)
    assert b"root:" not in content
    assert b"import" not in content


def test_links_that_lead_out_of_the_root_are_left_out(drive: Path, tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret.h5").write_bytes(drive.read_bytes())
    (root / "link.h5").symlink_to(outside / "secret.h5")
    (root / "inside.h5").write_bytes(drive.read_bytes())
    (root / "folder").symlink_to(outside)
    assert [e.name for e in Catalog(root).entries()] == ["inside.h5"]
    assert [e.name for e in Catalog(root / "inside.h5").entries()] == ["inside.h5"]


def test_bodies_are_limited_and_must_be_json(shared: Server) -> None:
    path = f"/api/e/{shared.key('drive.h5')}/count"
    json_type = {"Content-Type": "application/json"}
    assert raw(shared, "POST", path, {"Content-Type": "text/plain"}, b"{}")[0].status == 415
    assert raw(shared, "POST", path, {**json_type, "Content-Length": str(1 << 30)})[0].status == 413
    for body in (b"[" * 100_000, b"{", b'{"a": NaN}', b"[1]", b"\xff\xfe", b'{"stream": 5}'):
        answer, content = raw(shared, "POST", path, json_type, body)
        assert answer.status == 400, body[:20]
        assert "error" in json.loads(content)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("points/camera_front/0", 400), ("points/lidar/0?budget=-1", 400),
        ("points/lidar/0?budget=9999999999999999", 400), ("pyramid/imu/nothing", 404),
        ("pyramid/imu/linear_acceleration/9/0", 404),
        ("pyramid/imu/linear_acceleration/0/99999", 404), ("audio/camera_front", 400),
        ("values/lidar/x", 404), ("text/imu/0", 400), ("layers/nothing", 404),
        ("layers/anna/history/nothing", 200), ("nothing", 404),
    ],
)  # fmt: skip
def test_requests_for_what_is_not_there_get_an_answer(
    shared: Server, path: str, status: int
) -> None:
    got, answer = shared.ask(f"/api/e/{shared.key('drive.h5')}/{path}")
    assert got == status
    if status != 200:
        assert answer.get("error"), "an error says what is wrong"


def test_a_token_is_needed_off_the_loopback(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "drive.h5").write_bytes(drive.read_bytes())
    with Server(tmp_path, host="0.0.0.0") as server:
        assert "?token=" in server.url
        token = server.url.split("token=")[1]
        assert len(token) >= 32
        bare = server.url.split("?")[0]
        for path in ("", "api/episodes", "static/main.js"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(bare + path)
            assert caught.value.code == 401
        assert server.ask("/api/episodes", headers={"authorization": "Bearer wrong"})[0] == 401
        assert server.ask("/api/episodes", headers={"authorization": f"Bearer {token}"})[0] == 200
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert opener.open(server.url).geturl() == bare, "the token leaves the address bar"
        assert opener.open(bare + "api/episodes").status == 200


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Nagle's algorithm would hold the second packet of every answer back, by some 40 ms."""

    async def option() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own = writer.get_extra_info("socket")
            seen.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            value = await asyncio.wait_for(seen, 20)
            writer.close()
        return value

    assert asyncio.run(option()) == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_a_killed_server_leaves_no_worker_behind(drive_copy: Path) -> None:
    with Server(drive_copy.parent) as server:
        key, parent = server.key("drive.h5"), server.process.pid
        assert server.ask(f"/api/e/{key}/changepoints")[0] == 200
        threads = Path(f"/proc/{parent}/task").glob("*/children")
        workers = [pid for thread in threads for pid in thread.read_text().split()]
        assert workers
        server.stop(signal.SIGKILL)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end, "its worker waits for work that never comes"
        time.sleep(0.1)


def hostile(folder: Path, drive: Path) -> None:
    """Files made to hurt."""
    data = drive.read_bytes()
    for k, at in enumerate(range(2000, len(data), len(data) // 12)):
        broken = bytearray(data)
        broken[at : at + 64] = os.urandom(64)
        (folder / f"flipped{k}.h5").write_bytes(broken)
    (folder / "empty.h5").write_bytes(b"")
    (folder / "directory.h5").mkdir()
    with h5py.File(folder / "foreign.h5", "w") as file:
        file["x"] = [1, 2]
    with EpisodeWriter(folder / "nothing.h5"):
        pass
    with EpisodeWriter(folder / "junk_jpeg.h5") as writer:
        writer.add_stream(StreamInfo("cam", Kind.IMAGE, {}, encoding="h264"))
        writer.append("cam", np.arange(3) * 10**8, [b"\0\0\0\1\x65junk", b"no", b""])
        bad = np.array([np.nan, np.inf, -np.inf, 1e308])
        writer.append("bad", np.arange(4) * 10**8, bad)
        writer.append("huge", np.array([0, 2**62]), np.zeros(2))


@pytest.mark.slow
def test_hostile_files_get_answers_and_the_server_lives(drive: Path, tmp_path: Path) -> None:
    hostile(tmp_path, drive)
    (tmp_path / "good.h5").write_bytes(drive.read_bytes())
    with Server(tmp_path) as server:
        for row in server.ask("/api/episodes")[1]["episodes"]:
            base = f"/api/e/{row['key']}"
            status, manifest = server.ask(base)
            assert status in (200, 404, 422, 500), row["name"]
            if status != 200:
                assert manifest["error"]
                continue
            for stream in manifest["streams"][:8]:
                name = stream["name"]
                both = f"pictures?frame={name}/0&packets={name}/0"
                for path in (f"stamps/{name}", both, f"points/{name}/0"):
                    assert server.ask(f"{base}/{path}")[0] in (200, 400, 404, 422, 500)
                for field in list(stream["fields"])[:1]:
                    assert server.ask(f"{base}/pyramid/{name}/{field}/0/0")[0] < 501
            assert server.ask(f"{base}/findings")[0] < 501
        assert server.ask(f"/api/e/{server.key('good.h5')}")[0] == 200


def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path, drive: Path) -> None:
    with pytest.raises(FileNotFoundError):
        serve(tmp_path / "nothing", open_browser=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot listen"):
            serve(drive, port=taken.getsockname()[1], open_browser=False, state=tmp_path)


def test_a_worker_that_is_just_starting_ends_with_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starting, go = threading.Event(), threading.Event()
    start = SpawnProcess.start

    def slow(process: SpawnProcess) -> None:
        starting.set()
        go.wait(10)
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", slow)
    background = Background()

    def run() -> None:
        with pytest.raises(ViewerError):
            background.run(time.sleep, 60)

    asking = threading.Thread(target=run, daemon=True)
    asking.start()
    assert starting.wait(10)
    closing = threading.Thread(target=background.close, daemon=True)
    closing.start()
    closing.join(0.3)
    go.set()
    for thread in (closing, asking):
        thread.join(20)
        assert not thread.is_alive()
