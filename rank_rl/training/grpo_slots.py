"""GRPO on packed groups: the label slots as a policy, nothing generated token by token.

For each view, G outcomes are drawn from the slots of one pass: orders from the scores
(Plackett-Luce, by Gumbel noise; Plackett, 1975) or one label a slot from its probabilities.
Rewards are the ordinary ranking rewards on those outcomes; advantages are taken within the group
and the ratio is clipped as in GRPO (Shao et al., 2024). A group of 64 costs one forward and
backward pass. With ``iterations`` above 1 the trainer repeats a batch and the same outcomes serve
several updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from rank_rl import losses, rewards, seeds
from rank_rl.losses.group import need
from rank_rl.records import Completion, Order, Outcome, Scores, TeacherScores, View
from rank_rl.rewards.baselines import baselines
from rank_rl.rewards.credit import Scale, assign, credited, earned
from rank_rl.rewards.monitor import Judged, part_statistics, summary
from rank_rl.specs import RecipeSpec
from rank_rl.training.alarm import watchers
from rank_rl.training.completions import CompletionLog
from rank_rl.training.followed import DEFAULT_LOSSES
from rank_rl.training.grpo_checks import check_drawn
from rank_rl.training.score import train_slots
from rank_rl.training.slot_trainer import SlotExample
from rank_rl.training.upfront import slot_format

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import ScoredGroup


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Refine label slots with ranking rewards; see ``score.run`` for arguments and result.

    Raises:
        RecipeError: no reward, or a format without label slots.
    """
    written = CompletionLog(spec)
    policy = SlotPolicy(spec, slot_format(spec, "grpo").values, written)
    watching = [*watchers(spec), written]
    iterations = spec.grpo.iterations
    return train_slots("grpo", spec, info, policy, iterations=iterations, callbacks=watching)


RECORDED = 8  # actions of a view that are written down


def normalized(values: Sequence[float | None], *, scale: bool = True) -> list[float]:
    """Values without their mean, divided by their spread; None, and values all the same, give 0."""
    known = [v for v in values if v is not None]
    spread = pstdev(known) if known else 0.0
    if spread <= 1e-6:  # rounding must not become a direction to learn in
        return [0.0] * len(values)
    mean, size = fmean(known), spread + 1e-4 if scale else 1.0
    return [0.0 if v is None else (v - mean) / size for v in values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """G sampled actions of one view.

    Attributes:
        actions: (G, n) an order as document positions, or a label index a document.
        logprobs: (G,) log-probability of each action when it was drawn; with rank-level credit
            (G, places), that of each choice.
        advantages: of the same shape; 0 where all actions earned the same.
        report: what to log.
    """

    actions: torch.Tensor
    logprobs: torch.Tensor
    advantages: torch.Tensor
    report: Mapping[str, float]


class SlotPolicy:
    """The objective of packed GRPO; callable on the groups of one batch.

    Args:
        spec: a recipe; ``grpo``, ``rewards`` and ``losses`` are read.
        values: what the labels are worth, worst first.
        written: records the first ``RECORDED`` actions of a view where a step is due.

    Raises:
        RecipeError: no reward, or a wrong one.
    """

    def __init__(
        self, spec: RecipeSpec, values: Sequence[float], written: CompletionLog | None = None
    ) -> None:
        self.written = written
        self.spec, self.seed, self.values = spec.grpo, spec.run.seed, tuple(values)
        self.composite = rewards.make(spec.rewards)
        check_drawn(self.composite)
        self.credited = credited(self.composite) if spec.grpo.credit == "rank" else ()
        self.supervised = losses.make(spec.losses or DEFAULT_LOSSES)
        self.held: dict[str, tuple[Rollout, int]] = {}  # with the number of uses left

    def taught(self, scores: TeacherScores) -> None:
        """Let the rewards that follow a teacher know its scores."""
        self.composite = rewards.taught(self.composite, scores)

    def __call__(
        self, groups: Sequence[ScoredGroup], batch: Sequence[SlotExample], step: int
    ) -> tuple[torch.Tensor, Mapping[str, float]]:
        """Clipped policy loss, averaged over the batch, and what to log."""
        import torch

        parts, reports = [], []
        for group, example in zip(groups, batch, strict=True):
            rollout = self.rollout(group, example, step)
            loss, clipped = self.policy_loss(group, rollout)
            if self.spec.supervised:
                loss = loss + self.spec.supervised * self.supervised(group)
            parts.append(loss)
            reports.append({**rollout.report, "clip_ratio": clipped})
        # A reward that does not apply to a view is missing in its report, not 0.
        names = dict.fromkeys(name for report in reports for name in report)
        means = {n: fmean(r[n] for r in reports if n in r) for n in names}
        return torch.stack(parts).mean(), means

    def policy_loss(self, group: ScoredGroup, rollout: Rollout) -> tuple[torch.Tensor, float]:
        """GRPO's clipped loss of one group, and the share of actions whose gradient is clipped."""
        import torch

        change = self.chances(group, rollout.actions) - rollout.logprobs
        ratio = change.clamp(-20, 20).exp()  # where it is unbounded, exp must stay finite
        bounded = ratio.clamp(1 - self.spec.clip, 1 + self.spec.clip)
        free, cut = ratio * rollout.advantages, bounded * rollout.advantages
        # Places of an order add up, as their log-probabilities do.
        loss = -torch.minimum(free, cut).sum() / len(rollout.actions)
        return loss, (cut < free).float().mean().item()

    def rollout(self, group: ScoredGroup, example: SlotExample, step: int) -> Rollout:
        """Draw actions, or return those held for the remaining ``iterations`` of a view."""
        rollout, left = self.held.pop(example.key, (None, self.spec.iterations))
        if rollout is None:
            rollout = self._draw(group, example, step)
        if left > 1:
            self.held[example.key] = (rollout, left - 1)
        return rollout

    def _draw(self, group: ScoredGroup, example: SlotExample, step: int) -> Rollout:
        import torch

        seed = seeds.derive(self.seed, "rollout", example.key, step)
        with torch.no_grad():
            actions = self.sample(group, torch.Generator().manual_seed(seed))
            logprobs = self.chances(group, actions)
            whole = logprobs.sum(1) if self.credited else logprobs
        judged = self.judge(actions.tolist(), example)
        totals = [j.scored.total for j in judged]
        gains = self.gains(judged)
        report = {"reward": fmean(totals), "reward_std": pstdev(totals), **summary(judged)}
        # The entropy of the policy, estimated from the actions it drew.
        report |= {"entropy": -whole.mean().item(), **part_statistics(judged, self.composite)}
        for name in self.composite.names:
            paid = [v for j in judged if (v := j.scored.parts[name]) is not None]
            if paid:
                report[f"rewards/{name}/mean"] = fmean(paid)
        if self.written is not None and self.written.due:
            self._record(example, judged, whole.tolist(), gains)
        given = gains if not self.credited else self._credit(judged, gains, example)
        advantages = logprobs.new_tensor(given)
        return Rollout(actions=actions, logprobs=logprobs, advantages=advantages, report=report)

    def gains(self, judged: Sequence[Judged]) -> list[float]:
        """Advantages of the answers to one view, as ``grpo.aggregation`` says.

        With ``normalize_then_sum`` every reward is centred and scaled within the group by itself,
        and the advantage is the mean of those, weighted as the rewards are.
        """
        if self.spec.aggregation == "sum_then_normalize":
            return normalized([j.scored.total for j in judged], scale=self.spec.scale_advantages)
        gains = [0.0] * len(judged)
        for part in self.composite.parts:
            own = normalized([j.scored.parts[part.name] for j in judged])
            gains = [gain + part.weight * v for gain, v in zip(gains, own, strict=True)]
        weights = sum(self.composite.weights)
        return [gain / weights for gain in gains]

    def _record(
        self,
        example: SlotExample,
        judged: Sequence[Judged],
        logprobs: Sequence[float],
        gains: Sequence[float],
    ) -> None:
        """Show the first actions of a view to whoever records them."""
        assert self.written is not None
        for j, logprob, gain in list(zip(judged, logprobs, gains, strict=True))[:RECORDED]:
            answer = j.outcome.answer
            scores = answer.values if isinstance(answer, Scores) else None
            row = {
                "qid": example.view.query.qid,
                "documents": list(example.view.docids),
                "order": list(j.outcome.as_order(example.view)),
                "values": [scores[d] for d in example.view.docids] if scores else None,
                "logprob": logprob,
                "advantage": gain,
            }
            self.written.add(row, j)

    def _credit(
        self, judged: Sequence[Judged], gains: Sequence[float], example: SlotExample
    ) -> list[list[float]]:
        """For each action the advantage of each choice: what is earned from its place on."""
        view, grades, blank = example.view, example.grades, Completion(text="")
        found = [earned(self.credited, j.scored, j.outcome, view, grades, blank) for j in judged]
        scale: Scale = "group" if self.spec.scale_advantages else "none"
        given = assign(found, gains, group_size=len(found), scale=scale, spread=pstdev)
        places = min(self.spec.top_k, len(view.docids))
        # Nothing relevant: no places, and every gain is 0.
        return [list(c.places[:places] or [c.before] * places) for c in given]

    def sample(self, group: ScoredGroup, generator: torch.Generator) -> torch.Tensor:
        """(G, n) actions drawn from the slots as they are, on the CPU for the same everywhere."""
        import torch

        size, device = self.spec.group_size, group.scores.device
        if self.spec.action == "plackett_luce":
            scores = group.scores.detach().cpu() / self.spec.temperature
            gumbel = -torch.empty(size, len(scores)).exponential_(generator=generator).log()
            return (scores + gumbel).argsort(dim=1, descending=True).to(device)
        logits = need(group, "grpo", "logits", "a format with label slots")
        probabilities = (logits.detach().cpu() / self.spec.temperature).softmax(-1)
        drawn = torch.multinomial(probabilities, size, replacement=True, generator=generator)
        return drawn.T.to(device)

    def choices(self, group: ScoredGroup, actions: torch.Tensor) -> torch.Tensor:
        """(G, places) log-probability of each choice of an action: of the document taken at each
        place of an order, up to ``top_k``, or of the label of each document."""
        import torch

        if self.spec.action == "plackett_luce":
            ordered = (group.scores / self.spec.temperature)[actions]
            remaining = ordered.flip(1).logcumsumexp(1).flip(1)
            return (ordered - remaining)[:, : self.spec.top_k]
        logits = need(group, "grpo", "logits", "a format with label slots")
        logprobs = (logits / self.spec.temperature).log_softmax(-1)
        slots = torch.arange(len(logprobs), device=actions.device)
        return logprobs[slots, actions]

    def logprob(self, group: ScoredGroup, actions: torch.Tensor) -> torch.Tensor:
        """(G,) log-probability of actions; an order counts to its ``top_k``-th place."""
        return self.choices(group, actions).sum(1)

    def chances(self, group: ScoredGroup, actions: torch.Tensor) -> torch.Tensor:
        """Log-probability of whatever has an advantage of its own: actions or their choices."""
        return self.choices(group, actions) if self.credited else self.logprob(group, actions)

    def judge(self, actions: Sequence[Sequence[int]], example: SlotExample) -> list[Judged]:
        """The reward of every action of one view; what was drawn twice is judged once."""
        lines = baselines(
            self.composite,
            example.view,
            example.grades,
            kind="order" if self.spec.action == "plackett_luce" else "scores",
        )
        known: dict[tuple[int, ...], Judged] = {}
        for action in map(tuple, actions):
            if action not in known:
                outcome = Outcome(status="ok", answer=self._answer(action, example.view))
                scored = self.composite(outcome, example.view, example.grades, Completion(text=""))
                known[action] = Judged(
                    group=example.key, outcome=outcome, scored=scored, baselines=lines
                )
        return [known[action] for action in map(tuple, actions)]

    def _answer(self, action: Sequence[int], view: View) -> Order | Scores:
        if self.spec.action == "plackett_luce":
            return Order(docids=tuple(view.docids[i] for i in action))
        said = (self.values[label] for label in action)
        return Scores(values=dict(zip(view.docids, said, strict=True)))
