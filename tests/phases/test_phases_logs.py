"""Sample logs: for evaluation only, nothing was tuned on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmdata.phases import Interval, evaluate, score_episode, segment
from mmdata.phases.metrics import onset_errors_ms
from mmdata.store import open_episode


@pytest.mark.slow
def test_pick_place_logs(shared_data: Path, tmp_path: Path) -> None:
    from mmdata.conversion.job import convert_source
    from mmdata.conversion.sources import find_sources

    scores, errors = [], []
    logs = sorted(p for p in (shared_data / "sim").iterdir() if p.is_dir())
    if not logs:
        pytest.skip("no simulated logs among the samples")
    for log in logs:
        truth = json.loads((log.parent / f"{log.name}.truth.json").read_text())
        path = convert_source(find_sources([log]).sources[0], tmp_path).episodes[0].path
        with open_episode(path) as ep:
            found = segment(ep)
        true = [Interval(p["label"], p["start_ns"], p["end_ns"]) for p in truth["script_phases"]]
        scores.append(score_episode(found.intervals(), true))
        onsets = [e.stamp_ns for e in found.events if e.label == "contact_on"]
        contacts = [c["start_ns"] for c in truth["contact_intervals"]]
        assert len(onsets) == len(contacts)
        errors += onset_errors_ms(onsets, contacts).tolist()
        assert found.outcome.label == ("success" if truth["success"] else "failure")
    got = {name: s.value for name, s in evaluate(scores, resamples=2).items()}
    assert got["boundary_f1@250ms"] >= 0.9
    assert got["f1@50"] >= 80.0
    assert len(errors) == len(logs)
    assert np.abs(errors).max() <= 30.0
