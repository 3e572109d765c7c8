"""The order that trec_eval gives scored documents: a run is worth here what it is worth there.

trec_eval sorts by score and then by document id, both descending, and ignores the rank column. Up
to version 9, which pytrec_eval and ir_measures carry, scores are single precision: those that
agree in seven digits are tied. Version 10 compares all digits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping


def evaluated_order(scores: Mapping[str, float]) -> tuple[str, ...]:
    """Docids as trec_eval 9 ranks them: by score in single precision, ties by docid, descending."""
    return tuple(sorted(scores, key=lambda docid: (_single(scores[docid]), docid), reverse=True))


def _single(score: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", score))[0])
    except OverflowError:
        return math.copysign(math.inf, score)
