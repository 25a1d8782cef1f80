"""Labels of datasets as annotations: texts over runs of rows, spans that last until the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from mmdata.clocks import Stamps
from mmdata_schema import Caption, Phase, stable_id


class Spans:
    """Captions and phases of one episode, from what rows say.

    A span that starts at one row ends at the next row's stamp; the last row's ends one median
    period later (1 ns where there is one row only).
    """

    def __init__(self, stamps: Stamps, episode: str) -> None:
        self.stamps = stamps
        self.episode = episode
        self.captions: list[Any] = []
        self.phases: list[Any] = []

    @property
    def end_ns(self) -> int:
        """End of the last row."""
        if len(self.stamps) < 2:
            return int(self.stamps[-1]) + 1 if len(self.stamps) else 1
        return int(self.stamps[-1]) + max(1, int(np.median(np.diff(self.stamps))))

    def edge(self, row: int) -> int:
        """Stamp of a row; of one beyond the last, the end."""
        return int(self.stamps[row]) if row < len(self.stamps) else self.end_ns

    def whole(self, key: str, texts: Iterable[str], style: str) -> None:
        """Texts about the whole episode."""
        for text in texts:
            if text:
                ident = stable_id("caption", self.episode, key, style, text)
                self.captions.append(Caption(id=ident, text=text, style=style))

    def texts(self, key: str, per_row: Sequence[str | None], style: str) -> None:
        """One text per row: a caption per run of equal ones, without a span if it never changes.

        Sub-tasks become phases too.
        """
        runs = [(t, sum(1 for _ in g)) for t, g in groupby(per_row)]
        if len(runs) == 1:
            self.whole(key, [runs[0][0] or ""], style)
        row = 0
        for text, count in runs:
            if text and style == "subtask":
                self.phase("subtask", text, self.edge(row), self.edge(row + count))
            if text and len(runs) > 1:
                self.caption(key, text, style, self.edge(row), self.edge(row + count))
            row += count

    def caption(
        self, key: str, text: str, style: str, start_ns: int, end_ns: int, **more: Any
    ) -> None:
        """A caption over a span."""
        ident = stable_id(
            "caption", self.episode, key, style, start_ns, end_ns, text, *more.items()
        )
        if end_ns > start_ns and all(c.id != ident for c in self.captions):
            self.captions.append(
                Caption(id=ident, text=text, style=style, start_ns=start_ns, end_ns=end_ns, **more)
            )

    def phase(self, tier: str, label: str, start_ns: int, end_ns: int, **more: Any) -> str | None:
        """A phase; its id, or None when it is empty."""
        label = " ".join(label.split())[:256]
        if end_ns <= start_ns or not label:
            return None
        ident = stable_id("phase", self.episode, tier, label, start_ns, end_ns)
        if all(p.id != ident for p in self.phases):
            self.phases.append(
                Phase(id=ident, tier=tier, label=label, start_ns=start_ns, end_ns=end_ns, **more)
            )
        return ident

    def since(
        self,
        key: str,
        entries: Sequence[tuple[int, str, str, str | None, str | None]],
        persistent: bool,
    ) -> None:
        """Entries (stamp, text, style, role, stream). Persistent ones last until the next of their
        style; others are of one row. Sub-tasks become phases too.
        """
        for style in dict.fromkeys(e[2] for e in entries):
            own = [e for e in entries if e[2] == style]
            stops = sorted({e[0] for e in own})
            after = dict(pairwise([*stops, self.end_ns]))
            for stamp, text, _, role, stream in own:
                if persistent:
                    end = after[stamp]
                else:
                    row = int(np.searchsorted(self.stamps, stamp, side="right"))
                    end = self.edge(row)
                more = {k: v for k, v in (("role", role), ("stream", stream)) if v}
                self.caption(key, text, style, stamp, end, **more)
                if persistent and style == "subtask":
                    self.phase("subtask", text, stamp, end)
