"""Rewards that follow a teacher's order instead of people's grades.

Such a reward has a method ``taught`` and says by ``follows_teacher`` whether a recipe asks for it.
Before a stage starts it is given the scores of ``data.teacher_run``, so that it stays a function of
outcome, view and grades.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from rank_rl.records import TeacherScores, View
from rank_rl.rewards.base import Reward
from rank_rl.rewards.compose import Composite


@runtime_checkable
class Taught(Protocol):
    """A reward that can follow a teacher."""

    @property
    def follows_teacher(self) -> bool:
        """Whether it was asked to."""
        ...

    def taught(self, scores: TeacherScores) -> Reward:
        """The reward with a teacher's scores, by query id and docid."""
        ...


def follows(reward: Reward) -> bool:
    """Whether a reward wants a teacher's scores."""
    return isinstance(reward, Taught) and reward.follows_teacher


def taught(composite: Composite, scores: TeacherScores) -> Composite:
    """The composite with a teacher's scores for the rewards that follow one."""
    return replace(
        composite,
        parts=tuple(
            replace(part, reward=part.reward.taught(scores))
            if isinstance(part.reward, Taught) and part.reward.follows_teacher
            else part
            for part in composite.parts
        ),
    )


def order(view: View, scores: Mapping[str, float]) -> tuple[str, ...]:
    """The documents shown in a teacher's order: ties, and those without a score, which come last,
    in first-stage order."""
    return tuple(sorted(view.by_first_stage(), key=lambda d: -scores.get(d, -math.inf)))
