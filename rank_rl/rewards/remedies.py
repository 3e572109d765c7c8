"""What to change in a recipe whose rewards pay the wrong answer more; used by ``lint``."""

from __future__ import annotations

from typing import Protocol

from rank_rl.rewards.adversaries import Answered
from rank_rl.rewards.compose import Composite, Part, Scored
from rank_rl.rewards.shape import FormatReward


class PaidAnswer(Protocol):
    """An answer, and what it earns."""

    @property
    def answered(self) -> Answered:
        """The answer."""
        ...

    @property
    def scored(self) -> Scored:
        """What it earns."""
        ...


def of_malformed(composite: Composite, low: PaidAnswer, high: PaidAnswer) -> str:
    """How a malformed answer comes to earn less than a valid one."""
    if low.answered.outcome.status == "ok":
        return "The format reads it as valid: its parser must name what is wrong."
    excess = low.scored.total - high.scored.total
    own = next((p for p in composite.parts if isinstance(p.reward, FormatReward)), None)
    ungated = _most(composite, low, high)
    gate = f", or gate {ungated.name!r} by it (gate: format)" if ungated else ""
    if own is None:
        paid = _format_value(FormatReward(), low)
        weight = max(0.0, excess) / (1.0 - paid)
        return f"Give reward format a weight above {weight:.2g}{gate}."
    difference = (_of(high, own) - _of(low, own)) or _format_gap(own, low)
    weight = own.weight + max(0.0, excess) / difference
    gate = gate.replace("gate: format", f"gate: {own.name}")
    return f"Give reward {own.name} a weight above {weight:.2g}{gate}."


def of_order(composite: Composite, low: PaidAnswer, high: PaidAnswer) -> str:
    """How the better one of two valid answers comes to earn more."""
    part = _most(composite, low, high)
    if part is None:
        return "No reward tells them apart: add ndcg or ndcg_gain."
    difference = _of(low, part) - _of(high, part)
    others = sum(
        p.weight * (_of(high, p) - _of(low, p)) for p in composite.parts if p.name != part.name
    )
    if others <= 0:
        return f"Reward {part.name!r} pays {difference:.3f} more for it: leave it out."
    return (
        f"Reward {part.name!r} pays {difference:.3f} more for it: "
        f"lower its weight below {others / difference:.2g}."
    )


def _most(composite: Composite, low: PaidAnswer, high: PaidAnswer) -> Part | None:
    """The part that speaks most for the answer that should earn less; None if none does."""
    part = max(composite.parts, key=lambda p: p.weight * (_of(low, p) - _of(high, p)))
    return part if part.weight * (_of(low, part) - _of(high, part)) > 0 else None


def _of(answer: PaidAnswer, part: Part) -> float:
    return answer.scored.parts[part.name] or 0.0


def _format_value(reward: FormatReward, low: PaidAnswer) -> float:
    """What a format reward pays a malformed answer; it looks at the outcome alone."""
    return reward.of(low.answered.outcome)


def _format_gap(own: Part, low: PaidAnswer) -> float:
    """By how much a format reward sets a malformed answer behind a valid one, before gates."""
    reward = own.reward
    return reward.ok - _format_value(reward, low) if isinstance(reward, FormatReward) else 1.0
