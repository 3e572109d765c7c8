"""GRPO on packed groups: the label slots as a policy, nothing generated token by token.

For each view, G outcomes are drawn from the slots of one pass: orders from the scores
(Plackett-Luce, by Gumbel noise; Plackett, 1975) or one label per slot from its probabilities.
Rewards are the ordinary ranking rewards on those outcomes; advantages are taken within the group
and the ratio is clipped as in GRPO (Shao et al., 2024). A group of 64 costs one forward and
backward pass. With ``iterations`` above 1 the trainer repeats a batch and the same
outcomes serve several updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rank_rl import losses, rewards, seeds
from rank_rl.errors import RecipeError
from rank_rl.records import Completion, Order, Outcome, Scores
from rank_rl.rewards.baselines import baselines
from rank_rl.rewards.compose import Composite
from rank_rl.specs import GrpoSpec, RecipeSpec
from rank_rl.training.score import DEFAULT_LOSSES, train_slots
from rank_rl.training.slot_trainer import SlotExample

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import SlotGroup


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Refine label slots with ranking rewards; see ``score.run`` for arguments and result.

    Raises:
        RecipeError: no reward, or a format without label slots.
    """
    if not spec.rewards:
        raise RecipeError("no reward", where="rewards", expected="at least one")
    return train_slots("grpo", spec, info, SlotPolicy(spec))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """G sampled actions of one view.

    Attributes:
        actions: (G, n) an order as document positions, or a label index a document.
        logprobs: (G,) log-probability of each action when it was drawn.
        advantages: (G,).
        report: what to log.
    """

    actions: torch.Tensor
    logprobs: torch.Tensor
    advantages: torch.Tensor
    report: Mapping[str, float]


class SlotPolicy:
    """The objective of packed GRPO; callable on the groups of one batch."""

    def __init__(self, spec: RecipeSpec) -> None:
        self.spec: GrpoSpec = spec.grpo
        self.seed = spec.run.seed
        self.composite: Composite = rewards.make(spec.rewards)
        self.supervised = losses.make(spec.losses or DEFAULT_LOSSES)
        self.held: dict[str, tuple[Rollout, int]] = {}  # with the number of uses left

    def __call__(
        self, groups: Sequence[SlotGroup], batch: Sequence[SlotExample], step: int
    ) -> tuple[torch.Tensor, Mapping[str, float]]:
        """Clipped policy loss, averaged over the batch, and the reward components."""
        import torch

        parts, reports = [], []
        for group, example in zip(groups, batch, strict=True):
            rollout = self.rollout(group, example, step)
            ratio = (self.logprob(group, rollout.actions) - rollout.logprobs).exp()
            bounded = ratio.clamp(1 - self.spec.clip, 1 + self.spec.clip)
            gain = torch.minimum(ratio * rollout.advantages, bounded * rollout.advantages)
            loss = -gain.mean()
            if self.spec.supervised:
                loss = loss + self.spec.supervised * self.supervised(group)
            parts.append(loss)
            reports.append({**rollout.report, "clipped": (ratio != bounded).float().mean().item()})
        names = dict.fromkeys(name for report in reports for name in report)
        means = {n: sum(r.get(n, 0.0) for r in reports) / len(reports) for n in names}
        return torch.stack(parts).mean(), means

    def rollout(self, group: SlotGroup, example: SlotExample, step: int) -> Rollout:
        """Draw actions, or return those held for the remaining ``iterations`` of a view."""
        rollout, left = self.held.pop(example.key, (None, 0))
        if rollout is None:
            rollout, left = self._draw(group, example, step), self.spec.iterations
        if left > 1:
            self.held[example.key] = (rollout, left - 1)
        return rollout

    def _draw(self, group: SlotGroup, example: SlotExample, step: int) -> Rollout:
        import torch

        generator = torch.Generator().manual_seed(
            seeds.derive(self.seed, "rollout", example.key, step)
        )
        with torch.no_grad():
            actions = self.sample(group, generator)
            logprobs = self.logprob(group, actions)
        totals, report = self._rewards(actions.tolist(), example)
        values = torch.tensor(totals, device=logprobs.device)
        spread = values.std(unbiased=False)
        flat = bool(spread < 1e-6)
        advantages = values - values.mean()
        if self.spec.scale_advantages and not flat:
            advantages = advantages / (spread + 1e-4)
        kind = "order" if self.spec.action == "plackett_luce" else "scores"
        lines = baselines(self.composite, example.view, example.grades, kind=kind)  # type: ignore[arg-type]
        report |= {
            "reward": values.mean().item(),
            "reward_std": spread.item(),
            "flat_groups": float(flat),
            "reward_copy": lines.copy,
            "reward_ceiling": lines.ceiling,
        }
        return Rollout(actions=actions, logprobs=logprobs, advantages=advantages, report=report)

    def sample(self, group: SlotGroup, generator: torch.Generator) -> torch.Tensor:
        """(G, n) actions drawn from the slots as they are."""
        import torch

        n, size = len(group.scores), self.spec.group_size
        if self.spec.action == "plackett_luce":
            uniform = torch.rand(size, n, generator=generator).clamp(1e-9, 1 - 1e-7)
            gumbel = -(-uniform.log()).log()
            noisy = group.scores.detach() / self.spec.temperature + gumbel.to(group.scores.device)
            return noisy.argsort(dim=1, descending=True)
        probabilities = (group.logits.detach() / self.spec.temperature).softmax(-1).cpu()
        drawn = torch.multinomial(probabilities, size, replacement=True, generator=generator)
        return drawn.T.to(group.scores.device)

    def logprob(self, group: SlotGroup, actions: torch.Tensor) -> torch.Tensor:
        """(G,) log-probability of actions; an order counts to its ``top_k``-th place."""
        import torch

        if self.spec.action == "plackett_luce":
            ordered = (group.scores / self.spec.temperature)[actions]
            remaining = ordered.flip(1).logcumsumexp(1).flip(1)
            return (ordered - remaining)[:, : self.spec.top_k].sum(1)
        logprobs = (group.logits / self.spec.temperature).log_softmax(-1)
        slots = torch.arange(len(group.scores), device=actions.device)
        return logprobs[slots, actions].sum(1)

    def _rewards(
        self, actions: Sequence[Sequence[int]], example: SlotExample
    ) -> tuple[list[float], dict[str, float]]:
        """Total of every action, and the mean of each component."""
        docids = example.view.docids
        totals: list[float] = []
        sums: dict[str, list[float]] = {}
        for action in actions:
            answer: Order | Scores
            if self.spec.action == "plackett_luce":
                answer = Order(docids=tuple(docids[i] for i in action))
            else:
                answer = Scores(values={d: float(v) for d, v in zip(docids, action, strict=True)})
            scored = self.composite(
                Outcome(status="ok", answer=answer), example.view, example.grades,
                Completion(text=""),
            )  # fmt: skip
            totals.append(scored.total)
            for name, value in scored.parts.items():
                if value is not None:
                    sums.setdefault(f"rewards/{name}", []).append(value)
        return totals, {name: sum(values) / len(values) for name, values in sums.items()}
