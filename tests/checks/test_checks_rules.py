"""Every rule with an episode that passes and one that fails; the machinery around them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.checks import (
    Context,
    Finding,
    Limits,
    Severity,
    Status,
    check,
    exit_code,
    rules,
    run_checks,
    verdict,
)
from mmdata.checks import pages as rule_pages
from mmdata.episode import AlignedStream, Episode, Timeline
from mmdata.errors import ConfigError
from mmdata.geometry import Rig
from mmdata.streams import FieldInfo, Kind, Ragged, Stream, StreamInfo
from mmdata.sync.assess import assess

START = 1_760_000_000_000_000_000
MS = 1_000_000


def stamps(n: int, period_ns: int = 10 * MS, seed: int = 0) -> np.ndarray:
    return START + np.arange(n) * period_ns + np.random.default_rng(seed).integers(-MS, MS, n) // 20


def stream(
    name: str,
    source: np.ndarray,
    fields: dict[str, Any] | None = None,
    *,
    receive: np.ndarray | None = None,
    kind: Kind = Kind.SIGNAL,
    **info: Any,
) -> Stream:
    """A stream as a converter leaves it: ascending stamps, and where they came from."""
    rng = np.random.default_rng(9)
    values = fields or {"data": rng.normal(size=(len(source), 3))}
    order = np.argsort(source, kind="stable")
    arrays: dict[str, Any] = {"stamp_ns": source[order], "source_ns": source[order]}
    if receive is None:
        receive = source + 2 * MS + rng.integers(0, MS, len(source))
    arrays["receive_ns"] = receive[order]
    if not np.array_equal(order, np.arange(len(order))):
        arrays["recorded"] = order
    described = {}
    for key, value in values.items():
        described[key] = FieldInfo.of(value)
        if isinstance(value, Ragged):
            arrays[key], arrays["block_start" if kind is Kind.AUDIO else "offsets"] = (
                value.data,
                value.offsets,
            )
        else:
            arrays[key] = value[order]
    info.setdefault("stamp_source", "header")
    return Stream(StreamInfo(name, kind, described, **info), arrays)


def episode(*streams: Stream, timelines: dict[str, Any] | None = None) -> Episode:
    return Episode(
        episode_id="test",
        path=None,
        start_ns=min(int(s.stamp_ns[0]) for s in streams),
        end_ns=max(int(s.stamp_ns[-1]) for s in streams),
        status="complete",
        reference_clock="header",
        streams={s.name: s for s in streams},
        timelines=timelines or {},
        rig=Rig(),
        metadata={},
    )


def outcome(rule: str, *streams: Stream, limits: Limits | None = None, **more: Any) -> Finding:
    """The one finding of a rule about the first stream (or about the episode)."""
    ep = episode(*streams, **more)
    ledger = assess(ep, content=False).to_dict()
    found = run_checks(Context(ep, ledger, limits=limits or Limits()), select=[rule])
    mine = [f for f in found if f.stream in (streams[0].name, None)]
    assert len(mine) == 1, found
    return mine[0]


def check_pair(rule: str, good: Stream, bad: Stream, value: float | None = None) -> None:
    """``good`` passes, ``bad`` fails, with the number if one is given."""
    assert outcome(rule, good).status is Status.PASSED
    finding = outcome(rule, bad)
    assert finding.status is Status.FAILED
    if value is not None:
        assert finding.value == pytest.approx(value, rel=2e-3)


CLEAN = stream("s", stamps(500))


def test_backward_stamps() -> None:
    back = stamps(500)
    back[100] -= 25 * MS
    bad = stream("s", back, receive=stamps(500) + 2 * MS)
    check_pair("TIM001", CLEAN, bad, 1)
    assert outcome("TIM001", bad).severity is Severity.ERROR


def test_backward_receive_stamps() -> None:
    source = stamps(500)
    receive = source + 2 * MS
    receive[100] -= 25 * MS
    ep = episode(stream("s", source, receive=receive))
    found = run_checks(Context(ep, assess(ep, content=False).to_dict()), select=["TIM001"])
    assert any(f.status is Status.FAILED and "receive" in f.message for f in found)


def test_repeated_stamps() -> None:
    twice = stamps(500)
    twice[[50, 90, 91]] = twice[[49, 89, 89]]
    check_pair("TIM002", CLEAN, stream("s", twice), 3)


def test_missing_samples() -> None:
    few = np.delete(stamps(500), [50])
    many = np.delete(stamps(500), np.arange(50, 70, 2))
    check_pair("TIM003", stream("s", few), stream("s", many), 10 / 500)
    silence = np.delete(stamps(30_000), np.arange(2000, 2150))
    assert outcome("TIM003", stream("s", silence)).status is Status.FAILED
    check_pair("TIM004", CLEAN, stream("s", few), 1)
    events = START + np.cumsum(np.random.default_rng(0).exponential(1e9, 50)).astype(np.int64)
    assert outcome("TIM003", stream("s", events)).status is Status.NOT_ASSESSED


def test_unsteady_rate() -> None:
    rng = np.random.default_rng(0)
    loose = stamps(500) + rng.normal(0, 1.5 * MS, 500).astype(np.int64)
    check_pair("TIM005", CLEAN, stream("s", loose))


def test_computed_stamps_are_unknown_not_good() -> None:
    assert outcome("TIM006", CLEAN).status is Status.PASSED
    exact = stream("s", START + np.arange(100) * 10 * MS)
    assert outcome("TIM006", exact).status is Status.NOT_ASSESSED
    made = stream("s", stamps(100), stamp_source="synthetic")
    assert outcome("TIM006", made).status is Status.NOT_ASSESSED


def test_latency_rules() -> None:
    source = stamps(500)
    early = stream("s", source, receive=source - 4 * MS)
    check_pair("TIM007", CLEAN, early, -4)
    check_pair("TIM008", CLEAN, stream("s", source, receive=source + 100 * MS), 100)
    late = source + 2 * MS
    late[::10] += 300 * MS
    check_pair("TIM009", CLEAN, stream("s", source, receive=np.maximum.accumulate(late)))
    step = source + 2 * MS + np.random.default_rng(1).integers(0, MS, 500)
    step[250:] += 80 * MS
    check_pair("TIM010", CLEAN, stream("s", source, receive=step), 79.9)


def test_skewed_clock() -> None:
    source = stamps(6000)
    true = source + ((source - START) * 200e-6).astype(np.int64)
    check_pair("TIM011", stream("s", source), stream("s", source, receive=true + 2 * MS), 200)
    same = stream("s", source, receive=source.copy())
    assert outcome("TIM011", same).status is Status.NOT_ASSESSED


def test_clock_of_another_epoch() -> None:
    receive = stamps(500)
    source = receive - START + 60_000_000_000
    other = stream("s", receive, receive=receive, stamp_source="receive")
    other._arrays["source_ns"] = source  # type: ignore[index]
    check_pair("TIM012", CLEAN, other)


def test_coverage() -> None:
    whole = stream("other", stamps(1000))
    short = stream("s", stamps(1000)[200:])
    assert outcome("TIM013", stream("s", stamps(1000)), whole).status is Status.PASSED
    finding = outcome("TIM013", short, whole)
    assert finding.status is Status.FAILED
    assert finding.value == pytest.approx(0.2, abs=0.01)


def test_coarse_stamps() -> None:
    coarse = START + (np.cumsum(np.full(300, 13.7 * MS)) // (10 * MS) * (10 * MS)).astype(np.int64)
    check_pair("TIM014", CLEAN, stream("s", coarse))


def test_lockstep() -> None:
    tick = np.arange(2000)
    base = stream("a", START + tick * 10 * MS)
    slow = stream("s", START + tick * 10_002_000)
    even = stream("s", START + tick * 10 * MS + 500)
    for other, status, skew in ((even, Status.PASSED, 0), (slow, Status.FAILED, 200)):
        ep = episode(base, other)
        found = run_checks(Context(ep, assess(ep, content=False).to_dict()), select=["TIM015"])
        assert [f.status for f in found] == [status]
        assert abs(found[0].value or 0) == pytest.approx(skew, abs=0.5)


def test_content_rule_reads_the_ledger() -> None:
    def pair(status: str, offset: float | None) -> dict[str, Any]:
        return {
            "a": "x", "b": "y", "kind": "camera_motion", "method": "m", "reason": "r",
            "offset_ms": offset, "verdict": status, "limit_ms": [-20.0, 20.0],
        }  # fmt: skip

    ep = episode(CLEAN)
    for status in ("PASSED", "FAILED", "NOT_ASSESSED"):
        ledger = {"streams": [], "pairs": [pair(status, 80.0)]}
        (found,) = run_checks(Context(ep, ledger), select=["TIM016"])
        assert (found.status, found.stream, found.value) == (status, "x/y", 80.0)
    (found,) = run_checks(Context(ep, {}), select=["TIM016"])
    assert found.status is Status.NOT_ASSESSED


def test_sweep_span() -> None:
    at = stamps(20, 100 * MS)

    def cloud(span_ns: int) -> Stream:
        rows = [np.linspace(0, span_ns, 50).astype(np.int32) for _ in at]
        points = Ragged.from_rows(rows, np.int32)
        return stream("s", at, {"z": points, "point_offset_ns": points}, kind=Kind.SWEEP)

    check_pair("TIM017", cloud(98 * MS), cloud(190 * MS), 1.9)
    bare = stream("s", at, {"z": Ragged.from_rows([np.zeros(5)] * 20)}, kind=Kind.SWEEP)
    assert outcome("TIM017", bare).status is Status.NOT_ASSESSED


def test_common_trigger() -> None:
    def cameras(late_ns: int) -> tuple[Stream, Stream]:
        at = stamps(30, 100 * MS)
        frames = Ragged.from_rows([b"x"] * 30)
        return (
            stream("s", at + late_ns, {"data": frames}, kind=Kind.IMAGE, encoding="jpeg"),
            stream("a", at, {"data": frames}, kind=Kind.IMAGE, encoding="jpeg"),
        )

    for late_ns, status in ((200_000, Status.PASSED), (60 * MS, Status.FAILED)):
        second, first = cameras(late_ns)
        ep = episode(first, second)
        (found,) = run_checks(Context(ep), select=["TIM020"])
        assert (found.status, found.stream) == (status, "s")
        assert found.value == pytest.approx(late_ns / 1e6)


def test_declared_rate() -> None:
    right = stream("s", stamps(500), nominal_rate_hz=100.0)
    check_pair("TIM018", right, stream("s", stamps(500), nominal_rate_hz=60.0))


def test_changed_rate() -> None:
    at = stamps(600)
    slow = stream("s", np.r_[at[:300], at[300::2]])
    check_pair("TIM021", CLEAN, slow, -0.5)
    (place,) = outcome("TIM021", slow).details
    assert abs((place.stamp_ns or 0) - at[300]) <= 11 * MS
    assert outcome("TIM003", slow).status is Status.PASSED
    assert outcome("TIM003", slow).value == 0


def test_findings_point_at_the_place() -> None:
    at = stamps(500)
    at[100] -= 25 * MS
    (back,) = outcome("TIM001", stream("s", at, receive=stamps(500) + 2 * MS)).details
    assert (back.stream, back.stamp_ns, back.sample) == ("s", at[100], 100)
    many = np.delete(stamps(500), np.arange(50, 70, 2))
    gaps = outcome("TIM003", stream("s", many)).details
    assert len(gaps) == 10
    assert {(g.stamp_ns, g.end_ns) for g in gaps} == {
        (many[i], many[i + 1]) for i in np.flatnonzero(np.diff(many) > 15 * MS)
    }
    whole = stream("other", stamps(1000))
    (absent,) = outcome("TIM013", stream("s", stamps(1000)[200:]), whole).details
    assert (absent.stamp_ns, absent.end_ns) == (stamps(1000)[0], stamps(1000)[200])


def test_jitter_that_hides_loss_or_skew_is_not_assessed() -> None:
    rng = np.random.default_rng(0)
    loose = stamps(800) + rng.normal(0, 3.6 * MS, 800).astype(np.int64)
    assert outcome("TIM003", stream("s", loose)).status is Status.NOT_ASSESSED
    true = stamps(800)
    skewed = true + ((true - START) * 300e-6).astype(np.int64)
    wide = skewed + rng.normal(0, 8 * MS, 800).astype(np.int64)
    finding = outcome("TIM011", stream("s", wide, receive=true + 2 * MS))
    assert finding.status is Status.NOT_ASSESSED, finding.message


def test_alignment_residual() -> None:
    def timeline(late_ns: int) -> dict[str, Any]:
        index = np.arange(500)
        ticks = CLEAN.stamp_ns - late_ns
        aligned = AlignedStream("nearest", None, index, np.full(500, late_ns))
        return {"t": lambda: Timeline("t", ticks, {"s": aligned}, 100.0)}

    good = outcome("TIM019", CLEAN, timelines=timeline(500_000))
    assert (good.status, good.value) == (Status.PASSED, 0.5)
    assert outcome("TIM019", CLEAN, timelines=timeline(17 * MS)).status is Status.FAILED


def test_nan_constant_and_copied_channels() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 4))
    good = stream("s", stamps(500), {"position": values})
    holes = values.copy()
    holes[3, 1] = np.nan
    holes[4, 1] = np.inf
    check_pair("SIG001", good, stream("s", stamps(500), {"position": holes}), 2 / 2000)
    ranges = stream("s", stamps(500), {"ranges": np.full((500, 4), np.inf)})
    assert outcome("SIG001", ranges).status is Status.SKIPPED
    stuck = values.copy()
    stuck[:, 2] = 0.7
    check_pair("SIG002", good, stream("s", stamps(500), {"position": stuck}), 1)
    copy = values.copy()
    copy[:, 3] = copy[:, 0]
    check_pair("SIG003", good, stream("s", stamps(500), {"position": copy}), 1)


def test_clipped_sound() -> None:
    rng = np.random.default_rng(0)
    at = stamps(20, 100 * MS)

    def sound(gain: float) -> Stream:
        wave = np.clip(gain * rng.normal(0, 1, (20 * 160, 1)), -32768, 32767).astype(np.int16)
        blocks = Ragged(wave, np.arange(21) * 160)
        return stream("s", at, {"samples": blocks}, kind=Kind.AUDIO)

    check_pair("SIG004", sound(3000), sound(60_000))


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (
            "SIG005",
            {"still_while_moving_s": 0.1, "still_longest_s": 0.2},
            {"still_while_moving_s": 0.9},
        ),
        ("SIG006", {"black_fraction": 0.0}, {"black_fraction": 0.2}),
    ],
)
def test_cameras(rule: str, good: dict[str, float], bad: dict[str, float]) -> None:
    base = {"name": "c", "frames_checked": 100, "still_longest_s": 0.9, "black_fraction": 0.0}
    for facts, status in ((good, Status.PASSED), (bad, Status.FAILED)):
        ledger = {"streams": [{**base, **facts}], "pairs": []}
        (found,) = run_checks(Context(episode(CLEAN), ledger), select=[rule])
        assert found.status is status
    for facts in ({}, {"still_while_moving_s": 0.1}):
        ledger = {"streams": [{**base, **facts}]}
        (found,) = run_checks(Context(episode(CLEAN), ledger), select=["SIG005"])
        assert found.status is Status.NOT_ASSESSED


def test_ids_are_stable_and_clauses_second_hand() -> None:
    known = {rule.id: rule for rule in rules()}
    assert {f"TIM{i:03d}" for i in range(1, 22)} <= set(known)
    assert {f"SIG{i:03d}" for i in range(1, 7)} <= set(known)
    for rule in known.values():
        assert rule.why, rule.id
        if rule.clause:
            assert "Second-hand" in rule_pages.rule_page(rule)


def test_rule_pages_are_current(tmp_path: Path) -> None:
    rule_pages.write_pages(tmp_path)
    folder = Path(__file__).parents[2] / "docs" / "rules"
    for page in tmp_path.iterdir():
        current = (folder / page.name).read_text(encoding="utf-8")
        assert current == page.read_text(encoding="utf-8"), (
            f"{page.name} is stale: run python -m mmdata.checks.pages docs/rules"
        )


def test_selection_and_unknown_patterns() -> None:
    context = Context(episode(CLEAN), {})
    assert {f.rule for f in run_checks(context, select=["SIG*"], exclude=["SIG002"])} == {
        rule.id for rule in rules() if rule.id.startswith("SIG") and rule.id != "SIG002"
    }
    with pytest.raises(ConfigError, match="NOPE"):
        run_checks(context, exclude=["NOPE*"])


def test_one_id_cannot_mean_two_rules() -> None:
    rules()
    with pytest.raises(ConfigError, match="TIM001"):

        @check("TIM001", title="x", severity=Severity.INFO)
        def other(context: Context) -> list[Any]:
            return []


def finding(status: str, severity: str) -> Finding:
    return Finding("X", Status(status), Severity(severity), None, None, None, "")


def test_verdict_and_exit_code() -> None:
    good, open_error = finding("PASSED", "error"), finding("NOT_ASSESSED", "error")
    warning, error = finding("FAILED", "warning"), finding("FAILED", "error")
    assert verdict([good, warning, open_error]) == "PASSED"
    assert verdict([good, warning], strict=True) == "FAILED"
    assert verdict([good, open_error], strict=True) == "NOT_ASSESSED"
    assert verdict([good, error]) == "FAILED"
    assert verdict([open_error]) == "NOT_ASSESSED"
    assert exit_code(["PASSED"]) == 0
    assert exit_code(["PASSED", "FAILED", "NOT_ASSESSED"]) == 1
    assert exit_code(["PASSED", "NOT_ASSESSED"]) == 0
    assert exit_code(["PASSED", "NOT_ASSESSED"], strict=True) == 1


def test_json_keys() -> None:
    assert list(finding("PASSED", "info").to_dict()) == [
        "rule", "status", "severity", "stream", "value", "limit", "message", "details",
    ]  # fmt: skip


def test_importing_checks_loads_nothing_heavy() -> None:
    code = (
        "import sys, mmdata.checks; "
        "print([m for m in ('h5py', 'scipy', 'cv2', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
