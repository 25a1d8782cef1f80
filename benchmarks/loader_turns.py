"""Readers measured in turns, second by second, so that a busy machine slows all of them alike."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

#: How long each reader runs before it is measured: its memory is all there then.
WARM_S = 3.0


def in_turns(
    readers: Mapping[str, Callable[[], Iterator[int]]], turns: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Frames per second of each reader in each turn, per second of time and of CPU time.

    readers: name -> iterator of numbers of frames. Each runs in a fork of its own, which sleeps
    while it is not its turn. A reader that fails has "error" instead.
    """
    forks = {name: _fork(reader, seconds) for name, reader in readers.items()}
    found: dict[str, Any] = {name: {"frames_s": [], "frames_cpu_s": []} for name in readers}
    for turn in range(turns + 1):
        for name, (_, asking, answers) in forks.items():
            if "error" in found[name]:
                continue
            os.write(asking, b"." if turn else b"w")
            answer = json.loads(answers.readline() or '{"error": "the reader died"}')
            if "error" in answer:
                found[name] = answer
            elif turn:
                for unit, value in answer.items():
                    found[name][unit].append(value)
    for _, asking, answers in forks.values():  # all first: later forks hold these, too
        os.close(asking)
        answers.close()
    for process, _, _ in forks.values():
        os.waitpid(process, 0)
    return found


def _fork(reader: Callable[[], Iterator[int]], seconds: float) -> tuple[int, int, Any]:
    asked, asking = os.pipe()
    answers, answering = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(asking)
        os.close(answers)
        _serve(reader, seconds, asked, answering)
    os.close(asked)
    os.close(answering)
    return process, asking, os.fdopen(answers)


def _serve(
    reader: Callable[[], Iterator[int]], seconds: float, asked: int, answering: int
) -> NoReturn:
    try:
        frames = reader()
        while order := os.read(asked, 1):
            answer = _measure(frames, WARM_S if order == b"w" else seconds)
            os.write(answering, (json.dumps(answer) + "\n").encode())
    except BaseException as error:  # told in the report instead of a number
        traceback.print_exc()
        answer_error = {"error": f"{type(error).__name__}: {error}"}
        os.write(answering, (json.dumps(answer_error) + "\n").encode())
    os._exit(0)


def _measure(frames: Iterator[int], seconds: float) -> dict[str, float]:
    start, used, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        count += next(frames)
    passed, used = time.perf_counter() - start, time.process_time() - used
    return {"frames_s": count / passed, "frames_cpu_s": count / used}
