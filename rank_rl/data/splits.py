"""Train, validation and test: chosen by hash, cut by hash, and checked for leaks.

Contract: every choice depends on the seed and the query id alone, never on file order; what is
kept stays in file order. A training query that is also a test query is removed and counted.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl import seeds
from rank_rl.data.files import some
from rank_rl.errors import DataError
from rank_rl.records import RankingTask
from rank_rl.specs import DataSpec

logger = logging.getLogger(__name__)
UNSPLIT = "all"
Tasks = tuple[RankingTask, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """What a training and a test part share.

    ``qids`` are shared query ids; ``texts`` are ids of further training queries whose normalised
    text is that of a test query; ``documents`` are docids relevant in both parts.
    """

    qids: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()

    @property
    def removable(self) -> frozenset[str]:
        """Ids of the training queries that must not be trained on."""
        return frozenset((*self.qids, *self.texts))

    def as_dict(self) -> dict[str, Any]:
        """JSON form: the removed queries by name, shared documents as a count."""
        return {
            "shared_qids": list(self.qids),
            "shared_texts": list(self.texts),
            "removed_queries": len(self.removable),
            "shared_relevant_documents": len(self.documents),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The three parts, and what was shared with test and (of training) with validation.

    ``whole_test`` is the test part before ``max_test``.
    """

    train: Tasks
    validation: Tasks
    test: Tasks
    whole_test: Tasks
    leaks: LeakReport
    validation_leaks: LeakReport


def normalised(text: str) -> str:
    """Query text without case, punctuation, width and spacing, for comparing queries."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def check_leaks(train: Sequence[RankingTask], test: Sequence[RankingTask]) -> LeakReport:
    """Find query ids, query texts and relevant documents that two parts share."""
    test_ids = {t.query.qid for t in test}
    test_texts = {normalised(t.query.text) for t in test}
    shared = tuple(t.query.qid for t in train if t.query.qid in test_ids)
    texts = tuple(
        t.query.qid
        for t in train
        if t.query.qid not in test_ids and normalised(t.query.text) in test_texts
    )
    documents = tuple(sorted(_relevant(train) & _relevant(test)))
    return LeakReport(qids=shared, texts=texts, documents=documents)


def wanted(spec: DataSpec, available: Sequence[str]) -> tuple[str, ...]:
    """Names of the splits a recipe uses, out of those a source has.

    Raises:
        DataError: a split that the source does not have, or one used for two purposes.
    """
    if set(available) == {UNSPLIT}:
        return (UNSPLIT,)
    named = {
        "train_split": spec.train_split,
        "validation_split": spec.validation_split or "",
        "test_split": spec.test_split,
    }
    for key, name in named.items():
        if name and name not in available:
            raise DataError(
                f"no split {name!r}",
                where=f"data.{key}",
                expected=f"one of {', '.join(sorted(available))}",
                remedy=f"{key}: '' leaves that part empty",
            )
    used = [name for name in named.values() if name]
    if not used or len(set(used)) < len(used):
        raise DataError(
            f"train, validation and test are {used}", where="data", expected="different splits"
        )
    return tuple(used)


def divide(parts: Mapping[str, Tasks], spec: DataSpec, *, seed: int) -> Division:
    """Divide a source's splits into train, validation and test.

    Training and validation queries that are also in test, and training queries that are also
    in validation, are removed. Validation is a named split or a share of the training queries;
    queries that share a relevant document go to the same side where that is possible, or it would
    overrate what was learned.
    A source without splits is test only, unless ``params.test_share`` is given.

    Raises:
        DataError: a split that does not exist or a share outside [0, 1].
    """
    parts = _by_share(parts, spec, seed)
    wanted(spec, list(parts))
    train = parts[spec.train_split] if spec.train_split else ()
    test = parts[spec.test_split] if spec.test_split else ()
    held = parts[spec.validation_split] if spec.validation_split else ()
    leaks = check_leaks((*train, *held), test)
    train, held = without(train, leaks.removable), without(held, leaks.removable)
    if not spec.validation_split:
        chosen = _held_out(train, round(spec.validation * len(train)), seed)
        held = tuple(t for t in train if t.query.qid in chosen)
        train = without(train, chosen)
    own_leaks = check_leaks(train, held)
    for report, name in ((leaks, "test"), (own_leaks, "validation")):
        if report.removable:
            names = some(sorted(report.removable))
            logger.warning("removed training queries that are also in %s: %s", name, names)
    return Division(
        train=cut(without(train, own_leaks.removable), spec.max_train, seed),
        validation=cut(held, spec.max_validation, seed),
        test=cut(test, spec.max_test, seed),
        whole_test=test,
        leaks=leaks,
        validation_leaks=own_leaks,
    )


def cut(tasks: Tasks, most: int | None, seed: int) -> Tasks:
    """Keep at most ``most`` tasks: those with the lowest hash, in their original order."""
    if most is None or len(tasks) <= most:
        return tasks
    kept = _lowest(tasks, most, seed, "cut")
    return tuple(t for t in tasks if t.query.qid in kept)


def without(tasks: Tasks, qids: frozenset[str]) -> Tasks:
    """Return the tasks whose query id is not in ``qids``."""
    return tuple(t for t in tasks if t.query.qid not in qids)


def _by_share(parts: Mapping[str, Tasks], spec: DataSpec, seed: int) -> Mapping[str, Tasks]:
    if set(parts) != {UNSPLIT}:
        return parts
    share = spec.params.get("test_share", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise DataError(
            f"test_share is {share!r}", where="data.params", expected="a number from 0 to 1"
        )
    tasks = parts[UNSPLIT]
    chosen = _lowest(tasks, round(share * len(tasks)), seed, "test")
    test = tuple(t for t in tasks if t.query.qid in chosen)
    return {spec.train_split: without(tasks, chosen), spec.test_split: test}


def _lowest(tasks: Tasks, count: int, seed: int, purpose: str) -> frozenset[str]:
    qids = sorted((t.query.qid for t in tasks), key=lambda q: (seeds.derive(seed, purpose, q), q))
    return frozenset(qids[:count])


def _held_out(tasks: Tasks, count: int, seed: int) -> frozenset[str]:
    """At most ``count`` query ids that share no relevant document with the other tasks.

    Families of queries with relevant documents in common are taken in the order of their lowest
    hash, as far as they fit. Where that gives less than half of ``count``, the queries of lowest
    hash are taken.
    """

    def place(family: set[str]) -> int:
        return min(seeds.derive(seed, "validation", qid) for qid in family)

    chosen: set[str] = set()
    for family in sorted(_families(tasks), key=place):
        if len(chosen) + len(family) <= count:
            chosen |= family
    if len(chosen) >= count / 2:
        return frozenset(chosen)
    logger.warning(
        "validation queries share relevant documents with training queries, which are too "
        "interwoven to be held apart: what validation says is too good"
    )
    return _lowest(tasks, count, seed, "validation")


def _families(tasks: Tasks) -> list[set[str]]:
    """Query ids joined, directly or through other queries, by relevant documents."""
    families: list[set[str]] = []
    known: list[set[str]] = []
    for task in tasks:
        qids, documents = {task.query.qid}, _relevant([task])
        for i in reversed([i for i, seen in enumerate(known) if seen & documents]):
            qids |= families.pop(i)
            documents |= known.pop(i)
        families.append(qids)
        known.append(documents)
    return families


def _relevant(tasks: Sequence[RankingTask]) -> set[str]:
    return {d for t in tasks for d, g in (t.grades or {}).items() if g > 0}
