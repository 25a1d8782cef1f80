"""What becomes of camera frames on the way in: kept, or encoded, with the loss measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmdata import media
from mmdata.errors import ConversionError
from mmdata.recording import Batch
from mmdata.streams import FieldInfo, Kind, Ragged, StreamInfo

ImagePolicy = Literal["keep", "h264", "jpeg", "lossless"]

GOP = 15
CRF = 18
PRESET = "veryfast"
JPEG_QUALITY = 95
#: PSNR is measured on the first of every so many frames.
_SAMPLE_EVERY = 15
#: 8-bit colour and grey frames; anything else (depth, 16-bit, Bayer) is never encoded with loss.
_ENCODABLE = {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC1", "8UC3"}


class FrameEncoder:
    """Encodes the frames of one stream of one episode; `attrs` tells settings and measured loss."""

    def __init__(self, info: StreamInfo, codec: Literal["h264", "jpeg"]) -> None:
        self.codec = codec
        self._source = info
        self._encoder: Any = None
        self._decoder: Any = None
        self._frames = 0
        self._psnr: list[float] = []
        self.info = replace(
            info,
            encoding=codec,
            fields={"data": FieldInfo("|u1", ragged=True)},
            attrs=self._attrs(),
        )

    def encode(self, batch: Batch) -> Batch:
        """The batch with its frames encoded, one packet per frame."""
        packets = [self._encode(frame) for frame in self._pixels(batch)]
        return replace(batch, info=self.info, samples={"data": Ragged.from_rows(packets)})

    @property
    def measured(self) -> dict[str, Any]:
        """PSNR of the sampled frames against their originals; inf for identical frames."""
        if not self._psnr:
            return {}
        finite = [p for p in self._psnr if np.isfinite(p)]
        return {
            "psnr_db": float(np.mean(finite)) if finite else float("inf"),
            "psnr_min_db": float(np.min(self._psnr)),
            "psnr_frames": len(self._psnr),
        }

    def _attrs(self) -> dict[str, Any]:
        kept = {k: v for k, v in self._source.attrs.items() if k != "pixel_format"}
        settings: dict[str, Any] = {"encoded_from": self._source.encoding or "raw"}
        if "pixel_format" in self._source.attrs:
            settings["encoded_from_pixel_format"] = self._source.attrs["pixel_format"]
        if self.codec == "h264":
            settings |= {"gop": GOP, "crf": CRF, "preset": PRESET, "b_frames": 0}
        else:
            settings["quality"] = JPEG_QUALITY
        return {**kept, **settings}

    def _pixels(self, batch: Batch) -> list[NDArray[np.uint8]]:
        data = batch.samples["data"]
        if isinstance(data, Ragged):
            return [media.decode_image(data[i]) for i in range(len(data))]
        pixel_format = str(self._source.attrs.get("pixel_format", "rgb8"))
        return [media.to_rgb(frame, pixel_format) for frame in data]

    def _encode(self, frame: NDArray[np.uint8]) -> bytes:
        sampled = self._frames % _SAMPLE_EVERY == 0
        if self.codec == "jpeg":
            packet = media.encode_jpeg(frame, JPEG_QUALITY)
            decoded = media.decode_image(packet) if sampled else None
        else:
            packet = self._encode_h264(frame)
            decoded = self._decode_h264(packet) if sampled else None
        if decoded is not None:
            self._psnr.append(psnr_db(_rgb(frame), _rgb(decoded)))
        self._frames += 1
        return packet

    def _encode_h264(self, frame: NDArray[np.uint8]) -> bytes:
        import av

        rgb = _rgb(frame)
        height, width = rgb.shape[:2]
        if self._encoder is None:
            encoder: Any = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height = width, height
            # 4:2:0 needs even sides; odd frames keep full chroma rather than lose a row.
            encoder.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
            encoder.time_base = Fraction(1, 1000)
            encoder.thread_count = 1
            encoder.options = {
                "preset": PRESET, "crf": str(CRF), "g": str(GOP), "keyint_min": str(GOP), "bf": "0",
                "tune": "zerolatency", "x264-params": "scenecut=0:repeat-headers=1",
            }  # fmt: skip
            self._encoder = encoder
        elif (self._encoder.width, self._encoder.height) != (width, height):
            raise ConversionError(
                f"stream {self.info.name!r}: a frame of {width} x {height} in a stream of "
                f"{self._encoder.width} x {self._encoder.height}; use --images keep"
            )
        video = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        video.pts = self._frames
        packets = self._encoder.encode(video)
        if len(packets) != 1:
            raise ConversionError(f"the H.264 encoder gave {len(packets)} packets for one frame")
        return bytes(packets[0])

    def _decode_h264(self, packet: bytes) -> NDArray[np.uint8] | None:
        """A sampled frame is the first of a GOP, so it decodes by itself."""
        import av

        if self._decoder is None:
            self._decoder = av.CodecContext.create("h264", "r")
            self._decoder.thread_count = 1
        for frame in [*self._decoder.decode(av.Packet(packet)), *self._decoder.decode(None)]:
            self._decoder = None
            image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
            return image
        return None


class ImageStage:
    """Applies an image policy to the batches of one episode."""

    def __init__(self, policy: ImagePolicy) -> None:
        self._policy = policy
        self._encoders: dict[str, FrameEncoder | None] = {}

    def apply(self, batch: Batch) -> Batch:
        """The batch as the policy wants it: the same object where nothing is to be done."""
        if batch.info.kind is not Kind.IMAGE:
            return batch
        name = batch.info.name
        if name not in self._encoders:
            self._encoders[name] = self._encoder_for(batch.info)
        encoder = self._encoders[name]
        return batch if encoder is None else encoder.encode(batch)

    def measured(self) -> Mapping[str, dict[str, Any]]:
        """Measured loss per stream that was encoded."""
        return {n: e.measured for n, e in self._encoders.items() if e is not None}

    def _encoder_for(self, info: StreamInfo) -> FrameEncoder | None:
        raw = (info.encoding or "raw") == "raw"
        pixel_format = str(info.attrs.get("pixel_format", "rgb8"))
        stills = info.encoding in ("jpeg", "png")
        if self._policy == "lossless" or (raw and pixel_format not in _ENCODABLE):
            return None
        if self._policy == "keep":
            return FrameEncoder(info, "h264") if raw else None
        if raw or (stills and info.encoding != self._policy):
            return FrameEncoder(info, self._policy)
        return None


def psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two uint8 images of one shape, in dB; inf when equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255.0**2 / error))


def _rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frame.ndim == 2:
        return np.repeat(frame[..., None], 3, axis=2)
    return np.ascontiguousarray(frame[..., :3])
