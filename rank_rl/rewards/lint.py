"""Check a composite before training: malformed < worse than the input < copy < better <= ideal.

Answers are compared within one view only, and valid ones only where one is better beyond doubt:
it has at least as many documents of every grade or above within every depth, and somewhere more,
and puts no two documents of equal grade the other way round. So nDCG, recall and overlap must
agree about them whatever their cut-off; other valid answers are of level ``mixed``. A tie of valid
answers is no break, as a reward may cut off or be saturated; it becomes one when no view at all
tells two levels apart. What says nothing (all scores tied) is better than a bad order for some
measures and not for others: it is held against malformed answers and the ideal alone. Rewards of
scores as they are (``base.Absolute``) are left out: adversaries score documents to say an order.
Pure: no model, no data, no printing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from rank_rl.formats.base import Format
from rank_rl.records import Grades, Outcome, View
from rank_rl.rewards import adversaries
from rank_rl.rewards.adversaries import Answered, Writer
from rank_rl.rewards.base import tiers
from rank_rl.rewards.compose import Composite, Scored
from rank_rl.rewards.gold import Gold
from rank_rl.rewards.length_check import Lengths, lengths, outweighed
from rank_rl.rewards.remedies import of_malformed, of_order
from rank_rl.rewards.shape import FormatReward

EPSILON = 1e-6
# A number of its own, not one within the name of a reward.
_NUMBER = re.compile(r"(?<= )[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")
_BOUND = re.compile(rf"(above|below) ({_NUMBER.pattern})")

Case: TypeAlias = tuple[View, Grades]
Level: TypeAlias = Literal["malformed", "worse", "copy", "better", "ideal", "mixed"]
LEVELS: tuple[Level, ...] = ("malformed", "worse", "copy", "better", "ideal", "mixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """One answer to one view with its level, its nDCG@10 within the view and what it earns.

    ``lengths`` is what it would earn at other lengths, where it is a valid text.
    """

    view: View
    answered: Answered
    level: Level
    quality: float
    scored: Scored
    lengths: Lengths

    @property
    def total(self) -> float:
        """What it earns in all."""
        return self.scored.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Two levels out of order: ``lower`` should earn less than ``higher`` and does not.

    Attributes:
        rule: which step of the order, ``malformed < worse``.
        lower: the answer that should earn less; of its name, the one that is furthest off.
        higher: the answer that should earn more.
        queries: to how many views this happens, of ``of`` where both were compared.
        remedy: what to change in the recipe.
    """

    rule: str
    lower: Paid
    higher: Paid
    queries: int
    of: int
    remedy: str

    @property
    def named(self) -> str:
        """Name of the answer that a table shows the break at; the copy is only compared with."""
        return (self.higher if self.rule == "copy < better" else self.lower).answered.name

    @property
    def excess(self) -> float:
        """By how much the answer that should earn less earns more; 0 for a tie."""
        return self.lower.total - self.higher.total

    @property
    def cause(self) -> tuple[str, str]:
        """What breaks of one cause share: the rule, and the remedy but for its numbers."""
        return self.rule, _NUMBER.sub("#", self.remedy)

    @property
    def demand(self) -> float:
        """How far the remedy goes: of several of one cause, the greatest heals all."""
        bound = _BOUND.search(self.remedy)
        if bound is None:
            return 0.0
        return float(bound[2]) if bound[1] == "above" else -float(bound[2])

    def line(self, answers: int = 1) -> str:
        """The break in one line; of ``answers`` breaks of the same cause, this is the worst."""
        others = f" ({answers} answers, the worst shown)" if answers > 1 else ""
        more = f"{self.excess:.3f} more than" if self.excess > EPSILON else "no less than"
        return (
            f"{self.rule}{others}: {self.lower.answered.name!r} ({self.lower.level}) earns "
            f"{self.lower.total:.3f}, {more} {self.higher.answered.name!r} ({self.higher.level}) "
            f"with {self.higher.total:.3f}, on query {self.lower.view.query.qid} "
            f"({self.queries} of {self.of} views). {self.remedy}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the check found; ``clean`` without breaks, whatever the warnings."""

    paid: tuple[Paid, ...]
    breaks: tuple[Break, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def clean(self) -> bool:
        """Whether the order holds."""
        return not self.breaks

    @property
    def causes(self) -> tuple[tuple[Break, int], ...]:
        """Breaks of the same rule and remedy as one: the worst of them, and their number."""
        groups: dict[tuple[str, str], list[Break]] = {}
        for b in self.breaks:
            groups.setdefault(b.cause, []).append(b)
        same = groups.values()
        return tuple((max(g, key=lambda b: (b.demand, b.excess)), len(g)) for g in same)

    def line(self) -> str:
        """The result in one line."""
        views = len({id(p.view) for p in self.paid})
        ways = len(self.causes)
        found = f"is broken in {ways} {'way' if ways == 1 else 'ways'}" if ways else "holds"
        return f"malformed < worse than the input < copy < better {found} on {views} views"


def lint(
    composite: Composite,
    cases: Iterable[Case],
    fmt: Format | None,
    values: Sequence[float] | None = None,
) -> Report:
    """Let the adversaries answer every view and compare what they earn.

    Args:
        composite: the rewards of a recipe.
        cases: views with their grades.
        fmt: the format that answers are written in and read back by; None where answers are
            no text (label slots).
        values: what labels are worth, worst first, where answers without text score documents;
            None where they are orders.

    Raises:
        RecipeError: the format cannot show one of the views.
    """
    write = adversaries.text_writer(fmt) if fmt else adversaries.outcome_writer(values)
    whole, composite = composite, composite.ordering
    paid: list[Paid] = []
    found: list[Break] = []
    for view, grades in cases:
        long = [adversaries.padded(fmt, view, grades)] if fmt and fmt.mode == "reason" else []
        answers = _valid(view, grades, write, long)
        refused = adversaries.broken(fmt, view, grades) if fmt else []
        rows = [_paid(composite, view, grades, a, level) for a, level in answers]
        rows += [_paid(composite, view, grades, a, "malformed") for a in refused]
        found += _breaks(composite, rows)
        paid += rows
    # Labels may be all that is asked for; an order is then nobody's business.
    breaks = [*_gathered(found, paid), *(_blind(composite, paid) if composite is whole else ())]
    warnings = _warnings(composite, paid) if composite is whole else _unchecked(whole, composite)
    return Report(paid=tuple(paid), breaks=tuple(breaks), warnings=tuple(warnings))


def _unchecked(whole: Composite, composite: Composite) -> Iterable[str]:
    """Which rewards the check leaves out."""
    names = " and ".join(repr(n) for n in whole.names if n not in composite.names)
    yield f"{names} left out here: adversaries' scores say an order, not labels"


def profile(outcome: Outcome, view: View, grades: Grades) -> list[list[float]]:
    """For every grade above 0: documents of it or above within depth 1, 2, … (expected over ties).

    One profile is at least another at every place exactly when every measure that pays more
    relevant documents nearer the top agrees.
    """
    graded = view.grades(grades)
    found = []
    for least in sorted({g for g in graded.values() if g > 0}):
        within, depth = 0.0, []
        for tier in tiers(outcome, view):
            share = sum(graded[d] >= least for d in tier) / len(tier)
            for _ in tier:
                within += share
                depth.append(within)
        found.append(depth)
    return found


def compared(first: list[list[float]], second: list[list[float]]) -> int | None:
    """1 where the first profile is better, -1 where it is worse, 0 for equal ones, else None."""
    pairs = [(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
    above = any(a > b + EPSILON for a, b in pairs)
    below = any(a < b - EPSILON for a, b in pairs)
    return None if above and below else int(above) - int(below)


def _agree(first: Outcome, second: Outcome, view: View, grades: Grades) -> bool:
    """Whether no two documents of equal grade stand the other way round."""
    graded = view.grades(grades)
    places = [
        {d: i for i, tier in enumerate(tiers(outcome, view)) for d in tier}
        for outcome in (first, second)
    ]
    one, two = places
    pairs = ((a, b) for a in graded for b in graded if graded[a] == graded[b])
    return not any(one[a] < one[b] and two[a] > two[b] for a, b in pairs)


def _says_nothing(answered: Answered, view: View) -> bool:
    """Whether an answer tells no two documents apart: all scores tied, or all 0."""
    return len(tiers(answered.outcome, view)) == 1


def _valid(
    view: View, grades: Grades, write: Writer, more: Sequence[Answered] = ()
) -> list[tuple[Answered, Level]]:
    """Valid answers, ``more`` among them, with their levels against the copy as it is written."""
    answers = [*adversaries.valid(view, grades, write), *more]
    by_name = {a.name: a.outcome for a in answers}
    copy, ideal = (profile(by_name[name], view, grades) for name in ("copy", "ideal"))

    def level(answered: Answered) -> Level:
        own = profile(answered.outcome, view, grades)
        if answered.name in ("copy", "ideal"):
            return "copy" if answered.name == "copy" else "ideal"
        if _says_nothing(answered, view):
            return "mixed"
        if compared(own, ideal) == 0:
            return "ideal" if _agree(answered.outcome, by_name["ideal"], view, grades) else "mixed"
        # What lists only the best documents may be outdone by the first stage below them.
        if compared(own, ideal) != -1 or not _agree(
            answered.outcome, by_name["copy"], view, grades
        ):
            return "mixed"
        sides: dict[int | None, Level] = {1: "better", 0: "copy", -1: "worse"}
        return sides.get(compared(own, copy), "mixed")

    for better in (True, False):
        wanted: Level = "better" if better else "worse"
        options = adversaries.exchanges(view, grades, write, better=better)
        answers += [a for a in options if level(a) == wanted][:1]
    return [(a, level(a)) for a in answers]


def _paid(
    composite: Composite, view: View, grades: Grades, answered: Answered, level: Level
) -> Paid:
    scored = composite(answered.outcome, view, grades, answered.completion)
    if level == "malformed" or answered.text is None:
        ends = Lengths(low=scored.total, high=scored.total, parts=frozenset())
    else:
        ends = lengths(composite, view, grades, answered)
    return Paid(
        view=view,
        answered=answered,
        level=level,
        quality=Gold(view, grades).quality(answered.outcome, 10),
        scored=scored,
        lengths=ends,
    )


def _steps(rows: Sequence[Paid]) -> list[tuple[str, Paid, Paid]]:
    """Rules about the valid answers to one view, each with a worse and a better answer."""
    by_level = {level: [r for r in rows if r.level == level] for level in LEVELS}
    copy = next(r for r in rows if r.answered.name == "copy")
    ideal = next(r for r in rows if r.answered.name == "ideal")
    nothing = [r for r in by_level["mixed"] if _says_nothing(r.answered, r.view)]
    steps = [("worse < copy", low, copy) for low in by_level["worse"]]
    steps += [("copy < better", copy, high) for high in by_level["better"]]
    steps += [("better <= ideal", low, ideal) for low in by_level["better"]]
    steps += [("mixed <= ideal", low, ideal) for low in nothing]
    return steps + ([("copy <= ideal", copy, ideal)] if copy.quality <= ideal.quality else [])


def _breaks(composite: Composite, rows: Sequence[Paid]) -> list[Break]:
    """What is out of order among the answers to one view."""
    refused = [r for r in rows if r.level == "malformed"]
    least = min((r for r in rows if r.level != "malformed"), key=lambda r: r.total)
    pairs = [("malformed < worse", low, least, -EPSILON) for low in refused]
    pairs += [(*step, EPSILON) for step in _steps(rows)]
    found = []
    for rule, low, high, slack in pairs:
        if low.total > high.total + slack:
            malformed = rule == "malformed < worse"
            remedy = (of_malformed if malformed else of_order)(composite, low, high)
            found.append(Break(rule=rule, lower=low, higher=high, queries=1, of=1, remedy=remedy))
    return found


def _copies(paid: Sequence[Paid]) -> dict[int, Paid]:
    """The copy of each view, by the view's identity."""
    return {id(p.view): p for p in paid if p.answered.name == "copy"}


def _gathered(found: Sequence[Break], paid: Sequence[Paid]) -> list[Break]:
    """One break for each rule and answer: the one that is furthest off."""
    groups: dict[tuple[str, str], list[Break]] = {}
    for b in found:
        groups.setdefault((b.rule, b.named), []).append(b)
    views = {name: len([p for p in paid if p.answered.name == name]) for _, name in groups}
    gathered = []
    for (_, name), same in groups.items():
        furthest = max(same, key=lambda b: b.excess)
        gathered.append(replace(furthest, queries=len(same), of=views[name]))
    return sorted(gathered, key=lambda b: (b.rule != "malformed < worse", -b.excess))


def _blind(composite: Composite, paid: Sequence[Paid]) -> list[Break]:
    """Steps of the order that no view tells apart, though answers of both levels were compared."""
    found = []
    copies = _copies(paid)
    for rule, level in (("worse < copy", "worse"), ("copy < better", "better")):
        pairs = [(p, copies[id(p.view)]) for p in paid if p.level == level]
        if pairs and level == "better":  # which what pays for the best answer alone does not tell
            ideal = [(p, copies[id(p.view)]) for p in paid if p.level == "ideal"]
            pairs += [(p, copy) for p, copy in ideal if p.quality > copy.quality + EPSILON]
        if pairs and all(abs(p.total - copy.total) <= EPSILON for p, copy in pairs):
            low, high = pairs[0] if level == "worse" else pairs[0][::-1]
            remedy = of_order(composite, low, high)
            found.append(
                Break(
                    rule=rule,
                    lower=low,
                    higher=high,
                    queries=len(pairs),
                    of=len(pairs),
                    remedy=remedy,
                )
            )
    return found


def _warnings(composite: Composite, paid: Sequence[Paid]) -> Iterable[str]:
    """What is no break of the order and still makes training harder than it need be."""
    copies = _copies(paid)
    for level in ("worse", "better"):
        pairs = [(p, copies[id(p.view)]) for p in paid if p.level == level]
        pairs = [(p, copy) for p, copy in pairs if abs(p.quality - copy.quality) > EPSILON]
        tied = sum(abs(p.total - copy.total) <= EPSILON for p, copy in pairs)
        if tied:
            yield (
                f"{tied} of {len(pairs)} answers {level} than the input by nDCG@10 earn as much as "
                "the copy: no part looks at the places where they differ, or it is saturated"
            )
    yield from _format_first(composite, paid)
    by_view: dict[int, list[Paid]] = {}
    for p in paid:
        by_view.setdefault(id(p.view), []).append(p)
    steps = [step for rows in by_view.values() for step in _steps(rows)]
    yield from outweighed(composite, [(low, high) for _, low, high in steps])


def _format_first(composite: Composite, paid: Sequence[Paid]) -> Iterable[str]:
    """Whether keeping the format moves the reward further than ranking well does."""
    names = {p.name: p.weight for p in composite.parts if isinstance(p.reward, FormatReward)}
    copies = _copies(paid)
    improvable = {id(p.view) for p in paid if p.level == "better"}
    gains = [
        p.total - copies[id(p.view)].total
        for p in paid
        if p.answered.name == "ideal" and id(p.view) in improvable
    ]
    for name, weight in names.items():
        values = [p.scored.parts[name] for p in paid]
        known = [v for v in values if v is not None]
        spread = weight * (max(known) - min(known)) if known else 0.0
        gain = sum(gains) / len(gains) if gains else 0.0
        if gains and gain < spread - EPSILON:
            lower = f"lower the weight of {name!r} below {weight * gain / spread:.2g}"
            remedy = lower if gain > EPSILON else "add a reward for the order, such as ndcg"
            yield (
                f"{name!r} moves the total by up to {spread:.3f}, ranking perfectly instead of "
                f"copying by {gain:.3f} in the mean: a group's spread is mostly its format; "
                f"{remedy}"
            )
