"""How training data and test collections are compared before training and benchmarking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rank_rl.specs.base import Spec


class LeakSpec(Spec):
    """Overlap between training data and test collections: ids, queries, relevant documents.

    ``against``: further data to compare with, each a file or folder: tasks (JSONL), a BEIR folder,
    queries (TSV or JSONL), lessons, rows of chats, or ``bundled:NAME``. In a training stage they
    are test collections, in ``bench`` training data. A test query overlaps when a training text
    has the share ``share`` of its word n-grams of length ``ngram``, and of its words by their
    rarity; in scripts without spaces two characters stand for a word. Shorter queries are compared
    as a whole. Documents likewise with ``document_ngram`` (GPT-3's check used 13; Brown et al.,
    2020). ``action``: ``report`` counts and names them, ``filter`` leaves out training queries
    and lessons that overlap (in ``bench``: adds no such test query to the means).
    """

    action: Literal["report", "filter"] = "report"
    against: list[str] = []
    ngram: int = Field(default=3, ge=1)
    document_ngram: int = Field(default=13, ge=1)
    share: float = Field(default=0.6, gt=0, le=1)
