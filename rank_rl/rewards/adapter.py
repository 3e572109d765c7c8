"""The border to TRL: its reward calling convention in, a composite's parts out.

Every column of the training rows arrives as a list with one value a completion; the view and the
grades are rebuilt from them. TRL calls one function a reward, so all functions of one adapter
share what the first one computes: each completion is parsed once. Rewards that compare the answers
of a group need it whole in one call; groups spread over processes are refused by the trainer's
set-up. Imports no torch, no TRL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from rank_rl.data.rows import view_of
from rank_rl.formats.base import Format
from rank_rl.records import Completion, Outcome, View
from rank_rl.rewards.baselines import (
    Baselines,
    answer_kind,
    baselines,
    best_answer,
    group_baselines,
)
from rank_rl.rewards.compose import Composite
from rank_rl.rewards.gold import Gold
from rank_rl.rewards.monitor import Judged, part_statistics, summary
from rank_rl.strategies.oracle import Kind

RewardFunction: TypeAlias = Callable[..., list[float | None]]
Observer: TypeAlias = Callable[["Seen"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What was computed for one list of completions; holding it keeps its identity unique."""

    completions: Sequence[Any]
    texts: list[str]
    judged: list[Judged]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A batch of judged completions, for whoever records them; one value a completion each."""

    rows: Sequence[Mapping[str, Any]]
    prompts: Sequence[Any]
    texts: Sequence[str]
    tokens: Sequence[int | None]
    judged: Sequence[Judged]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The completions of one prompt: what they share, and what was judged so far."""

    view: View
    gold: Gold
    prefill: str
    best: Outcome
    baselines: Baselines
    identity: object
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    judged: dict[tuple[str, int, bool | None], Judged] = field(default_factory=dict)


class TrlRewards:
    """A composite as the list of reward functions that TRL's trainers take.

    Args:
        composite: rewards with weights and gates; pass ``weights`` as TRL's ``reward_weights``.
        fmt: the format whose parser reads the completions.
        eos_ids: ids that end a completion; empty leaves the truncated share unknown.
        observe: is shown every batch once.
    """

    def __init__(
        self,
        composite: Composite,
        fmt: Format,
        *,
        eos_ids: Collection[int] = (),
        observe: Observer | None = None,
    ) -> None:
        self.composite, self.fmt, self.eos_ids = composite, fmt, frozenset(eos_ids)
        self.observe = observe
        self._batch: _Batch | None = None
        self._kind: Kind | None = None  # of the format's answers

    @property
    def weights(self) -> list[float]:
        """Weight of each function, in order."""
        return list(self.composite.weights)

    @property
    def functions(self) -> list[RewardFunction]:
        """One function a reward, named after it; each returns its part after gates."""
        return [self._function(name) for name in self.composite.names]

    def judge(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Any],
    ) -> list[Judged]:
        """Parse and reward a batch of completions, each with its row of columns."""
        lists = lists_of(columns, len(completions))
        judged: list[Judged] = []
        groups: list[_Group] = []
        group: _Group | None = None
        for i, completion in enumerate(completions):
            # TRL keeps the completions of a prompt together, so a new row begins a new group.
            if group is None or not _repeats(lists.values(), i):
                row = {name: values[i] for name, values in lists.items()}
                group = self._group(row, group if _together(lists, i) else None)
            ids = completion_ids[i] if completion_ids is not None else None
            judged.append(self._judge(group, text_of(completion), ids))
            groups.append(group)
        return self._beside(judged, groups) if self.composite.grouped else judged

    @property
    def last(self) -> tuple[list[str], list[Judged]]:
        """Texts and judgements of the last list of completions; empty before the first."""
        return (self._batch.texts, self._batch.judged) if self._batch else ([], [])

    def _group(self, row: Mapping[str, Any], before: _Group | None) -> _Group:
        """The group of a row, with what copy and ideal earn with the format's kind of answer.

        A row that shows the documents of the group ``before`` in another order belongs to it, but
        what copying earns is its own.
        """
        view, grades = view_of(row)
        gold = Gold(view, grades)
        if self._kind is None:
            self._kind = answer_kind(self.fmt, view, gold)
        best = best_answer(self.composite, self.fmt, view, gold, self._kind)
        return _Group(
            view=view,
            gold=gold,
            prefill=row.get("prefill") or "",
            best=best,
            baselines=baselines(self.composite, view, gold, self._kind, best),
            identity=before.identity if before is not None else object(),
        )

    def _judge(self, group: _Group, text: str, ids: Sequence[int] | None) -> Judged:
        """Parse and reward one completion; what a group says twice is judged once."""
        truncated = None
        if self.eos_ids and ids is not None:
            truncated = len(ids) == 0 or ids[-1] not in self.eos_ids
        size = len(ids) if ids is not None else 0
        known = group.judged.get((text, size, truncated))
        if known is not None:
            return known
        completion = Completion(
            text=text, finish="length" if truncated else "stop", completion_tokens=size
        )
        outcome = group.outcomes.get(text)
        if outcome is None:
            outcome = self.fmt.parse(text, group.view, prefill=group.prefill)
            group.outcomes[text] = outcome
        judged = Judged(
            group=group.identity,
            outcome=outcome,
            scored=self.composite(outcome, group.view, group.gold, completion),
            baselines=group.baselines,
            truncated=truncated,
        )
        group.judged[text, size, truncated] = judged
        return judged

    def _beside(self, judged: Sequence[Judged], groups: Sequence[_Group]) -> list[Judged]:
        """Add what answers earn beside the others of their group, to them and to the baselines."""
        found = list(judged)
        members: dict[int, list[int]] = {}
        for i, group in enumerate(groups):
            members.setdefault(id(group.identity), []).append(i)
        for places in members.values():
            same = [groups[i] for i in places]
            views = [group.view for group in same]
            earned = self.composite.among([judged[i].outcome for i in places], views, same[0].gold)
            assert self._kind is not None
            best = [group.best for group in same]
            lines = group_baselines(self.composite, views, same[0].gold, self._kind, best)
            for i, among, line in zip(places, earned, lines, strict=True):
                scored = self.composite.beside(judged[i].scored, among)
                found[i] = replace(judged[i], scored=scored, baselines=line)
        return found

    def _shared(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Any],
    ) -> tuple[list[Judged], bool]:
        """The judged batch, and whether this call computed it."""
        texts = [text_of(c) for c in completions]
        batch = self._batch
        # The texts are compared too: a caller may refill a list it passed before.
        if batch is not None and batch.completions is completions and batch.texts == texts:
            return batch.judged, False
        judged = self.judge(completions, completion_ids, columns)
        self._batch = _Batch(completions=completions, texts=texts, judged=judged)
        return judged, True

    def _function(self, name: str) -> RewardFunction:
        """The reward function of one part."""

        def function(
            prompts: Any = None,
            completions: Sequence[Any] = (),
            completion_ids: Sequence[Sequence[int]] | None = None,
            log_extra: Callable[[str, list[Any]], None] | None = None,
            log_metric: Callable[[str, float], None] | None = None,
            **columns: Any,
        ) -> list[float | None]:
            judged, fresh = self._shared(completions, completion_ids, columns)
            if fresh and log_metric is not None:
                shown = {**summary(judged), **part_statistics(judged, self.composite)}
                for metric, value in shown.items():
                    log_metric(metric, value)
            if fresh and log_extra is not None:
                log_extra("status", [j.outcome.status for j in judged])
            if fresh and self.observe is not None:
                self.observe(_seen(prompts, completions, completion_ids, columns, judged))
            return [j.scored.parts[name] for j in judged]

        function.__name__ = function.__qualname__ = name
        return function


def _together(lists: Mapping[str, Sequence[Any]], i: int) -> bool:
    """Whether row ``i`` belongs to the group of the one before it by their column ``group``."""
    named = lists.get("group")
    return named is not None and i > 0 and named[i] is not None and named[i] == named[i - 1]


def _seen(
    prompts: Any,
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None,
    columns: Mapping[str, Any],
    judged: Sequence[Judged],
) -> Seen:
    """What an observer is shown of a batch."""
    lists = lists_of(columns, len(completions))
    return Seen(
        rows=[{k: v[i] for k, v in lists.items()} for i in range(len(completions))],
        prompts=prompts or [""] * len(completions),
        texts=[text_of(c) for c in completions],
        tokens=[len(i) for i in completion_ids or ()] or [None] * len(completions),
        judged=judged,
    )


def lists_of(columns: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """The columns among TRL's keywords: lists with one value a completion."""
    return {k: v for k, v in columns.items() if isinstance(v, list) and len(v) == count}


def _repeats(lists: Iterable[Sequence[Any]], i: int) -> bool:
    """Whether row ``i`` of the columns equals the one before it."""
    # TRL repeats the very objects of a row, so that hardly anything is compared.
    for values in lists:
        if values[i] is not values[i - 1] and values[i] != values[i - 1]:
            return False
    return True


def text_of(completion: Any) -> str:
    """Text of a completion, given as a string or as a list of chat messages."""
    if isinstance(completion, str):
        return completion
    return "".join(_content(m) for m in completion if m.get("role", "assistant") == "assistant")


def _content(message: Mapping[str, Any]) -> str:
    """Text of one message, whose content may be text or a list of typed pieces."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(piece.get("text") or "") for piece in content)
