"""Immutable sample data over HTTP: clients name the file's version, so answers cache for ever."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mmdata import Kind
from mmdata_viewer import media, points
from mmdata_viewer.errors import BadRequestError, NotThereError, describe
from mmdata_viewer.manifest import manifest
from mmdata_viewer.opened import Opened, Pool
from mmdata_viewer.pyramid import Pyramid

_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
MOST_VALUES = 4_000_000
MOST_PICTURES = 64
_MOST_TEXT_BYTES = 4 << 20


class DataApi:
    """Endpoints below `/api/e/{key}` that read the episode. They run in the thread pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def routes(self) -> list[Route]:
        e = "/api/e/{key}"
        return [
            Route("/api/episodes", self.episodes),
            Route(e, self.manifest),
            Route(e + "/stamps/{stream}", self.stamps),
            Route(e + "/pictures", self.pictures),
            Route(e + "/points/{stream}/{i:int}", self.points),
            Route(e + "/pyramid/{stream}/{field}", self.pyramid),
            Route(e + "/pyramid/{stream}/{field}/{level:int}/{tile:int}", self.tile),
            Route(e + "/values/{stream}/{field}", self.values),
            Route(e + "/text/{stream}/{i:int}", self.text),
            Route(e + "/audio/{stream}", self.audio),
            Route(e + "/audio/{stream}/blocks", self.audio_blocks),
            Route(e + "/audio/{stream}/waveform", self.waveform),
        ]

    def episodes(self, request: Request) -> Response:
        rows = [
            {"key": e.key, "name": e.name, "bytes": e.path.stat().st_size}
            for e in self.pool.catalog.entries()
        ]
        return JSONResponse({"episodes": rows})

    def manifest(self, request: Request) -> Response:
        with self.pool.use(request.path_params["key"]) as opened:
            return JSONResponse(manifest(opened))

    def stamps(self, request: Request) -> Response:
        """f64[N] ns since the episode's start (exact below 104 days)."""
        with self._stream(request) as (opened, stream):
            stamps = stream.stamp_ns - opened.start_ns
            return _binary(request, opened, stamps.astype("<f8").tobytes())

    def pictures(self, request: Request) -> Response:
        """Samples of several image streams at once: one request costs a browser as much as one.

        `?frame=STREAM/i` asks for an image, `?packets=STREAM/i` for what a video decoder needs to
        make one. In the order asked, little-endian: u32 status as of HTTP, u32 length, then the
        bytes; of a sample that cannot be had, what is wrong with it.
        """
        asked = request.query_params.multi_items()
        if len(asked) > MOST_PICTURES:
            raise BadRequestError(f"at most {MOST_PICTURES} pictures at once")
        parts = []
        with self.pool.use(request.path_params["key"]) as opened:
            for what, name in asked:
                if what == "v":
                    continue
                status, data = 200, b""
                try:
                    data = _picture(opened, what, name)
                except Exception as error:  # files may be damaged anywhere: see app._damaged
                    status, text = describe(error)
                    data = text.encode()
                parts += [struct.pack("<II", status, len(data)), data]
            headers = {"cache-control": "no-store"}  # the page keeps what it decoded
            return Response(b"".join(parts), media_type="application/octet-stream", headers=headers)

    def points(self, request: Request) -> Response:
        budget = _number(request, "budget", 1_000_000)
        with self._stream(request) as (opened, stream):
            cloud = points.read_points(
                stream, request.path_params["i"], opened.episode.rig, opened.frames
            )
            return _binary(request, opened, points.encode_points(*cloud, budget))

    def pyramid(self, request: Request) -> Response:
        with self._stream(request) as (opened, stream):
            pyramid = self._pyramid(opened, stream.name, request.path_params["field"])
            counts = [len(stream), *(len(low) for low, _ in pyramid.levels)]
            return JSONResponse({"channels": pyramid.channels, "counts": counts})

    def tile(self, request: Request) -> Response:
        path = request.path_params
        with self._stream(request) as (opened, stream):
            pyramid = self._pyramid(opened, stream.name, path["field"])
            data = pyramid.tile(path["level"], path["tile"], opened.start_ns)
            return _binary(request, opened, data)

    def values(self, request: Request) -> Response:
        """u32 rows, u32 width, f64[rows * width]: rows start, start + step ... of a field."""
        name = request.path_params["field"]
        with self._stream(request) as (opened, stream):
            info = stream.info.fields.get(name)
            if info is None or info.ragged or stream.kind not in (Kind.SIGNAL, Kind.TACTILE):
                raise NotThereError(f"stream {stream.name!r} has no signal field {name!r}")
            start = _number(request, "start", 0)
            stop = min(_number(request, "stop", len(stream)), len(stream))
            step = max(1, _number(request, "step", 1))
            width = int(np.prod(info.shape, dtype=np.int64)) if info.shape else 1
            if max(0, stop - start) // step * width > MOST_VALUES:
                raise BadRequestError(f"at most {MOST_VALUES} values at once")
            rows: Any = stream.field(name, start, stop)
            rows = np.asarray(rows[::step], "<f8")
            head = struct.pack("<II", len(rows), width)
            return _binary(request, opened, head + rows.tobytes())

    def text(self, request: Request) -> Response:
        i = request.path_params["i"]
        with self._stream(request) as (opened, stream):
            media.check_sample(stream, i)
            if stream.kind is not Kind.TEXT:
                raise BadRequestError(f"stream {stream.name!r} ({stream.kind}) holds no text")
            data = stream.encoded(i)[:_MOST_TEXT_BYTES]
            return _binary(request, opened, data, "text/plain; charset=utf-8")

    def audio(self, request: Request) -> Response:
        with self._audio(request) as (opened, stream):
            if stream.name not in opened.audio:
                opened.audio[stream.name] = media.wav(stream)
            return _binary(request, opened, opened.audio[stream.name], "audio/wav")

    def audio_blocks(self, request: Request) -> Response:
        with self._audio(request) as (opened, stream):
            return JSONResponse(media.audio_blocks(stream, opened.start_ns))

    def waveform(self, request: Request) -> Response:
        buckets = max(1, min(_number(request, "buckets", 4000), 100_000))
        with self._audio(request) as (opened, stream):
            return _binary(request, opened, media.waveform(stream, buckets))

    # -- internals ---------------------------------------------------------------------------

    def _stream(self, request: Request) -> _Use:
        return _Use(self.pool, request, None)

    def _audio(self, request: Request) -> _Use:
        return _Use(self.pool, request, Kind.AUDIO)

    def _pyramid(self, opened: Opened, stream: str, field: str) -> Pyramid:
        key = (stream, field)
        if key not in opened.pyramids:
            source = opened.stream(stream)
            if source.kind is not Kind.SIGNAL and source.kind is not Kind.TACTILE:
                raise BadRequestError(f"stream {stream!r} ({source.kind}) is no signal")
            opened.pyramids[key] = Pyramid(source, field)
        return opened.pyramids[key]


class _Use:
    """The stream a request names, locked."""

    def __init__(self, pool: Pool, request: Request, kind: Kind | None) -> None:
        self._context = pool.use(request.path_params["key"])
        self._name = request.path_params["stream"]
        self._kind = kind

    def __enter__(self) -> tuple[Opened, Any]:
        opened = self._context.__enter__()
        try:
            stream = opened.stream(self._name)
            if self._kind is not None and stream.kind is not self._kind:
                raise BadRequestError(f"stream {self._name!r} ({stream.kind}) is no {self._kind}")
        except BaseException:
            self._context.__exit__(None, None, None)
            raise
        return opened, stream

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


def _picture(opened: Opened, what: str, name: str) -> bytes:
    """What `frame=STREAM/i` or `packets=STREAM/i` asks for."""
    stream_name, _, number = name.rpartition("/")
    if not number.isdigit() or len(number) > 15:
        raise BadRequestError(f"{name!r} is not STREAM/number")
    stream, i = opened.stream(stream_name), int(number)
    if what == "frame":
        return media.image_bytes(stream, i)
    if what != "packets":
        raise BadRequestError(f"{what!r} is neither frame nor packets")
    if stream_name not in opened.packets:
        opened.packets[stream_name] = media.PacketOrder(stream)
    return media.packet_group(stream, i, opened.packets[stream_name])


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdigit() or len(text) > 15:
        raise BadRequestError(f"{name}={text!r} is no count")
    return int(text)


def _binary(
    request: Request, opened: Opened, data: bytes, kind: str = "application/octet-stream"
) -> Response:
    """The bytes, or the part a Range header asks for; cached where the version was named."""
    headers = {"etag": f'"{opened.version}"', "accept-ranges": "bytes"}
    if request.query_params.get("v") == opened.version:
        headers |= _FOREVER
    span = _range(request.headers.get("range"), len(data))
    if span is None:
        return Response(data, media_type=kind, headers=headers)
    first, last = span
    if first > last:
        headers["content-range"] = f"bytes */{len(data)}"
        return Response(status_code=416, headers=headers)
    headers["content-range"] = f"bytes {first}-{last}/{len(data)}"
    return Response(data[first : last + 1], 206, media_type=kind, headers=headers)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a single-range header; None where there is none that counts."""
    if not header or not header.startswith("bytes=") or "," in header:
        return None
    first, _, last = header[6:].strip().partition("-")
    if not (first or last).isdigit() or (last and not last.isdigit()):
        return None
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
