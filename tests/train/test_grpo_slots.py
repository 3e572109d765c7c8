"""GRPO on label slots: the distribution of actions, the loss in literal numbers, the stage."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_runs import (
    SLOTS,
    STOPPING,
    TRAINING,
    interrupted,
    learned,
    moved,
    scores,
    weights,
)

from rank_rl import metrics
from rank_rl.errors import RecipeError
from rank_rl.losses.group import ScoredGroup
from rank_rl.records import Candidate, Query, numbered
from rank_rl.specs import RecipeSpec
from rank_rl.training import grpo
from rank_rl.training.grpo_slots import Rollout, SlotPolicy
from rank_rl.training.slot_trainer import SlotExample

Recipe = Callable[..., RecipeSpec]
NDCG = [{"name": "ndcg"}]
SCORES = [0.7, -0.4, 1.5, 0.0]


def policy(values: tuple[float, ...] = (0.0, 1.0), seed: int = 0, **sections: Any) -> SlotPolicy:
    content = {
        "run": {"name": "t", "output_dir": "out", "seed": seed},
        "model": {"name": "m"},
        "data": {"source": "bundled"},
        "format": {"name": "slots"},
        "rewards": NDCG,
        "grpo": {"policy": "slots"},
        **sections,
    }
    return SlotPolicy(RecipeSpec.model_validate(content), values)


def grpo_policy(**params: Any) -> SlotPolicy:
    return policy(grpo={"policy": "slots", **params})


def example(grades: list[int], key: str = "q#0") -> SlotExample:
    docids = [f"d{i}" for i in range(len(grades))]
    candidates = [Candidate(docid=d, text=d, rank=i + 1) for i, d in enumerate(docids)]
    view = numbered(Query(qid="q", text="?"), candidates)
    return SlotExample(
        key=key, view=view, grades=dict(zip(docids, grades, strict=True)), encoded=([], [])
    )


def group(scores: torch.Tensor, grades: list[int] | None = None) -> ScoredGroup:
    logits = torch.stack([-scores / 2, scores / 2], dim=1)
    graded = torch.tensor(grades or [0] * len(scores), dtype=torch.float32)
    return ScoredGroup(
        logits=logits,
        mass=torch.zeros(len(scores)),
        scores=scores,
        grades=graded,
        targets=graded.long().clamp(max=1),
    )


ORDERS = torch.tensor(list(itertools.permutations(range(4))))


def test_probabilities_of_all_orders_sum_to_one():
    given = group(torch.tensor(SCORES))
    for temperature in (0.5, 1.0, 3.0):
        chances = grpo_policy(temperature=temperature).logprob(given, ORDERS).exp()
        assert chances.sum().item() == pytest.approx(1, abs=1e-5)


def test_probability_of_an_order_is_a_product_of_choices():
    e = [math.exp(s / 2) for s in SCORES]
    expected = math.log(e[2] / sum(e)) + math.log(e[0] / (e[0] + e[1] + e[3]))
    expected += math.log(e[3] / (e[3] + e[1]))
    given, action = group(torch.tensor(SCORES)), torch.tensor([[2, 0, 3, 1]])
    assert grpo_policy(temperature=2.0).logprob(given, action).item() == pytest.approx(expected)
    first = grpo_policy(temperature=2.0, top_k=1).logprob(given, action)
    assert first.item() == pytest.approx(math.log(e[2] / sum(e)))


def frequencies(actions: torch.Tensor) -> Counter[tuple[int, ...]]:
    return Counter(map(tuple, actions.tolist()))


def assert_drawn_as_told(drawer: SlotPolicy, actions: torch.Tensor, draws: int) -> None:
    given = group(torch.tensor(SCORES))
    counts = frequencies(drawer.sample(given, torch.Generator().manual_seed(0)))
    chances = drawer.logprob(given, actions).exp().tolist()
    assert sum(counts.values()) == draws
    for action, p in zip(actions.tolist(), chances, strict=True):
        spread = math.sqrt(p * (1 - p) / draws)
        assert abs(counts[tuple(action)] / draws - p) < 4.5 * spread + 1e-4, action


def test_orders_are_drawn_as_often_as_their_probability_says():
    assert_drawn_as_told(grpo_policy(group_size=20000, temperature=0.8), ORDERS, 20000)


def test_labels_are_drawn_as_often_as_their_probability_says():
    drawer = grpo_policy(group_size=20000, action="labels", temperature=0.8)
    everything = torch.tensor(list(itertools.product(range(2), repeat=4)))
    assert_drawn_as_told(drawer, everything, 20000)


def test_probability_of_labels_is_the_product_over_slots():
    given = group(torch.tensor(SCORES))
    yes = [1 / (1 + math.exp(-s)) for s in SCORES]
    expected = math.log(yes[0] * (1 - yes[1]) * yes[2] * (1 - yes[3]))
    found = grpo_policy(action="labels").logprob(given, torch.tensor([[1, 0, 1, 0]]))
    assert found.item() == pytest.approx(expected)
    everything = torch.tensor(list(itertools.product(range(2), repeat=4)))
    total = grpo_policy(action="labels").logprob(given, everything).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_rollouts_depend_on_seed_key_and_step_alone():
    given = group(torch.tensor(SCORES))

    def drawn(seed: int = 0, key: str = "q#0", step: int = 3) -> list[list[int]]:
        torch.manual_seed(torch.seed() % 1000)  # the global generator must not matter
        return policy(seed=seed).rollout(given, example([1, 0, 0, 0], key), step).actions.tolist()

    assert drawn() == drawn()
    assert all(drawn() != drawn(**change) for change in ({"seed": 1}, {"key": "r"}, {"step": 4}))


def test_rewards_are_the_ranking_rewards_of_the_orders():
    drawn = grpo_policy(group_size=16).rollout(
        group(torch.tensor(SCORES)), example([0, 2, 0, 1]), 0
    )
    grades = {"d0": 0, "d1": 2, "d2": 0, "d3": 1}
    paid = [metrics.ndcg([f"d{i}" for i in a], grades, 10) for a in drawn.actions.tolist()]
    mean = sum(paid) / 16
    spread = math.sqrt(sum((p - mean) ** 2 for p in paid) / 16)
    expected = [(p - mean) / (spread + 1e-4) for p in paid]
    assert drawn.advantages.tolist() == pytest.approx(expected, abs=1e-4)
    assert drawn.report["reward"] == pytest.approx(mean)
    assert drawn.report["reward_std"] == pytest.approx(spread, abs=1e-6)
    assert drawn.report["rewards/ndcg/mean"] == pytest.approx(mean)
    plain = grpo_policy(group_size=16, scale_advantages=False).rollout(
        group(torch.tensor(SCORES)), example([0, 2, 0, 1]), 0
    )
    assert plain.advantages.tolist() == pytest.approx([p - mean for p in paid], abs=1e-5)


BOTH = [{"name": "ndcg", "weight": 3.0}, {"name": "recall", "weight": 1.0, "params": {"k": 2}}]


def by_itself(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    return [(v - mean) / (spread + 1e-4) for v in values]


def test_rewards_are_normalised_before_they_are_summed():
    settings = {"policy": "slots", "group_size": 16, "aggregation": "normalize_then_sum"}
    drawn = policy(rewards=BOTH, grpo=settings).rollout(
        group(torch.tensor(SCORES)), example([0, 2, 0, 1]), 0
    )
    grades = {"d0": 0, "d1": 2, "d2": 0, "d3": 1}
    orders = [[f"d{i}" for i in a] for a in drawn.actions.tolist()]
    ndcg = by_itself([metrics.ndcg(o, grades, 10) for o in orders])
    recall = by_itself([metrics.recall(o, grades, 2) for o in orders])
    expected = [(3 * n + r) / 4 for n, r in zip(ndcg, recall, strict=True)]
    assert drawn.advantages.tolist() == pytest.approx(expected, abs=1e-5)
    settings["aggregation"] = "sum_then_normalize"
    other = policy(rewards=BOTH, grpo=settings).rollout(
        group(torch.tensor(SCORES)), example([0, 2, 0, 1]), 0
    )
    assert torch.equal(other.actions, drawn.actions)
    assert (other.advantages - drawn.advantages).abs().max() > 0.05


def test_a_part_that_does_not_apply_or_does_not_differ_adds_nothing():
    settings = {"policy": "slots", "group_size": 16, "aggregation": "normalize_then_sum"}
    given, shown = group(torch.tensor([0.3, -0.2, 0.5])), example([0, 1, 0])
    # Recall@5 does not apply to three documents.
    absent = [{"name": "ndcg"}, {"name": "recall", "params": {"k": 5}}]
    alone = policy(grpo=settings).rollout(given, shown, 0).advantages
    assert policy(rewards=absent, grpo=settings).rollout(given, shown, 0).advantages.tolist() == (
        pytest.approx((alone / 2).tolist())
    )
    flat = policy(rewards=BOTH, grpo=settings).rollout(given, example([1, 1, 1]), 0)
    assert flat.advantages.tolist() == [0.0] * 16


def test_the_entropy_of_the_policy_is_logged():
    uniform = grpo_policy(group_size=4).rollout(group(torch.zeros(4)), example([1, 0, 0, 0]), 0)
    assert uniform.report["entropy"] == pytest.approx(math.log(24), abs=1e-5)
    labels = grpo_policy(group_size=20000, action="labels").rollout(
        group(torch.tensor([2.0, 0.0])), example([1, 0]), 0
    )
    p = 1 / (1 + math.exp(-2))
    exact = math.log(2) - p * math.log(p) - (1 - p) * math.log(1 - p)
    assert labels.report["entropy"] == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "text"}, "training.multi_objective_aggregation: normalize_then_sum"),
        ({"policy": "slots", "scale_advantages": False}, "leave scale_advantages out"),
    ],
)
def test_an_aggregation_without_effect_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        policy(grpo={**settings, "aggregation": "normalize_then_sum"})


def test_copy_and_ceiling_are_logged_beside_the_reward():
    drawn = policy().rollout(group(torch.tensor(SCORES)), example([0, 0, 0, 1]), 0)
    assert drawn.report["ranking/copy"] == pytest.approx(1 / math.log2(5))
    assert drawn.report["ranking/ceiling"] == 1.0
    assert drawn.report["ranking/flat_groups"] == 0.0


def test_a_reward_that_does_not_apply_is_left_out_of_the_log_and_its_mean():
    rewards = [*NDCG, {"name": "recall", "params": {"k": 3}}]
    acting = policy(rewards=rewards)
    groups = [group(torch.zeros(4)), group(torch.zeros(3))]
    _, report = acting(groups, [example([0, 0, 0, 1], "a"), example([0, 0, 1], "b")], 0)
    alone = policy(rewards=rewards).rollout(groups[0], example([0, 0, 0, 1], "a"), 0).report
    assert report["rewards/recall/mean"] == pytest.approx(alone["rewards/recall/mean"])
    assert "rewards/recall/mean" not in acting.rollout(groups[1], example([0, 0, 1]), 1).report


def test_labels_are_worth_their_values():
    acting = policy(
        values=(0.0, 1.0, 8.0),
        rewards=[{"name": "score_distribution"}],
        grpo={"policy": "slots", "action": "labels"},
    )
    (judged,) = acting.judge([[2, 1, 0]], example([2, 1, 0]))
    assert judged.outcome.answer.values == {"d0": 8.0, "d1": 1.0, "d2": 0.0}  # type: ignore[union-attr]
    assert judged.baselines.ceiling == 1.0


def rollout(actions: list[list[int]], logprobs: list[float], advantages: list[float]) -> Rollout:
    return Rollout(
        actions=torch.tensor(actions),
        logprobs=torch.tensor(logprobs),
        advantages=torch.tensor(advantages),
        report={},
    )


def test_the_ratio_is_clipped_in_literal_numbers():
    acting = grpo_policy(clip=0.2)
    given = group(torch.zeros(2))
    half = math.log(0.5)
    for then, advantage, value, cut in (
        (0.5, 1.0, -1.0, 0),  # unchanged
        (0.25, 1.0, -1.2, 1),  # twice as likely, and good: no more to gain than 1.2
        (0.25, -1.0, 2.0, 0),  # twice as likely, and bad: held against it in full
        (1.0, -1.0, 0.8, 1),  # half as likely, and bad: no more to gain than 0.8
        (1.0, 1.0, -0.5, 0),
    ):
        held = rollout([[0, 1]], [math.log(then)], [advantage])
        loss, clipped = acting.policy_loss(given, held)
        assert half == pytest.approx(acting.logprob(given, held.actions).item())
        assert (loss.item(), clipped) == (pytest.approx(value), cut), (then, advantage)


@pytest.mark.parametrize("then", [0.0, -500.0, 500.0])
def test_the_loss_stays_finite_however_far_the_policy_went(then):
    values = torch.zeros(2, requires_grad=True)
    held = rollout([[0, 1], [1, 0]], [then, then], [1.0, -1.0])
    loss, _ = grpo_policy().policy_loss(group(values), held)
    (gradient,) = torch.autograd.grad(loss, values)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_later_iterations_reuse_the_rollout_and_clip():
    acting = grpo_policy(iterations=3, group_size=32)
    shown = example([1, 0, 0, 0])
    values = torch.zeros(4, requires_grad=True)
    held, ratios = [], []
    for step in range(6):
        held.append(acting.rollout(group(values), shown, step))
        acting.held.clear() if step % 3 == 2 else None
        loss, clipped = acting.policy_loss(group(values), held[-1])
        ratios.append(clipped)
        (gradient,) = torch.autograd.grad(loss, values)
        values = (values - 2.0 * gradient).detach().requires_grad_()
    assert held[0] is held[1] is held[2] is not held[3]
    assert held[3] is held[4] is held[5]
    assert ratios[0] == ratios[3] == 0 and all(r > 0.1 for r in (ratios[1], ratios[2], ratios[4]))


def test_nothing_is_held_after_the_last_iteration():
    acting = grpo_policy(iterations=2)
    shown, given = example([1, 0, 0, 0]), group(torch.zeros(4))
    first, second, third = (acting.rollout(given, shown, step) for step in range(3))
    assert first is second is not third
    acting.rollout(given, shown, 3)
    assert acting.held == {}


@pytest.mark.parametrize("grades", [[0, 0, 0], [1, 1, 1]])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_flat_group_teaches_nothing(grades, scaled):
    values = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    # The mean of three times 0.1 is not 0.1 in binary numbers.
    settings = {"policy": "slots", "group_size": 3, "scale_advantages": scaled}
    acting = policy(rewards=[{"name": "ndcg", "weight": 0.1}], grpo=settings)
    loss, report = acting([group(values)], [example(grades)], 0)
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient.tolist() == [0, 0, 0]
    assert report["ranking/flat_groups"] == 1


def test_supervision_is_added_by_its_share():
    losses = [{"name": "bce"}]
    plain = policy(losses=losses)
    mixed = policy(losses=losses, grpo={"policy": "slots", "supervised": 0.5})
    given = group(torch.tensor(SCORES), [1, 0, 0, 0])
    shown = example([1, 0, 0, 0])
    difference = mixed([given], [shown], 0)[0] - plain([given], [shown], 0)[0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        given.scores, torch.tensor([1.0, 0, 0, 0])
    )
    assert difference.item() == pytest.approx(0.5 * expected.item(), abs=1e-6)


def expected_reward(acting: SlotPolicy, scores: torch.Tensor, grades: list[int]) -> float:
    """Mean nDCG over all orders, weighted by their probability."""
    graded = {f"d{i}": g for i, g in enumerate(grades)}
    paid = [metrics.ndcg([f"d{i}" for i in order], graded, 10) for order in ORDERS.tolist()]
    chances = acting.logprob(group(scores), ORDERS).exp().tolist()
    return sum(p * c for p, c in zip(paid, chances, strict=True))


@pytest.mark.parametrize("action", ["plackett_luce", "labels"])
@pytest.mark.parametrize("iterations", [1, 2])
def test_following_the_gradient_raises_the_expected_reward(action, iterations):
    acting = grpo_policy(action=action, iterations=iterations, group_size=64)
    exact = grpo_policy()
    grades = [0, 2, 0, 1]
    values = torch.tensor([1.0, -1.0, 0.5, 0.0], requires_grad=True)
    before = expected_reward(exact, values.detach(), grades)
    for step in range(40):
        loss, _ = acting([group(values)], [example(grades)], step)
        (gradient,) = torch.autograd.grad(loss, values)
        values = (values - 0.3 * gradient).detach().requires_grad_()
    after = expected_reward(exact, values.detach(), grades)
    assert before < 0.7 and after > 0.85
    assert int(values.argmax()) == 1


def test_the_gradient_is_that_of_the_expected_reward():
    acting = grpo_policy(group_size=40000, scale_advantages=False)
    grades = [0, 2, 0, 1]
    values = torch.tensor(SCORES, requires_grad=True)
    loss, _ = acting([group(values)], [example(grades)], 0)
    (found,) = torch.autograd.grad(loss, values)
    graded = {f"d{i}": g for i, g in enumerate(grades)}
    paid = torch.tensor([metrics.ndcg([f"d{i}" for i in o], graded, 10) for o in ORDERS.tolist()])
    reward = (acting.logprob(group(values), ORDERS).exp() * paid).sum()
    (exact,) = torch.autograd.grad(reward, values)
    torch.testing.assert_close(-found, exact, atol=0.003, rtol=0)
    assert exact.abs().max() > 0.04


# The stage, on the tiny model.

GRPO = {"policy": "slots", "group_size": 16}


@pytest.mark.parametrize("action", ["plackett_luce", "labels"])
def test_all_weights_move_and_the_saved_model_scores_the_same(
    recipe: Recipe, tiny_model_dir: Path, action: str
) -> None:
    spec = recipe(format=SLOTS, rewards=NDCG, grpo={**GRPO, "action": action})
    summary = grpo.run(spec, {"hash": "abc"})
    assert (summary["stage"], summary["steps"]) == ("grpo", 2)
    assert moved(tiny_model_dir, summary["checkpoint"]) == set(weights(tiny_model_dir))
    out = Path(spec.run.output_dir)
    assert scores(summary["checkpoint"], spec) == scores(out / "checkpoint-2", spec)
    for record in learned(out):
        assert 0 < record["ranking/copy"] <= record["ranking/ceiling"] == 1
        assert 0 < record["reward"] == record["rewards/ndcg/mean"] <= 1
        assert record["clip_ratio"] == record["ranking/flat_groups"] == 0


def test_rewards_rise_while_the_stage_runs(recipe: Recipe) -> None:
    training = {**TRAINING, "max_steps": 24, "per_device_train_batch_size": 4}
    training = {**training, "learning_rate": 3e-3, "lr_scheduler_type": "constant"}
    spec = recipe(format=SLOTS, rewards=NDCG, grpo=GRPO, training=training)
    grpo.run(spec, {})
    rewards = [r["reward"] for r in learned(spec.run.output_dir)]
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.4


def test_with_iterations_batches_are_repeated_and_ratios_clipped(recipe: Recipe) -> None:
    training = {**TRAINING, "max_steps": 8, "learning_rate": 1e-2, "save_steps": 3}
    training = {**training, "lr_scheduler_type": "constant"}
    spec = recipe(format=SLOTS, rewards=NDCG, grpo={**GRPO, "iterations": 2}, training=training)
    grpo.run(spec, {})
    found = learned(spec.run.output_dir)
    assert len(found) == 8
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first["reward"] == second["reward"]
        assert first["clip_ratio"] == 0
    assert any(second["clip_ratio"] > 0 for second in found[1::2])
    assert len({r["reward"] for r in found}) > 2
    assert (Path(spec.run.output_dir) / "checkpoint-8").is_dir()


@pytest.mark.parametrize("iterations", [1, 2])
def test_a_killed_run_ends_as_if_it_had_not_been(recipe: Recipe, iterations: int) -> None:
    parts: dict[str, Any] = {
        "format": SLOTS,
        "rewards": NDCG,
        "losses": [STOPPING],
        "grpo": {**GRPO, "iterations": iterations, "supervised": 0.01},
        "training": {**TRAINING, "max_steps": 12, "save_steps": 3},
    }
    whole = recipe(**parts)
    out = Path(whole.run.output_dir)
    grpo.run(whole, {})
    broken = recipe(**parts, run={"output_dir": str(out.with_name("broken"))})
    interrupted(lambda: grpo.run(broken, {}), calls=2 * 10 + 1)  # within step 11
    assert len(learned(broken.run.output_dir)) == 10
    summary = grpo.run(broken, {})
    assert learned(broken.run.output_dir) == learned(out)
    assert not moved(out / "final", summary["checkpoint"])


def test_a_batch_that_cannot_be_repeated_is_refused(recipe: Recipe) -> None:
    spec = recipe(
        format=SLOTS,
        rewards=NDCG,
        grpo={**GRPO, "iterations": 2},
        training={**TRAINING, "per_device_train_batch_size": 16},
    )
    with pytest.raises(RecipeError, match="grpo.iterations: 8 training views are less than a batc"):
        grpo.run(spec, {})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"format": {"name": "permutation"}},
            r"format 'permutation' has no label slots.*policy: t",
        ),
        ({"rewards": []}, "rewards: no reward; expected at least one"),
        ({"rewards": [{"name": "ndgc"}]}, "unknown reward 'ndgc'"),
        ({"losses": [{"name": "bcee"}]}, "unknown loss 'bcee'"),
    ],
)
def test_wrong_recipes_are_one_line_before_anything_is_loaded(
    recipe: Recipe, sections: dict[str, Any], message: str
) -> None:
    parts: dict[str, Any] = {"format": SLOTS, "rewards": NDCG, "grpo": GRPO, **sections}
    spec = recipe(model={"name": "/no/such/model"}, **parts)
    with pytest.raises(RecipeError, match=message) as error:
        grpo.run(spec, {})
    assert "\n" not in str(error.value)
