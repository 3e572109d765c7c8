"""Randomness that depends on the item, not on the order of events.

Every random choice derives its generator from a run seed and the names of what it is about, so a
run that is resumed, sharded or reordered draws the same numbers.
"""

from __future__ import annotations

import hashlib
import random


def derive(seed: int, *names: object) -> int:
    """Return a 63-bit seed for ``names`` under ``seed``; stable over runs and platforms."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: object) -> random.Random:
    """Return a private ``random.Random`` for ``names`` under ``seed``."""
    return random.Random(derive(seed, *names))
