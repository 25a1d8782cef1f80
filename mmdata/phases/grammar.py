"""Grammars: the phases of a task family, what each looks like and what may follow, from YAML.

The grammars that ship lie in `mmdata/phases/grammars/*.yaml`; a user's own file has the same form
(docs/phases.md). Nothing in a grammar depends on a rate: lengths are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmdata.errors import ConfigError

HERE = Path(__file__).parent / "grammars"


class State(BaseModel):
    """One phase. `expect`: fact -> probability that it holds; facts not named may be anything.

    `enter`: kinds of instant (in order of trust) that mark the beginning; the first is the
    convention. `next`: phase -> probability of following.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    expect: dict[str, float] = {}
    enter: list[str] = []
    next: dict[str, float] = {}
    typical_s: float = Field(gt=0)
    spread: float = Field(default=0.7, gt=0)
    shortest_s: float = Field(default=0.1, ge=0)
    label: str | None = None

    @model_validator(mode="after")
    def _probabilities(self) -> State:
        for name, p in {**self.expect, **self.next}.items():
            if not 0.0 < p <= 1.0:
                raise ValueError(f"{name}: {p} is not a probability in (0, 1]")
        return self


class Grammar(BaseModel):
    """A task family. `needs`: facts without which the family cannot be told and is not used.

    `must`: facts that have to hold at some time. `words`: what a task description may say.
    `explains`: share of the plain changes its boundaries must account for where it was not asked
    for by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    describes: str
    domain: Literal["arm", "two_arms", "base"]
    words: list[str] = []
    needs: list[str] = []
    must: list[str] = []
    explains: float = Field(default=0.4, ge=0.0, le=1.0)
    start: dict[str, float]
    end: dict[str, float] = {}
    states: dict[str, State]

    @model_validator(mode="after")
    def _known(self) -> Grammar:
        used = {*self.start, *self.end, *(n for s in self.states.values() for n in s.next)}
        if unknown := sorted(used - set(self.states)):
            raise ValueError(f"unknown states {unknown}; there are {sorted(self.states)}")
        return self

    def label(self, state: str) -> str:
        """The label written for a state; several states may share one."""
        return self.states[state].label or state


def read_grammar(path: Path | str) -> Grammar:
    """A grammar file. Raises ConfigError saying what is wrong in it, FileNotFoundError."""
    import yaml

    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Grammar.model_validate(document)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {_first_line(error)}") from error
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise ConfigError(f"{path}: not a grammar: {where}") from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@cache
def shipped() -> Mapping[str, Grammar]:
    """Grammars that come with mmdata, by name."""
    found = (read_grammar(path) for path in sorted(HERE.glob("*.yaml")))
    return {grammar.name: grammar for grammar in found}


def find_grammar(name: str) -> Grammar:
    """A shipped grammar by name, or one from a file. Raises ConfigError naming those there are."""
    if name in shipped():
        return shipped()[name]
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return read_grammar(name)
    raise ConfigError(
        f"no grammar {name!r}: give one of {', '.join(shipped())}, none, auto, or a .yaml file"
    )
