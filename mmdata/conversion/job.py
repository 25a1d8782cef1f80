"""Converting one recording: the same function on a laptop, in a process pool and on a cluster."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdata import __version__, registry
from mmdata.align import build_timeline, default_timelines
from mmdata.config import ConvertConfig, SensorConfig
from mmdata.conversion.clocks import fit_episode_clocks
from mmdata.conversion.images import ImageStage
from mmdata.conversion.lead_in import LeadIn
from mmdata.conversion.source_hashes import SourceHashes
from mmdata.conversion.sources import Source
from mmdata.conversion.split import find_boundaries
from mmdata.digest import ALGORITHM
from mmdata.episode import Timeline
from mmdata.errors import ConversionError, MmdataError
from mmdata.geometry import SE3, CameraModel, LensModel, Rig, Sensor
from mmdata.prefetch import prefetch
from mmdata.recording import Batch, Dropped, Recording, stream_names
from mmdata.store import EpisodeWriter, open_episode
from mmdata.streams import Stream, StreamInfo

Progress = Callable[[int, int], None]
#: Decoded batches that may wait for the writer.
_AHEAD_BYTES = 16 << 20


@dataclass(frozen=True)
class EpisodeResult:
    """One episode that was written. bytes_in: size of its source, shared by a split's episodes.

    uri: where it was uploaded to; path is then where it was written before, and gone.
    """

    path: Path
    episode_id: str
    source: str
    streams: Mapping[str, Mapping[str, Any]]
    bytes_in: int
    bytes_out: int
    seconds: float
    uri: str = ""

    @property
    def location(self) -> str:
        """Where it is: path or URI."""
        return self.uri or str(self.path)


@dataclass
class JobResult:
    """What became of one source. topics: per topic its messages and the streams they went into."""

    source: Source
    episodes: list[EpisodeResult] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    topics: dict[str, dict[str, Any]] = field(default_factory=dict)
    reason: str | None = None
    seconds: float = 0.0
    #: Of the source's content, as in the provenance.
    digest: str | None = None


def convert_source(
    source: Source,
    out: Path,
    config: ConvertConfig | None = None,
    *,
    overwrite: bool = False,
    resuming: bool = False,
    replaces: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> JobResult:
    """Convert one recording into episodes in the folder `out`.

    All of it or nothing: when anything goes wrong, none of its episodes stays behind. progress is
    called with messages done and messages in all. resuming: an episode that this very source and
    configuration made before (by a run that was killed) is replaced, and so are those named in
    replaces; others never are, unless overwrite.

    Raises ConversionError (and any MmdataError) with a reason a user can act on; OSError passes.
    """
    config = config if config is not None else ConvertConfig.model_validate({})
    began = time.perf_counter()
    result = JobResult(source)
    with registry.converter(source.format).open(source.path, source.part) as recording:
        job = _Job(source, out, config, recording, overwrite, resuming, replaces)
        try:
            job.run(progress)
        except BaseException:
            job.discard()
            raise
        result.episodes = job.episodes
        result.dropped = [*recording.account.dropped_list(), *job.dropped]
        result.problems = [*recording.account.problem_lines(), *job.notes]
        result.topics = job.topics()
        result.digest = job.source_digest
    result.seconds = time.perf_counter() - began
    return result


def try_convert(
    source: Source,
    out: Path,
    config: ConvertConfig | None = None,
    *,
    overwrite: bool = False,
    resuming: bool = False,
    replaces: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> JobResult:
    """`convert_source`, with a failure as the result's `reason`: one bad log stops no batch."""
    began = time.perf_counter()
    try:
        return convert_source(
            source, out, config,
            overwrite=overwrite, resuming=resuming, replaces=replaces, progress=progress,
        )  # fmt: skip
    except (MmdataError, OSError) as error:
        reason = str(error) or type(error).__name__
    except MemoryError:
        reason = "not enough memory for one of its messages"
    return JobResult(source, reason=reason, seconds=time.perf_counter() - began)


class _Job:
    def __init__(
        self,
        source: Source,
        out: Path,
        config: ConvertConfig,
        recording: Recording,
        overwrite: bool,
        resuming: bool,
        replaces: frozenset[str],
    ) -> None:
        self.resuming = resuming
        self.replaces = replaces
        self.source = source
        self.out = out
        self.config = config
        self.recording = recording
        self.overwrite = overwrite
        self.episodes: list[EpisodeResult] = []
        self.dropped: list[Dropped] = []
        self.notes: list[str] = []
        self.source_digest: str | None = None
        self._writers: dict[int, EpisodeWriter] = {}
        self._stages: dict[int, ImageStage] = {}
        self._lead_in = LeadIn()
        self._began: dict[int, float] = {}
        self._streams: dict[str, set[str]] = {}
        self._samples: dict[str, int] = {}
        # Keyed by identity, and holding the key's object so that its id is not used again.
        self._renamed: dict[int, tuple[StreamInfo, StreamInfo]] = {}
        self._names: dict[str, str] = {}
        self._boundaries = np.empty(0, np.int64)
        self._sizes = [p.stat().st_size for p in recording.files]

    def run(self, progress: Progress | None) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        config = self.config
        summary = self.recording.inspect()
        total = sum(t.count for t in summary.topics)
        if total == 0:
            raise ConversionError("it holds no messages")
        unknown = set(config.streams) - {t.topic for t in summary.topics}
        if unknown:
            self.notes.append(f"configured topics that are not in it: {', '.join(sorted(unknown))}")
        self._names = stream_names(t.topic for t in summary.topics)
        leave_out = {t for t, c in config.streams.items() if c.drop}
        self.dropped += [
            Dropped(t.topic, t.count, "left out by the configuration")
            for t in summary.topics
            if t.topic in leave_out
        ]
        wanted = (
            frozenset(t.topic for t in summary.topics if t.topic not in leave_out)
            if leave_out
            else None
        )
        self._boundaries = find_boundaries(self.recording, config.split)
        done = 0
        with (
            closing(SourceHashes(self.recording, at_once=len(self._boundaries) > 0)) as hashes,
            closing(self._batches(wanted)) as batches,
        ):
            for batch in batches:
                if batch.not_before_ns is not None:
                    self._close_before(batch.not_before_ns, hashes)
                self._write(batch)
                if progress is not None:
                    now = sum(list(self.recording.account.messages.values()))
                    if now != done:
                        done = now
                        progress(min(done, total), total)
            for number in sorted(self._writers):
                self._finish(number, hashes)
        if not self.episodes:
            raise ConversionError("none of its messages can be decoded" + self._first_reasons())
        if progress is not None:
            progress(total, total)

    def _batches(self, wanted: frozenset[str] | None) -> Generator[Batch]:
        batches = self.recording.read(wanted)
        if not len(self._boundaries):
            # Not so where episodes end on the way: they take the rig as it is known there.
            batches = prefetch(batches, lambda b: b.nbytes, _AHEAD_BYTES)
        yield from batches

    def discard(self) -> None:
        """Remove everything this job has written."""
        for writer in self._writers.values():
            writer.abort()
        for episode in self.episodes:
            episode.path.unlink(missing_ok=True)

    def topics(self) -> dict[str, dict[str, Any]]:
        """Per topic: messages read, samples written, and the streams they are in."""
        messages = self.recording.account.messages
        return {
            topic: {
                "messages": messages.get(topic, self._samples.get(topic, 0)),
                "samples": self._samples.get(topic, 0),
                "streams": sorted(self._streams.get(topic, ())),
            }
            for topic in sorted({*messages, *self._samples})
        }

    # -- writing -----------------------------------------------------------------------------

    def _write(self, batch: Batch) -> None:
        if not len(batch):
            return
        topic = batch.info.source_topic or batch.info.name
        info = self._configured(batch.info)
        self._streams.setdefault(topic, set()).add(info.name)
        self._samples[topic] = self._samples.get(topic, 0) + len(batch)
        if not len(self._boundaries):
            self._append(0, info, batch)
            return
        numbers = np.searchsorted(self._boundaries, batch.order_ns, side="right")
        for number in np.unique(numbers):
            here = numbers == number
            part = batch if here.all() else batch.select(here)
            writer = self._writers.get(int(number))
            if writer is None or info.name not in writer.counts:
                for earlier in self._lead_in.before(part):
                    self._append(int(number), info, earlier)
            self._append(int(number), info, part)
            self._lead_in.remember(part)

    def _append(self, number: int, info: StreamInfo, batch: Batch) -> None:
        writer = self._writers.get(number) or self._open(number)
        if info is not batch.info:
            batch = replace(batch, info=info)
        batch = self._stages[number].apply(batch)
        if info.name not in writer.counts:
            writer.add_stream(batch.info)
        writer.append(
            info.name,
            batch.source_ns,
            batch.samples,
            receive_ns=batch.receive_ns,
            publish_ns=batch.publish_ns,
            copy=False,
        )

    def _open(self, number: int) -> EpisodeWriter:
        episode_id = self.source.episode_id
        if len(self._boundaries):
            episode_id = f"{episode_id}_{number:03d}"
        path = self.out / f"{episode_id}.h5"
        if any(e.path == path for e in self.episodes):
            raise ConversionError(f"samples of {episode_id} came after it was closed")
        self._began[number] = time.perf_counter()
        self._stages[number] = ImageStage(self.config.images)
        self._writers[number] = EpisodeWriter(
            path,
            episode_id,
            profile=self.config.profile,
            stamps=self.config.stamps,
            overwrite=self.overwrite or path.name in self.replaces or self._is_ours(path),
            replace_partial=True,
        )
        return self._writers[number]

    def _is_ours(self, path: Path) -> bool:
        """Whether an existing episode is this source's: a run that was killed had finished it."""
        if not path.exists():
            return False
        try:
            with open_episode(path) as episode:
                sources = episode.provenance.get("sources", [])
                part = episode.provenance.get("part", "")
                same_config = episode.provenance.get("config_sha256") == config_hash(self.config)
        except (MmdataError, OSError):
            return False
        mine = [(p.name, s) for p, s in zip(self.recording.files, self._sizes, strict=True)]
        theirs = [(s["name"], s["bytes"]) for s in sources]
        return bool(mine == theirs and part == self.source.part and same_config and self.resuming)

    def _close_before(self, not_before_ns: int, hashes: SourceHashes) -> None:
        passed = int(np.searchsorted(self._boundaries, not_before_ns, side="right"))
        for number in [n for n in self._writers if n < passed]:
            self._finish(number, hashes)

    def _finish(self, number: int, hashes: SourceHashes) -> None:
        writer = self._writers[number]
        writer.set_rig(configured_rig(self.recording.rig, self.config.rig))
        writer.set_metadata(**{**self.recording.metadata, **self.config.metadata})
        for layer, document in self.recording.layers.items():
            writer.set_annotations(layer, _of_episode(document, writer.episode_id))
        self.source_digest = hashes.joint()
        writer.set_provenance(self._provenance(number, hashes.results()))
        for name, loss in self._stages.pop(number).measured().items():
            writer.set_stream_attrs(name, loss)
        path = writer.close(self._timelines)
        if self.config.clock == "fit":
            try:
                self.notes += fit_episode_clocks(path)
            except BaseException:
                path.unlink(missing_ok=True)  # it has its final name already, and is not finished
                raise
        del self._writers[number]
        assert writer.clocks is not None
        self.notes += [n for n in writer.clocks.notes if n not in self.notes]
        infos = writer.infos
        self.episodes.append(
            EpisodeResult(
                path,
                writer.episode_id,
                self.source.label,
                {
                    name: {
                        "topic": infos[name].source_topic,
                        "kind": str(infos[name].kind),
                        "count": count,
                    }
                    for name, count in sorted(writer.counts.items())
                },
                sum(self._sizes),
                path.stat().st_size,
                time.perf_counter() - self._began[number],
            )
        )

    def _timelines(self, streams: Mapping[str, Stream]) -> list[Timeline]:
        if self.config.timelines is None:
            return default_timelines(streams)
        return [
            build_timeline(
                streams,
                rate_hz=t.rate_hz,
                reference_stream=t.reference_stream,
                name=t.name,
                policies=t.policies,
                tolerances_ns={n: round(ms * 1e6) for n, ms in t.tolerances_ms.items()},
                lookahead=t.lookahead,
            )
            for t in self.config.timelines
        ]

    def _configured(self, info: StreamInfo) -> StreamInfo:
        if id(info) in self._renamed:
            return self._renamed[id(info)][1]
        wanted = self.config.streams.get(info.source_topic or "")
        changed = info
        if wanted is not None:
            unknown = set(wanted.units) - set(info.fields)
            if unknown:
                self.notes.append(
                    f"{info.name}: no field {', '.join(sorted(unknown))} to set a unit of"
                )
            changed = replace(
                info,
                name=self._renamed_name(info, wanted.name),
                fields={
                    n: replace(f, unit=wanted.units.get(n, f.unit)) for n, f in info.fields.items()
                },
                stamp_meaning=wanted.stamp_meaning or info.stamp_meaning,
                frame_id=info.frame_id or wanted.frame_id,
            )
        self._renamed[id(info)] = (info, changed)
        return changed

    def _renamed_name(self, info: StreamInfo, name: str | None) -> str:
        """A configured name, keeping the suffix that tells the streams of one topic apart."""
        if name is None:
            return info.name
        base = self._names.get(info.source_topic or "", info.name)
        return name + info.name.removeprefix(base) if info.name.startswith(base) else name

    def _provenance(self, number: int, hashes: list[str]) -> dict[str, Any]:
        config = self.config.model_dump(mode="json", exclude_defaults=True)
        facts: dict[str, Any] = {
            "sources": [
                {"name": p.name, ALGORITHM: h, "bytes": s}
                for p, h, s in zip(self.recording.files, hashes, self._sizes, strict=True)
            ],
            "converter": self.source.format,
            "mmdata_version": __version__,
            "config": config,
            "config_sha256": config_hash(self.config),
        }
        if self.source.part:
            facts["part"] = self.source.part
        if len(self._boundaries):
            facts["split"] = {"number": number, "of": len(self._boundaries) + 1}
        dropped = self.recording.account.dropped_list() + self.dropped
        if dropped:
            facts["dropped"] = [[d.topic, d.count, d.reason] for d in dropped]
        return facts

    def _first_reasons(self) -> str:
        reasons = [f"{d.topic}: {d.reason}" for d in self.recording.account.dropped_list()[:3]]
        return f" ({'; '.join(reasons)})" if reasons else ""


def configured_rig(found: Rig, configured: Mapping[str, SensorConfig]) -> Rig:
    """The log's calibration, with what the configuration says put over it."""
    sensors = dict(found)
    for name, wanted in configured.items():
        known = sensors.get(name)
        camera = known.camera if known else None
        if wanted.model is not None and wanted.K is not None and wanted.width and wanted.height:
            camera = CameraModel(
                LensModel(wanted.model),
                np.asarray(wanted.K),
                np.asarray(wanted.distortion),
                wanted.width,
                wanted.height,
            )
        pose = known.parent_SE3_sensor if known else None
        if wanted.parent_SE3_sensor is not None:
            pose = SE3.from_xyz_qwxyz(wanted.parent_SE3_sensor)
        sensors[name] = Sensor(
            name,
            wanted.frame_id or (known.frame_id if known else name),
            wanted.parent or (known.parent if known else None),
            pose,
            camera,
        )
    return Rig(sensors.values())


def config_hash(config: ConvertConfig) -> str:
    """Hash of everything in a configuration that differs from the defaults."""
    document = json.dumps(config.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def _of_episode(document: str, episode_id: str) -> str:
    """An annotation layer named for the episode it is written into."""
    from mmdata_schema import read_layer, write_layer

    return write_layer(read_layer(document).edit(episode_id=episode_id))
