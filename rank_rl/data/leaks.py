"""What a recipe's leak check does: ``data.leaks`` before training, ``bench.leaks`` before ranking.

Before training, the training and validation queries that are left after ``divide``, their
annotations and the recipe's lessons are compared with the whole test part (before ``max_test``)
and with other test collections; what overlaps is reported or removed. Before a benchmark, its test
queries are compared with what was trained on. Comparing itself is ``leak_report``.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.data import leak_files, lessons, splits
from rank_rl.data.files import some
from rank_rl.data.leak_report import Report, Sample, compare
from rank_rl.data.splits import Division, Tasks, normalised
from rank_rl.specs import DataSpec, LeakSpec

if TYPE_CHECKING:
    from rank_rl.data import Collection
    from rank_rl.data.trained import Training

logger = logging.getLogger(__name__)
EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """What may be trained on.

    ``facts`` is the JSON-safe report, empty without ``data.leaks``; ``leaking`` are queries,
    ``normalised``, whose lessons must not be trained on.
    """

    train: Tasks
    validation: Tasks
    facts: Mapping[str, Any] = field(default_factory=dict)
    leaking: frozenset[str] = frozenset()


def sift(spec: DataSpec, division: Division, name: str) -> Sifted:
    """Compare training data with test queries as ``spec.leaks`` says.

    Args:
        spec: the ``data`` section of a recipe.
        division: its parts.
        name: of the collection.

    Raises:
        DataError: a file of ``leaks.against``, or of lessons, that cannot be read.
    """
    train, validation = division.train, division.validation
    if spec.leaks is None:
        return Sifted(train=train, validation=validation)
    test = list(leak_files.of_tasks(division.whole_test, name))
    for other in spec.leaks.against:
        test += leak_files.samples(other, "test")
    own = leak_files.of_tasks((*train, *validation), name)
    taught = _lessons(spec, (*validation, *division.test))
    asked: dict[tuple[str, str], str] = {}
    report = compare(_noted(itertools.chain(own, taught), asked), test, spec.leaks)
    _warn(report, spec.leaks.action)
    found = sorted(report.leaking)
    facts = {"action": spec.leaks.action, **report.as_dict(texts=False)}
    facts |= {"examples": _examples(report)}
    if spec.leaks.action == "report":
        return Sifted(train=train, validation=validation, facts=facts)
    qids = frozenset(where for source, where in found if source == name)
    kept = splits.without(train, qids), splits.without(validation, qids)
    removed = {
        "train": len(train) - len(kept[0]),
        "validation": len(validation) - len(kept[1]),
        "lessons": len(found) - len(qids),
    }
    return Sifted(
        train=kept[0],
        validation=kept[1],
        facts=facts | {"removed": removed},
        leaking=frozenset(normalised(asked[key]) for key in found),
    )


def bench_leaks(
    spec: LeakSpec, collection: Collection, training: Training | None = None
) -> dict[str, Any]:
    """Compare a collection's test queries with what was trained on.

    Args:
        spec: ``bench.leaks``; ``against`` names further training data.
        collection: whose test part is ranked.
        training: what was trained on; None is the collection's own training and validation parts.

    Returns:
        ``Report.as_dict`` without texts, and ``action``; ``left_out``, the ids of the queries that
        do not count (none with action report); ``unknown``, whose training data could not be
        compared; ``examples``, a few pairs with both texts.

    Raises:
        DataError: a file of ``against`` cannot be read.
    """
    name = collection.name
    own = (*collection.train, *collection.validation)
    trained = training.samples() if training else leak_files.of_tasks(own, name)
    others = itertools.chain.from_iterable(leak_files.samples(o, "train") for o in spec.against)
    test = list(leak_files.of_tasks(collection.test, name))
    report = compare(itertools.chain(trained, others), test, spec)
    found = list(report.overlapping.values())
    qids = [one.qid for one in found]
    if found:
        out = " and are left out of the means" if spec.action == "filter" else ""
        logger.warning(
            "%s: %s of %s test queries overlap with training data%s: %s",
            name, len(found), len(test), out, some(qids),
        )  # fmt: skip
    return {
        "action": spec.action,
        **report.as_dict(texts=False),
        "left_out": qids if spec.action == "filter" else [],
        "unknown": list(training.unknown) if training else [],
        "examples": _examples(report),
    }


def learned(spec: DataSpec, collection: Collection) -> Iterator[Sample]:
    """What is trained on with a recipe that was loaded: queries of both parts, and lessons."""
    own = (*collection.train, *collection.validation)
    yield from leak_files.of_tasks(own, collection.name)
    for sample in _lessons(spec, (*collection.validation, *collection.test)):
        if normalised(sample.query) not in collection.leaking:
            yield sample


def _lessons(spec: DataSpec, held_out: Tasks) -> Iterator[Sample]:
    """The lessons of a recipe, but for those that stage sft leaves out anyway."""
    path = Path(spec.lessons).expanduser() if spec.lessons else None
    # Only stage sft reads lessons, and says so when they are not there.
    if path is not None and path.exists():
        found = leak_files.samples(str(lessons.lesson_file(path)), "train")
        yield from leak_files.without(found, held_out)


def _noted(found: Iterator[Sample], asked: dict[tuple[str, str], str]) -> Iterator[Sample]:
    """Pass samples on and note the query of each."""
    for sample in found:
        asked[sample.source, sample.where] = sample.query
        yield sample


def _examples(report: Report) -> list[dict[str, str]]:
    found = itertools.islice(report.overlapping.values(), EXAMPLES)
    return [
        {"qid": o.qid, "kind": o.kind, "query": o.query, "with": o.where, "other": o.text}
        for o in found
    ]


def _warn(report: Report, action: str) -> None:
    if not report.leaking:
        return
    names = [f"{one.where} ~ {qid} ({one.kind})" for (_, qid), one in report.overlapping.items()]
    done = "removed" if action == "filter" else "kept (data.leaks.action: filter removes them)"
    logger.warning(
        "%s training examples overlap with test queries and are %s: %s",
        len(report.leaking), done, some(names),
    )  # fmt: skip
