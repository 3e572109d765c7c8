"""Attacked lists: one document of each query, the same for all kinds of attack.

Contract: which document is attacked depends on seed and query only. Lists without a document of the
wanted sort are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rank_rl import seeds
from rank_rl.data.injection_texts import Part
from rank_rl.data.injections import KINDS, ODD, inject
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Candidate, RankingTask
from rank_rl.registry import nearest

Target = Literal["other", "last", "relevant"]
GROUPS = {"injections": KINDS, "odd": ODD, "all": (*KINDS, *ODD)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is attacked and how.

    Attributes:
        kinds: kinds of attack.
        target: ``other``: a document that is not relevant, by chance; ``last``: the one of these
            that the first stage ranks worst; ``relevant``: a relevant one, by chance.
        place: where in the document: ``start``, ``end`` or ``random``.
        part: phrasings of ``train`` or ``test``.
        shape: name of the format whose answers are imitated.
        seed: what documents, places and phrasings are drawn from.
    """

    kinds: tuple[str, ...]
    target: Target = "other"
    place: str = "random"
    part: Part = "test"
    shape: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A list with one attacked document."""

    kind: str
    docid: str
    task: RankingTask


def kinds_named(names: Sequence[str]) -> tuple[str, ...]:
    """Kinds and groups of kinds by name, once each, in the order of ``KINDS``.

    Raises:
        RecipeError: no such kind.
    """
    for name in names:
        if name not in (*GROUPS, *GROUPS["all"]):
            raise RecipeError(
                f"unknown kind {name!r}",
                where="--kinds",
                expected=f"one of {', '.join((*GROUPS, *GROUPS['all']))}",
                remedy=nearest(name, (*GROUPS, *GROUPS["all"])),
            )
    wanted = {kind for name in names for kind in GROUPS.get(name, (name,))}
    return tuple(kind for kind in GROUPS["all"] if kind in wanted)


def targets(tasks: Sequence[RankingTask], plan: Plan) -> dict[str, Candidate]:
    """The document of each query that is attacked.

    Raises:
        DataError: no query has one.
    """
    found = {}
    for task in tasks:
        grades = task.grades or {}
        relevant = plan.target == "relevant"
        fit = [c for c in task.candidates if (grades.get(c.docid, 0) > 0) == relevant]
        if fit and len(task.candidates) > 1:
            rng = seeds.rng(plan.seed, "target", task.query.qid)
            found[task.query.qid] = fit[-1] if plan.target == "last" else rng.choice(fit)
    if not found:
        wanted = "relevant" if plan.target == "relevant" else "not relevant"
        raise DataError(f"no query has two documents of which one is {wanted}", where="attack")
    return found


def cases(
    tasks: Sequence[RankingTask], chosen: dict[str, Candidate], kind: str, plan: Plan
) -> list[Case]:
    """One list a query with its chosen document attacked; queries without one are left out."""
    made = []
    for task in tasks:
        if (target := chosen.get(task.query.qid)) is None:
            continue
        attacked = inject(
            target,
            kind,
            task.query,
            part=plan.part,
            place=plan.place,
            shape=plan.shape,
            seed=plan.seed,
        )
        candidates = tuple(attacked if c.docid == target.docid else c for c in task.candidates)
        changed = replace(task, candidates=candidates)
        made.append(Case(kind=kind, docid=target.docid, task=changed))
    return made
