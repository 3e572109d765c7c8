"""Rank-level credit: what each place of a list earns, instead of one value for the whole answer.

The tokens that write place k are credited with the DCG that is earned from place k on, divided by
the ideal DCG of the view, and compared within the group place by place (Rank-GRPO, Zhu et al.,
2025, arXiv 2510.20150). This module decides what is credited and where; it knows neither tensors
nor trainers. Only valid answers have places: one place a document, no document twice.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, stdev
from typing import Literal

from rank_rl import metrics
from rank_rl.errors import RecipeError
from rank_rl.formats.lists import LabelSpan
from rank_rl.records import Completion, Grades, Order, Outcome, View
from rank_rl.rewards.base import relevant, valid
from rank_rl.rewards.compose import Composite, Part, Scored
from rank_rl.rewards.ranking import Ndcg, NdcgGain

Scale = Literal["group", "batch", "none"]
# As TRL's: keeps a division finite.
EPSILON = 1e-4
# Differences below are rounding, which must not become a direction to learn in.
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """What one answer of a group earned.

    Attributes:
        total: the composite's value, after weights and gates.
        ranking: the part of ``total`` that is divided among places.
        places: what is earned from each place on, weighted; empty for an answer without places.
    """

    total: float
    ranking: float = 0.0
    places: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Advantages within one answer.

    Attributes:
        before: of every token up to the list, and of all tokens of an answer without places.
        places: of the tokens that write each place.
        after: of the tokens behind the list.
    """

    before: float
    places: tuple[float, ...] = ()
    after: float = 0.0


def credited(composite: Composite) -> tuple[Part, ...]:
    """The rewards of a composite that can be divided among places: ``ndcg`` and ``ndcg_gain``.

    Raises:
        RecipeError: none of them has a weight above 0.
    """
    parts = tuple(p for p in composite.parts if isinstance(p.reward, Ndcg | NdcgGain) and p.weight)
    if not parts:
        raise RecipeError(
            "no reward can be divided among the places of a list",
            where="grpo.credit",
            expected="ndcg or ndcg_gain among the rewards",
            remedy="set grpo.credit: answer",
        )
    return parts


def position_rewards(
    outcome: Outcome, view: View, grades: Grades, k: int = 10
) -> tuple[float, ...]:
    """nDCG@k that is earned from each listed place on, in [0, 1].

    The first value is the nDCG of the answer as ``Ndcg`` pays it: documents that the answer was
    not asked to list follow in first-stage order, and what they earn counts from every place on.
    Gains are linear and the ideal is that of the view, as in ``rank_rl.metrics``. Places behind
    ``k`` earn 0, as everything does where nothing shown is relevant. A document that is listed
    again earns nothing and takes no place in the discount, as in ``metrics.ndcg``.

    Args:
        outcome: an answer that lists documents; any other has no places.
        view: the documents shown.
        grades: grades by docid.
        k: cut of the metric.
    """
    if not isinstance(outcome.answer, Order):
        return ()
    listed = outcome.answer.docids
    graded = view.grades(grades)
    ideal = metrics.dcg(sorted(graded.values(), reverse=True), k)
    order = outcome.as_order(view)
    shares = [graded[d] / math.log2(i + 2) / ideal if ideal else 0.0 for i, d in enumerate(order)]
    left = list(accumulate(reversed(shares[:k])))[::-1]
    # Were a document listed twice, its second place would write what follows it in the order.
    places = accumulate((d in graded and d not in listed[:i] for i, d in enumerate(listed)))
    return tuple(left[seen] if seen < len(left) else 0.0 for seen in (0, *places))[:-1]


def earned(
    parts: Sequence[Part],
    scored: Scored,
    outcome: Outcome,
    view: View,
    grades: Grades,
    completion: Completion,
) -> Earned:
    """What an answer earned, and from which place on.

    An answer that is not valid, a view where nothing is relevant and a reward behind a closed gate
    leave no places: such an answer is credited as a whole. ``ndcg_gain`` is credited in nDCG from
    each place on, which orders the answers of a group as the gain does.

    Args:
        parts: what ``credited`` says.
        scored: the composite's value for the answer.
        outcome: the answer as read.
        view: the documents shown.
        grades: grades by docid.
        completion: the text, for rewards that look at it.
    """
    if not valid(outcome) or not relevant(view, grades):
        return Earned(total=scored.total)
    for part in parts:
        if part.reward(outcome, view, grades, completion) != scored.parts[part.name]:
            return Earned(total=scored.total)
    each = [(p.weight, position_rewards(outcome, view, grades, _cut(p))) for p in parts]
    places = (sum(w * r[k] for w, r in each) for k in range(len(each[0][1])))
    ranking = sum(p.weight * (scored.parts[p.name] or 0.0) for p in parts)
    return Earned(total=scored.total, ranking=ranking, places=tuple(places))


def _cut(part: Part) -> int:
    """``k`` of a credited reward."""
    assert isinstance(part.reward, Ndcg | NdcgGain)
    return part.reward.k


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample, as TRL takes it; 0 for one value."""
    return stdev(values) if len(values) > 1 else 0.0


def assign(
    answers: Sequence[Earned],
    advantages: Sequence[float],
    *,
    group_size: int,
    scale: Scale,
    spread: Callable[[Sequence[float]], float] = deviation,
) -> list[Credit]:
    """Advantages of the tokens of each answer, group by group.

    Three kinds of tokens, because a token is answerable for what comes after it:

    - up to the list (reasoning, tags): the ordinary advantage A of the answer;
    - behind the list, where the order is settled: A without what the answer's *order* did to it,
      that is the advantage with its ranking reward replaced by the mean of the group's answers
      with places. What other rewards (format, length) and being valid at all are worth stays;
    - place k of the list: the same, plus the deviation of what is earned from k on from its mean
      over the answers of the group that have a place k, divided by their standard deviation
      (``group``), by that of place k over the batch (``batch``), or by nothing (``none``).

    Answers without places keep A for every token. Groups may mix lengths: a place that only one
    answer has, or that earns all answers the same, adds 0.

    Args:
        answers: of whole groups, one after another.
        advantages: the ordinary advantage of each; sums over rewards, scaled as ``scale`` says.
        group_size: answers a group, G.
        scale: TRL's ``scale_rewards``.
        spread: the standard deviation that the advantages were scaled with.
    """
    batch = spread([a.total for a in answers])
    overall = _by_place(answers, spread)
    given: list[Credit] = []
    for start in range(0, len(answers), group_size):
        group = answers[start : start + group_size]
        own = spread([a.total for a in group]) if scale == "group" else batch
        by = 1.0 if scale == "none" else own + EPSILON
        placed = [a for a in group if a.places]
        mean = fmean(a.ranking for a in placed) if placed else 0.0
        over = overall if scale == "batch" else _by_place(group, spread)
        means = _by_place(group, fmean)
        for answer, whole in zip(group, advantages[start : start + group_size], strict=True):
            if not answer.places:
                given.append(Credit(before=whole, after=whole))
                continue
            after = whole - (answer.ranking - mean) / by
            places = [
                after + _part(value - means[k], 1.0 if scale == "none" else over[k] + EPSILON)
                for k, value in enumerate(answer.places)
            ]
            given.append(Credit(before=whole, places=tuple(places), after=after))
    return given


def _part(difference: float, by: float) -> float:
    return difference / by if abs(difference) > _EQUAL else 0.0


def _by_place(answers: Sequence[Earned], of: Callable[[Sequence[float]], float]) -> list[float]:
    """A statistic of each place over the answers that have it."""
    longest = max((len(a.places) for a in answers), default=0)
    return [of([a.places[k] for a in answers if len(a.places) > k]) for k in range(longest)]


def char_ends(pieces: Sequence[bytes]) -> tuple[str, list[int]]:
    """Text of a sequence of tokens, and how many of its characters are complete after each.

    A character of several bytes may be spread over tokens; it is complete with its last one.
    Bytes that are no UTF-8 become replacement characters, as tokenizers write them.

    Args:
        pieces: the bytes of each token.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts, ends, done = [], [], 0
    for piece in pieces:
        parts.append(decoder.decode(piece))
        done += len(parts[-1])
        ends.append(done)
    return "".join(parts) + decoder.decode(b"", final=True), ends


def token_places(spans: Sequence[LabelSpan], ends: Sequence[int]) -> list[int]:
    """The place that each token writes: 0 … n-1, -1 for tokens up to the list, n behind it.

    A token that holds characters of a label (between its brackets) belongs to that place, to the
    first one where it holds several: its choice decides them all, and what is earned from there on
    includes what is earned later. A token of separators and brackets alone, such as ``] > [``,
    belongs to the first place of which it holds a character: its ``]`` says that the label is
    complete. Within the list, a token that completes no character goes with the one that follows.

    Args:
        spans: of the list, in order; empty makes every token -1.
        ends: number of characters complete after each token.
    """
    if not spans:
        return [-1] * len(ends)
    places, start = [], 0
    for end in ends:
        if end <= spans[0].start:
            places.append(-1)
        elif start >= spans[-1].end:
            places.append(len(spans))
        else:
            places.append(_place(spans, start, max(end, start + 1)))
        start = max(start, end)
    return places


def _place(spans: Sequence[LabelSpan], start: int, end: int) -> int:
    """Place of the characters ``start`` to ``end`` (exclusive), some of which are in the list."""
    touched = [k for k, span in enumerate(spans) if start < span.end and end > span.start]
    for k in touched:
        if start < spans[k].end - 1 and end > spans[k].label:
            return k
    return touched[0]
