"""The table of `loader.py`, and its figures set against one another."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def report(found: dict[str, Any], console: Console) -> None:
    """Print everything that has been found, whichever parts it came from."""
    table = Table(
        "reader", "order", "workers", "threads", "samples/s", "per CPU s", "first batch s",
        "memory MB", "MB on disk", title="samples with two 640x480 frames",
    )  # fmt: skip
    for part in ("jpeg", "video", "versus", "peers"):
        for row in found.get(part, {}).get("rows", []):
            table.add_row(*_cells(row))
        table.add_section()
    console.print(table)
    for line in [
        *_errors(found), *_against_limits(found), *_against_lerobot(found), *_sizes(found),
        *_signals(found), *_memory(found), *_many(found),
    ]:  # fmt: skip
        console.print(line, highlight=False)


def _cells(row: Row) -> list[str]:
    case = [row["reader"], row["order"], str(row["workers"]), str(row["threads"])]
    if "error" in row:
        return [*case, row["error"]]
    figures = (
        ("samples_s", ".0f"), ("samples_cpu_s", ".0f"), ("first_s", ".2f"), ("memory_mb", ".0f"),
        ("disk_mb", ".1f"),
    )  # fmt: skip
    return case + [format(row[name], form) if name in row else "" for name, form in figures]


def _errors(found: dict[str, Any]) -> list[str]:
    return [
        f"part {name} failed: {part['error']}" for name, part in found.items() if "error" in part
    ]


def _row(found: dict[str, Any], part: str, reader: str, order: str, way: tuple[int, int]) -> Row:
    for row in found.get(part, {}).get("rows", []):
        if (row["reader"], row["order"], row["workers"], row["threads"]) == (reader, order, *way):
            return dict(row) if "error" not in row else {}
    return {}


def _against_limits(found: dict[str, Any]) -> list[str]:
    """The median over all turns of a reader's speed by that of bare decoding next to it."""
    lines = []
    for part, orders, limits in (
        ("jpeg", ["random"], ["JPEG"]),
        ("video", ["block shuffle", "sequential"], ["H.264 to RGB", "H.264"]),
    ):
        turns = found.get(part, {}).get("turns", {})
        for order, name in product(orders, limits):
            reader, limit = turns.get(order, {}), turns.get(name, {})
            if "frames_s" in reader and "frames_s" in limit:
                shares = [
                    np.percentile(np.divide(reader[unit], limit[unit]), [50, 10, 90])
                    for unit in ("frames_s", "frames_cpu_s")
                ]
                lines.append(
                    f"mmdata {part}, {order}, one thread: {shares[0][0]:.0%} of bare {name} "
                    f"decoding ({np.median(limit['frames_s']):.0f} frames/s), by CPU time "
                    f"{shares[1][0]:.0%} (80 % of {len(limit['frames_s'])} turns lie between "
                    f"{shares[1][1]:.0%} and {shares[1][2]:.0%})"
                )
            elif "error" in reader or "error" in limit:
                lines.append(f"{order} against {name}: {reader.get('error', limit.get('error'))}")
    return lines


def _against_lerobot(found: dict[str, Any]) -> list[str]:
    lines = []
    for way in ((0, 2), (1, 1), (2, 1)):
        peer = _row(found, "versus", "LeRobotDataset h264", "random", (way[0], 1))
        parts = []
        for reader, order in (
            ("mmdata jpeg", "random"), ("mmdata h264-gop2", "random"),
            ("mmdata h264", "block shuffle"),
        ):  # fmt: skip
            row = _row(found, "versus", reader, order, way)
            if peer and row:
                part = f"{reader} {order} {row['samples_s'] / peer['samples_s']:.1f}x"
                if "samples_cpu_s" in row and "samples_cpu_s" in peer:
                    times = row["samples_cpu_s"] / peer["samples_cpu_s"]
                    part += f" ({times:.1f}x per CPU second)"
                parts.append(part)
        if parts:
            lines.append(
                f"against LeRobotDataset ({peer['samples_s']:.0f} samples/s), {way[0]} workers "
                f"each: {', '.join(parts)}"
            )
    return lines


def _sizes(found: dict[str, Any]) -> list[str]:
    disk = found.get("data", {}).get("disk_mb")
    if not disk:
        return []
    sizes = ", ".join(f"{kind} {mb:.1f}" for kind, mb in disk.items())
    return [f"MB: {sizes}; H.264 is {disk['jpeg'] / disk['h264']:.1f}x smaller than JPEG 95"]


def _signals(found: dict[str, Any]) -> list[str]:
    part, lines = found.get("signals", {}), []
    for kind, how in (("single", "one by one"), ("batched", "in batches of 256")):
        if row := part.get("short", {}).get(kind):
            lines.append(
                f"without images, one process, {how}: {row['samples_s']:,.0f} samples/s, "
                f"{row['samples_cpu_s']:,.0f} per CPU second"
            )
    if long := part.get("long"):
        lines.append(f"windows of one long signal, batches of 64: {_plain(long)}")
    return lines


def _memory(found: dict[str, Any]) -> list[str]:
    lines = []
    for case, facts in found.get("memory", {}).items():
        if isinstance(facts, dict):
            held = facts.get("resident_mb")
            text = "; ".join(", ".join(map(str, m)) for m in held) if held else _plain(facts)
            lines.append(f"memory over three epochs, MB per process, {case}: {text}")
    return lines


def _many(found: dict[str, Any]) -> list[str]:
    part = found.get("many", {})
    return [f"many episodes, {name}: {_plain(facts)}" for name, facts in part.items()
            if isinstance(facts, dict)]  # fmt: skip


def _plain(facts: Row) -> str:
    def text(value: Any) -> str:
        return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" \
            if isinstance(value, int) else str(value)  # fmt: skip

    return ", ".join(f"{name} {text(value)}" for name, value in facts.items())
