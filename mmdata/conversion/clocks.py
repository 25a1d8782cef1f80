"""`--clock fit`: header clocks mapped to the receive clock by what the stamps show."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmdata.align.stored import realign
from mmdata.clocks import SAME_EPOCH_NS
from mmdata.store import open_episode, restamp_streams

#: A drift below this over a whole recording is not worth touching stamps for.
_LEAST_DRIFT_NS = 200_000


def fit_episode_clocks(path: Path) -> list[str]:
    """Map every stream that allows it; returns a line per stream for people.

    The map is the lower hull of receive against header stamps (mmdata.sync.clockmap), in windows
    of a minute. Source stamps stay; the maps are written under /clocks. The least delay of the
    transport cannot be told from an offset of the clock. A header clock in the receive clock's
    epoch therefore loses its drift only, counted from its first stamp, and is left alone where the
    drift is within its uncertainty; a clock in another epoch is mapped in full and holds that
    delay. An episode whose reference is not the receive clock's epoch is left as it is, and so are
    streams too short or without both stamps.
    """
    from mmdata.sync.clockmap import apply_windows, fit_streams

    with open_episode(path) as episode:
        reference = episode.clocks.get(episode.reference_clock)
        if reference is None or reference.epoch != "unix":
            return ["--clock fit left the clocks alone: the episode is not on the receive clock"]
        fits = fit_streams(episode.streams)
        stamps, clocks, lines = {}, {}, []
        for name, windows in fits.items():
            source = episode.streams[name].source_ns
            assert source is not None
            if (source == 0).any():
                continue  # unset headers were placed by receive stamps; no map holds for them
            mapped = apply_windows(windows, source)
            correction = mapped - source
            middle = windows[len(windows) // 2]
            facts = {"epoch": "unix", **middle.to_attrs(), "n": sum(w.n for w in windows)}
            if abs(int(correction[0])) < SAME_EPOCH_NS:
                span_ns = float(np.ptp(source))
                noise_ns = 3e-6 * middle.skew_sigma_ppm * span_ns
                if np.ptp(correction) <= max(noise_ns, _LEAST_DRIFT_NS):
                    continue
                mapped = mapped - correction[0]
                facts["offset_ns"] = round(middle.offset_ns) - int(correction[0])
                facts["method"] = f"{facts['method']}, drift only"
            stamps[name], clocks[name] = mapped, facts
            lines.append(
                f"clock of {name}: {facts['offset_ns'] / 1e6:+.3f} ms at mid-recording, "
                f"{middle.skew_ppm:+.2f} ppm ({len(windows)} windows)"
            )
    if stamps:
        restamp_streams(path, stamps, clocks)
        realign(path)
    return lines
