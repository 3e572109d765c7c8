"""Rank-level credit in the trainers: advantages of tokens in numbers, and what they teach."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_runs import in_two_processes, moved, records, training
from test_grpo_slots import ORDERS, SCORES, example, group
from test_grpo_slots import policy as slot_policy

from rank_rl import metrics, rewards
from rank_rl.errors import RecipeError
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.specs import RecipeSpec
from rank_rl.training import common, grpo, grpo_text
from rank_rl.training.flat_groups import FlatGroups
from rank_rl.training.group_generation import Ending
from rank_rl.training.group_trainer import GroupTrainer
from rank_rl.training.rank_credit import RankCredit, token_ends

Recipe = Callable[..., RecipeSpec]
REWARDS = [{"name": "ndcg"}, {"name": "format", "weight": 0.5}]
L3 = 1 / math.log2(3)


class Saying(GroupTrainer):
    """The trainer as it is, on answers that a test gives instead of drawn ones."""

    answers: list[str]

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        self.own_tokens = None
        end = self.processing_class.eos_token_id
        return [[*_ids(self.processing_class, text), end] for text in self.answers], None


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def trainer_of(spec: RecipeSpec) -> tuple[Saying, dict[str, Any]]:
    """A trainer of a recipe with rank-level credit, and its first row."""
    from datasets import Dataset

    stage = common.begin("grpo", spec, {})
    composite = rewards.make(spec.rewards)
    rows, longest, _ = grpo_text.training_rows(stage)
    adapter = TrlRewards(composite, stage.fmt)
    trainer = Saying(
        ending=Ending(tokens=stage.tokens, eos=grpo_text.ends(stage.loaded)),
        model=stage.loaded.model,
        reward_funcs=adapter.functions,
        args=grpo_text.arguments(stage, list(composite.weights), longest),
        train_dataset=Dataset.from_list(rows),
        processing_class=stage.loaded.tokenizer,
    )
    trainer.credit = RankCredit(adapter, stage.loaded.tokenizer)
    trainer.model.train()
    return trainer, rows[0]


def saying(recipe: Recipe, answers: list[str], **sections: Any) -> tuple[Saying, dict[str, Any]]:
    """A trainer whose first group gives ``answers``, and the row that they answer."""
    given = {"rewards": REWARDS, "grpo": {"credit": "rank"}, "training": training(), **sections}
    trainer, row = trainer_of(recipe(**given))
    trainer.answers = answers
    return trainer, row


def orders(row: dict[str, Any]) -> list[str]:
    """Lists of the four labels with the one relevant document at place 1, 2, 3 and 4."""
    gold = str(1 + row["grades"].index(1))
    others = [label for label in row["labels"] if label != gold]
    return [
        " > ".join(f"[{label}]" for label in [*others[:i], gold, *others[i:]]) for i in range(4)
    ]


def told(trainer: Saying, row: dict[str, Any]) -> tuple[torch.Tensor, list[list[str]]]:
    """Advantages (B, T) as the loss gets them, and the text of every token."""
    batch = trainer._generate_and_score_completions([dict(row) for _ in trainer.answers])
    texts = [[trainer.processing_class.decode([i]) for i in ids] for ids in batch["completion_ids"]]
    return batch["advantages"], texts


def by_place(values: torch.Tensor, texts: list[str]) -> list[list[float]]:
    """Advantages of the tokens of each place of a list, and of those behind it; a separator
    begins a place."""
    found: list[list[float]] = [[]]
    for value, text in zip(values.tolist(), texts, strict=True):
        begins = ">" in text or "<|im_end|>" in text
        found = [*found, []] if begins else found
        found[-1].append(value)
    return found


def test_the_loss_gets_the_hand_computed_advantages_of_each_token(recipe: Recipe) -> None:
    trainer, row = saying(recipe, [])
    first, second, third, _ = orders(row)
    trainer.answers = [first, second, third, "no list"]
    advantages, texts = told(trainer, row)
    assert advantages.shape == (4, max(map(len, texts)))
    # nDCG 1, 1/log2(3), 1/2 and 0; format 0.5 for lists, 0 for the text that is none.
    totals = [1.5, L3 + 0.5, 1.0, 0.0]
    mean = sum(totals) / 4
    spread = math.sqrt(sum((t - mean) ** 2 for t in totals) / 3) + 1e-4
    valid = (1 + L3 + 0.5) / 3
    after = (valid + 0.5 - mean) / spread  # what an average list of the group is worth
    lists = [[1.0, 0, 0, 0], [L3, L3, 0, 0], [0.5, 0.5, 0.5, 0]]
    for number, places in enumerate(lists):
        found = by_place(advantages[number], texts[number])
        assert len(found) >= 5
        for k in range(4):
            column = [each[k] for each in lists]
            middle = sum(column) / 3
            own = math.sqrt(sum((c - middle) ** 2 for c in column) / 2) + 1e-4
            expected = after + (places[k] - middle) / own
            assert found[k] == pytest.approx([expected] * len(found[k]), abs=1e-4), (number, k)
        assert found[4] == pytest.approx([after] * len(found[4]), abs=1e-4)
    size = len(_ids(trainer.processing_class, "no list")) + 1
    malformed = (0.0 - mean) / spread
    assert advantages[3][:size].tolist() == pytest.approx([malformed] * size, abs=1e-4)


def test_reasoning_keeps_the_advantage_of_the_whole_answer(recipe: Recipe) -> None:
    trainer, row = saying(recipe, [], format={"name": "permutation", "mode": "reason"})
    best, worst = orders(row)[0], orders(row)[3]
    reasons = ("é says who", "not", "ü", "It says where")
    trainer.answers = [
        f"<think>\n{reason}\n</think>\n<answer>{said}</answer>"
        for reason, said in zip(reasons, (best, worst, best, worst), strict=True)
    ]
    advantages, texts = told(trainer, row)
    whole = 0.5 * math.sqrt(3)  # one sample deviation of two equal pairs
    for values, pieces, sign in zip(advantages, texts, (1, -1, 1, -1), strict=True):
        at = next(i for i, piece in enumerate(pieces) if "[" in piece)
        assert values[:at].tolist() == pytest.approx([sign * whole] * at, abs=2e-3)
        own = [v for v, piece in zip(values.tolist(), pieces, strict=True) if piece]
        end = pieces.index("<|im_end|>")
        assert own[end] == pytest.approx(0, abs=1e-4)  # all are lists: nothing else differs


def test_groups_that_replace_flat_ones_are_credited_too(recipe: Recipe) -> None:
    trainer, row = saying(recipe, [])
    best, second, third, worst = orders(row)
    trainer.flat = FlatGroups("resample", tries=1)
    said = iter([[best] * 4, [best, second, third, worst]])

    def others(rows: Any) -> Any:
        trainer.answers = next(said)
        return type(trainer)._scored(trainer, [dict(row) for _ in range(4)])

    trainer._scored = others  # type: ignore[method-assign]
    batch = trainer._generate_and_score_completions([dict(row) for _ in range(4)])
    assert batch["advantages"].ndim == 2
    assert [trainer.processing_class.decode(i, skip_special_tokens=True)
            for i in batch["completion_ids"]] == [best, second, third, worst]  # fmt: skip
    assert batch["advantages"][0][0] > 1 > 0 > batch["advantages"][3][0]


SCRIPT = """
import json, sys
from pathlib import Path
from rank_rl.specs import RecipeSpec
from test_rank_credit import orders, told, trainer_of

folder = Path(sys.argv[1])
trainer, row = trainer_of(RecipeSpec.model_validate_json((folder / "spec.json").read_text()))
rank = trainer.accelerator.process_index
trainer.answers = [*orders(row)[:3], "no list"][2 * rank : 2 * rank + 2]
advantages, _ = told(trainer, row)
(folder / f"rank{rank}.json").write_text(json.dumps(advantages.tolist()))
trainer.accelerator.end_training()
"""


@pytest.mark.distributed
@pytest.mark.slow
def test_a_group_may_be_spread_over_processes(recipe: Recipe, tmp_path: Path) -> None:
    trainer, row = saying(recipe, [])
    trainer.answers = [*orders(row)[:3], "no list"]
    whole = told(trainer, row)[0].tolist()
    shared = {"rewards": REWARDS, "grpo": {"credit": "rank"}}
    spec = recipe(training=training(per_device_train_batch_size=2, use_cpu=True), **shared)
    parts = in_two_processes(SCRIPT, spec, tmp_path)
    for row_values, expected in zip([*parts[0], *parts[1]], whole, strict=True):
        # Each process pads to its own longest completion; behind an answer's end all is 0.
        width = min(len(row_values), len(expected))
        assert row_values[:width] == pytest.approx(expected[:width], abs=1e-5)
        assert not any(expected[width:])
    assert max(map(max, whole)) > 0.5


def gradient_of(trainer: Saying, row: dict[str, Any], kept: Callable[[int], bool]) -> float:
    """Norm of the gradient that the tokens of some places give."""
    batch = trainer._generate_and_score_completions([dict(row) for _ in trainer.answers])
    ids = batch["completion_ids"]
    mask = torch.zeros_like(batch["completion_mask"])
    for i, each in enumerate(ids):
        place = 0
        for t, one in enumerate(each.tolist()):
            text = trainer.processing_class.decode([one])
            place += ">" in text
            mask[i, t] = kept(place) and "<|im_end|>" not in text
    batch["completion_mask"] = batch["completion_mask"] * mask
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch).backward()
    if trainer.shared_pass is not None:
        trainer.shared_pass.close()
    return math.sqrt(
        sum(float((p.grad**2).sum()) for p in trainer.model.parameters() if p.grad is not None)
    )


def test_a_place_that_all_fill_alike_gets_no_signal(recipe: Recipe) -> None:
    """Only places 2 and 3 differ: whatever they earn, the tokens of place 1 are the same in all."""
    trainer, row = saying(recipe, [])
    gold = str(1 + row["grades"].index(1))
    a, b, c = (label for label in row["labels"] if label != gold)
    trainer.answers = [
        f"[{a}] > [{gold}] > [{b}] > [{c}]",
        f"[{a}] > [{b}] > [{gold}] > [{c}]",
    ] * 2
    assert gradient_of(trainer, row, lambda place: place == 1) > 1e-2
    assert gradient_of(trainer, row, lambda place: place == 0) < 1e-5


def test_what_an_early_place_earned_is_not_held_for_later_ones(recipe: Recipe) -> None:
    """Only place 1 earns, so later places teach nothing, which one advantage an answer would."""
    # With a cut at 1 the relevant document earns at place 1 or not at all.
    rewards = [{"name": "ndcg", "params": {"k": 1}}, {"name": "format", "weight": 0.5}]
    trainer, row = saying(recipe, [], rewards=rewards)
    gold = str(1 + row["grades"].index(1))
    a, b, c = (label for label in row["labels"] if label != gold)
    trainer.answers = [
        f"[{gold}] > [{a}] > [{b}] > [{c}]",
        f"[{gold}] > [{c}] > [{b}] > [{a}]",
        f"[{a}] > [{b}] > [{c}] > [{gold}]",
        f"[{b}] > [{a}] > [{c}] > [{gold}]",
    ]
    assert gradient_of(trainer, row, lambda place: place == 0) > 1e-2
    assert gradient_of(trainer, row, lambda place: place > 0) < 1e-5
    trainer.credit = None
    assert gradient_of(trainer, row, lambda place: place > 0) > 1e-2


@pytest.mark.parametrize("more", [{}, {"group_shuffle": True, "flat_groups": "resample"}])
def test_two_steps_move_the_weights(
    recipe: Recipe, tiny_model_dir: Path, more: dict[str, Any]
) -> None:
    spec = recipe(
        rewards=[*REWARDS, {"name": "chance:Digits"}],
        grpo={"credit": "rank", **more},
        training=training(steps_per_generation=2, gradient_accumulation_steps=2),
    )
    summary = grpo.run(spec, {})
    assert moved(tiny_model_dir, summary["checkpoint"])
    steps = [r for r in records(spec.run.output_dir) if "credit/placed" in r]
    assert [r["step"] for r in steps] == [1, 2] and all(r["loss"] == r["loss"] for r in steps)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"format": {"name": "scores"}}, r"grpo.credit: value rank with format 'scores', whose"),
        (
            {"training": training(importance_sampling_level="sequence")},
            r"training.importance_sampling_level: value sequence; expected another one, or grpo",
        ),
        (
            {"training": training(multi_objective_aggregation="normalize_then_sum")},
            r"training.multi_objective_aggregation: value normalize_then_sum",
        ),
        ({"rewards": [{"name": "format"}]}, r"grpo.credit: no reward can be divided"),
    ],
)
def test_what_has_no_places_is_refused(recipe: Recipe, sections: Any, message: str) -> None:
    given = {"rewards": REWARDS, "training": training(), "grpo": {"credit": "rank"}, **sections}
    with pytest.raises(RecipeError, match=message):
        grpo_text.run(recipe(**given), {})


@pytest.mark.parametrize("text", ["[3] > [11] > [2]", "<think>\né€😀 [1]\n</think>\n[2]>[1]", ""])
def test_ends_of_tokens_are_those_of_the_text(recipe: Recipe, text: str) -> None:
    tokenizer = common.begin("grpo", recipe(rewards=[{"name": "ndcg"}]), {}).loaded.tokenizer
    ids = [*_ids(tokenizer, text), tokenizer.eos_token_id]
    ends = token_ends(tokenizer, ids, text)
    assert ends[-1] == len(text) and ends == sorted(ends)
    pieces = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert "".join(pieces) == text
    whole = [tokenizer.decode([i]) for i in ids[:-1]]
    same = [p == w for p, w in zip(pieces, whole, strict=False) if "\ufffd" not in w]
    assert all(same)


def test_a_tokenizer_of_another_kind_is_decoded(recipe: Recipe) -> None:
    class Upper:
        """Writes its text in capitals, so that its vocabulary does not tell what it writes."""

        all_special_ids = (0,)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return ["eos" if i == 0 else "ab"[i - 1] for i in ids]

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return "".join("AB"[i - 1] for i in ids if i)

    assert token_ends(Upper(), [1, 2, 2, 0], "ABB") == [1, 2, 3, 3]


def test_sentence_pieces_drop_the_space_that_begins_a_text() -> None:
    class Pieces:
        all_special_ids = (9,)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [{1: "▁[", 2: "3", 3: "]", 4: "<0xC3>", 5: "<0xA9>", 9: "</s>"}[i] for i in ids]

    assert token_ends(Pieces(), [1, 2, 3, 4, 5, 9], "[3]é") == [1, 2, 3, 3, 4, 4]


def test_slots_give_each_choice_what_is_earned_from_its_place_on():
    credit = {"policy": "slots", "credit": "rank", "group_size": 16, "scale_advantages": False}
    drawn = slot_policy(grpo={**credit, "top_k": 3}).rollout(
        group(torch.tensor(SCORES)), example([0, 2, 0, 1]), 0
    )
    ideal = 2 + L3
    worth = torch.tensor([0.0, 2.0, 0.0, 1.0])[drawn.actions] / ideal
    left = (worth / torch.log2(torch.arange(4) + 2.0)).flip(1).cumsum(1).flip(1)[:, :3]
    torch.testing.assert_close(drawn.advantages, left - left.mean(0), atol=1e-5, rtol=0)
    assert drawn.logprobs.shape == (16, 3)


def test_credit_is_the_gradient_of_the_expected_reward():
    """What a choice cannot change is left out of its credit, so nothing is lost by it."""
    settings = {"policy": "slots", "group_size": 20000, "scale_advantages": False}
    graded = {f"d{i}": g for i, g in enumerate([0, 2, 0, 1])}
    paid = torch.tensor([metrics.ndcg([f"d{i}" for i in o], graded, 10) for o in ORDERS.tolist()])
    values = torch.tensor(SCORES, requires_grad=True)
    exact_policy = slot_policy(grpo=settings)
    reward = (exact_policy.logprob(group(values), ORDERS).exp() * paid).sum()
    (exact,) = torch.autograd.grad(reward, values)

    acting = slot_policy(grpo={**settings, "credit": "rank"})
    loss, _ = acting([group(values)], [example([0, 2, 0, 1])], 0)
    (found,) = torch.autograd.grad(loss, values)
    torch.testing.assert_close(-found, exact, atol=0.004, rtol=0)
    assert exact.abs().max() > 0.04


def test_credit_makes_the_gradient_of_a_long_list_less_noisy():
    grades = [*17 * [0], 1, 1, 1]
    scores = torch.zeros(20)

    def signal(credit: str) -> float:
        """Squared mean gradient of a group beside their variance."""
        acting = slot_policy(grpo={"policy": "slots", "credit": credit, "top_k": 20})
        found = []
        for step in range(150):
            values = scores.clone().requires_grad_()
            loss, _ = acting([group(values)], [example(grades)], step)
            found += torch.autograd.grad(loss, values)
        every = torch.stack(found)
        return float(every.mean(0).square().sum() / every.var(0).sum())

    assert signal("rank") > 1.5 * signal("answer")


def test_slot_credit_is_zero_in_views_without_relevance_and_needs_an_order():
    values = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    settings = {"policy": "slots", "credit": "rank", "group_size": 3}
    loss, _ = slot_policy(grpo=settings)([group(values)], [example([0, 0, 0])], 0)
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="credit rank needs the places of an order"):
        slot_policy(grpo={**settings, "action": "labels"})
