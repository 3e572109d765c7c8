"""Groups whose answers see the same documents in different orders (``grpo.group_shuffle``).

A policy that is rewarded for one order shown can learn places instead of documents; when each
answer of a group has another order before it, places are worth nothing. The price: the prompts of a
group differ, so nothing of them is computed once, and advantages compare answers to different
questions. Rewards use the order that each answer was shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rank_rl import seeds
from rank_rl.data.rows import Row, group_rows, view_of
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Prompt, RankingTask, View
from rank_rl.rewards.compose import Composite
from rank_rl.rewards.ranking import NdcgGain

if TYPE_CHECKING:
    from rank_rl.formats.base import Format

logger = logging.getLogger(__name__)


def reordered(view: View, seed: int, group: str, place: int) -> View:
    """The documents of a view in the order of one answer, under the labels of their new places.

    Args:
        view: as it was drawn; the answer at place 0 sees it so.
        seed: run seed.
        group: what names the view (query and draw).
        place: of the answer in its group.
    """
    if place == 0:
        return view
    candidates = list(view.candidates)
    seeds.rng(seed, "group shuffle", group, place).shuffle(candidates)
    return replace(view, candidates=tuple(candidates))


class GroupShuffle:
    """Rewrites the rows of a batch before answers are generated.

    Args:
        fmt: renders prompts.
        tokens: the student's tokenizer.
        seed: run seed.
        written: turns a prompt into its text and its number of tokens.
    """

    def __init__(
        self,
        fmt: Format,
        tokens: ChatTokens,
        *,
        seed: int,
        written: Callable[[ChatTokens, Prompt], tuple[str, int]],
    ) -> None:
        self.fmt, self.tokens, self.seed, self.written = fmt, tokens, seed, written

    def __call__(self, rows: Sequence[Row], places: Sequence[int]) -> list[Row]:
        """Each row as the answer at its place of the group sees it."""
        return [self.row(row, place)[0] for row, place in zip(rows, places, strict=True)]

    def row(self, row: Mapping[str, Any], place: int) -> tuple[Row, int]:
        """One row with its documents reordered, and the number of tokens of its prompt."""
        view, grades = view_of(row)
        shown = reordered(view, self.seed, str(row["group"]), place)
        task = RankingTask(query=view.query, candidates=view.candidates, grades=grades)
        (fresh,) = group_rows(task, [shown], self.fmt)
        prompt = Prompt(messages=tuple(fresh["prompt"]), prefill=fresh["prefill"])
        text, size = self.written(self.tokens, prompt)
        return {**row, **fresh, "prompt": text}, size

    def longest(
        self, rows: Sequence[Row], longest: Mapping[str, int], args: Any, window: int
    ) -> dict[str, int]:
        """Tokens of the longest prompt and ideal answer over all orders.

        Orders differ by a few tokens where words and labels meet. Every order is counted only
        where those few could matter.

        Args:
            rows: as drawn.
            longest: ``prompt`` and ``answer`` of the orders drawn.
            args: the trainer's config, for group size and completion length.
            window: tokens that the model reads, prompt and completion.
        """
        spare = 4 * max(len(row["docids"]) for row in rows)
        completion = int(args.max_completion_length)
        room = {"prompt": window - completion, "answer": completion}
        found = dict(longest)
        if all(longest[key] + spare <= room[key] for key in room):
            return found
        for row in rows:
            for place in range(1, args.num_generations):
                changed, tokens = self.row(row, place)
                extra = self._extra(row, changed)
                found["prompt"] = max(found["prompt"], tokens)
                found["answer"] = max(found["answer"], longest["answer"] + extra)
        return found

    def _extra(self, row: Row, changed: Row) -> int:
        """By how many tokens the ideal answer of one order is longer than that of another."""
        sizes = []
        for one in (row, changed):
            view, grades = view_of(one)
            sizes.append(len(self.tokens.encode(self.fmt.ideal(view, grades))))
        return max(0, sizes[1] - sizes[0])


def warn(composite: Composite) -> None:
    """Say what shuffled groups do to a gain over the order shown."""
    names = [part.name for part in composite.parts if isinstance(part.reward, NdcgGain)]
    if names:
        logger.warning(
            "grpo.group_shuffle: %s is the gain over the order that each answer was shown, so an "
            "answer of a group can earn more because its input was worse; ndcg has no such "
            "reference", ", ".join(names)
        )  # fmt: skip
