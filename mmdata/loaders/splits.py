"""Which split an episode belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from mmdata.errors import ConfigError


def assign(episode_id: str, fractions: Mapping[str, float], seed: int = 0) -> str:
    """Name of the part an episode falls in: a function of its id and the seed alone.

    fractions: name -> share, adding up to 1. Raises ConfigError otherwise.
    """
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-9:
        raise ConfigError(f"shares must be positive and add up to 1: {dict(fractions)}")
    digest = hashlib.sha256(f"{seed}:{episode_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    edge = 0.0
    for name, share in fractions.items():
        edge += share
        if place < edge:
            return name
    return name
