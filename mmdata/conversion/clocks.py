"""`--clock fit`: header clocks mapped to the receive clock by what the stamps show."""

from __future__ import annotations

from pathlib import Path

from mmdata.align.stored import realign
from mmdata.store import open_episode, restamp_streams


def fit_episode_clocks(path: Path) -> list[str]:
    """Map every stream that allows it; returns a line per stream for people.

    The map is the lower hull of receive against header stamps (mmdata.sync.clockmap), in windows
    of a minute. Source stamps stay; the maps are written under /clocks. Mapped stamps hold the
    least delay of the transport, which no stamp can show. An episode whose reference is not the
    receive clock's epoch is left as it is, and so are streams too short or without both stamps.
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
            stamps[name] = apply_windows(windows, source)
            middle = windows[len(windows) // 2]
            clocks[name] = {"epoch": "unix", **middle.to_attrs(), "n": sum(w.n for w in windows)}
            lines.append(
                f"clock of {name}: {middle.offset_ns / 1e6:+.3f} ms, "
                f"{middle.skew_ppm:+.2f} ppm over {len(windows)} windows"
            )
    if stamps:
        restamp_streams(path, stamps, clocks)
        realign(path)
    return lines
