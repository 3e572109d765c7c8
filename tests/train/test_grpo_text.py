"""Stage grpo on generated answers with the tiny model: prompts, checks, logs, learning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_runs import training

from rank_rl.errors import RecipeError
from rank_rl.models import loading
from rank_rl.records import Prompt
from rank_rl.specs import ModelSpec, RecipeSpec
from rank_rl.training import common, grpo, grpo_text

Recipe = Callable[..., RecipeSpec]
REWARDS = [
    {"name": "ndcg", "gate": "format", "gate_min": 1.0},
    {"name": "format", "weight": 0.5},
]


def records(spec: RecipeSpec) -> list[dict[str, Any]]:
    text = (Path(spec.run.output_dir) / "training_log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("model", [{}, {"lora": {"r": 4, "alpha": 8}}])
def test_two_steps_move_the_weights_and_log_what_a_reward_needs_beside_it(
    recipe: Recipe, tiny_model_dir: Path, model: dict[str, Any]
) -> None:
    # No untrained answer can be read, so a reward for any text makes the groups differ.
    rewards = [*REWARDS, {"name": "chance:Digits"}]
    spec = recipe(rewards=rewards, training=training(), model=model)
    summary = grpo.run(spec, {})
    before = loading.load(ModelSpec(name=str(tiny_model_dir))).model.state_dict()
    after = loading.load(ModelSpec(name=summary["checkpoint"])).model.state_dict()
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    linear = {n for n in before if "_proj" in n}
    assert moved == (linear if model else set(before))
    steps = [r for r in records(spec) if "rewards/ndcg/mean" in r]
    assert [r["step"] for r in steps] == [1, 2]
    for name in ("format", "ndcg", "digits"):
        assert f"rewards/{name}/mean" in steps[0]
    for name in ("copy", "ceiling", "parse_ok", "parse_failed", "flat_groups", "truncated"):
        assert 0 <= steps[0][f"ranking/{name}"] <= 3
    assert steps[0]["ranking/copy"] < steps[0]["ranking/ceiling"]
    assert [r["step"] for r in records(spec) if "eval_ndcg@10" in r] == [0, 2]


@pytest.mark.parametrize("prefill", ["", "<think>\n"])
def test_prompts_have_the_ids_of_inference_with_their_prefill(recipe: Recipe, prefill: str) -> None:
    form = {"name": "permutation", "mode": "reason", "params": {"prefill": prefill}}
    stage = common.begin("grpo", recipe(format=form, rewards=REWARDS), {})
    rows, longest, _ = grpo_text.training_rows(stage)
    (task, view), *_ = common.training_views(stage)[0]
    ids = stage.tokens.encode_prompt(stage.fmt.render(view))
    text = next(r["prompt"] for r in rows if r["qid"] == task.query.qid)
    assert stage.loaded.tokenizer(text=text)["input_ids"] == ids
    assert text.endswith("<|im_start|>assistant\n" + prefill)
    assert longest["prompt"] >= len(ids)


@pytest.mark.parametrize(
    ("mode", "ideal", "documents", "expected"),
    [
        ("reason", 40, 4, 512),
        ("reason", 110, 20, 1280),  # 600 to 900 tokens on average: TRL's 512 would cut them
        ("reason", 900, 20, 1800),
        ("answer", 110, 20, 220),
        ("answer", 4, 1, 16),
    ],
)
def test_completions_have_room_for_reasoning_about_every_document(
    recipe: Recipe, mode: str, ideal: int, documents: int, expected: int
) -> None:
    spec = recipe(format={"name": "permutation", "mode": mode})
    assert grpo_text.default_length(spec, ideal, documents) == expected


def test_a_prefilled_answer_earns_its_format_reward(recipe: Recipe) -> None:
    """A reward that looked for the opening tag in the completion alone would be 0 for ever."""
    from rank_rl import rewards
    from rank_rl.rewards.adapter import TrlRewards

    form = {"name": "permutation", "mode": "reason", "params": {"prefill": "<think>\n"}}
    spec = recipe(format=form, rewards=REWARDS)
    stage = common.begin("grpo", spec, {})
    row = grpo_text.training_rows(stage)[0][0]
    (task, view) = next(
        (t, v) for t, v in common.training_views(stage)[0] if t.query.qid == row["qid"]
    )
    ideal = stage.fmt.ideal(view, task.grades or {}, "It says so.").removeprefix("<think>\n")
    adapter = TrlRewards(rewards.make(spec.rewards), stage.fmt)
    columns = {k: [v] for k, v in row.items() if k != "prompt"}
    paid = {
        f.__name__: f(prompts=[row["prompt"]], completions=[ideal], **columns)
        for f in adapter.functions
    }
    assert paid == {"ndcg": [1.0], "format": [1.0]}


def test_a_tokenizer_that_adds_its_own_beginning_gets_it_once(recipe: Recipe) -> None:
    from tokenizers.processors import TemplateProcessing

    stage = common.begin("grpo", recipe(rewards=REWARDS), {})
    tokenizer = stage.loaded.tokenizer
    tokenizer.chat_template = "<|endoftext|>" + tokenizer.chat_template
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    prompt = Prompt(messages=({"role": "user", "content": "which house?"},))
    text, size = grpo_text.prompt_text(stage.tokens, prompt)
    ids = tokenizer(text=text)["input_ids"]
    assert ids == stage.tokens.encode_prompt(prompt) and len(ids) == size
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_completion_length": 4}, r"max_completion_length: 4 tokens, but the longest ideal"),
        ({"max_completion_length": 2040}, r"max_completion_length: \d+ prompt and 2040 completion"),
        ({"temperature": 0.0}, r"training.temperature: value 0.0; expected above 0"),
        ({"generation_kwargs": {"max_new_tokens": 9}}, r"expected training.max_completion_length"),
        ({"generation_kwargs": {"do_sample": False}}, r"do_sample: value False; expected sampling"),
        ({"num_generations": 3}, r"training: .*divisible by num_generations"),
        ({"reward_weights": [1.0]}, r"training.reward_weights: not set here; expected rewards"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(
    recipe: Recipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        grpo_text.run(recipe(rewards=REWARDS, training=training(**changes)), {})


def test_no_rewards_is_an_error(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="no reward"):
        grpo_text.run(recipe(training=training()), {})


def test_a_killed_run_goes_on(recipe: Recipe) -> None:
    grpo_text.run(recipe(rewards=REWARDS, training=training(save_steps=1)), {})
    spec = recipe(rewards=REWARDS, training=training(save_steps=1, max_steps=3))
    assert grpo_text.run(spec, {})["steps"] == 3
    assert [r["step"] for r in records(spec) if "reward" in r] == [1, 2, 3]


def advantages(recipe: Recipe, **changes: Any) -> dict[str, Any]:
    """Columns of the completions of one step: rewards, advantages, truncation."""
    import pandas

    rewards = [{"name": "chance:Digits"}, {"name": "chance:Capitals", "weight": 0.1}]
    spec = recipe(
        rewards=rewards,
        grpo={"log_completions": 1},
        training=training(max_steps=1, num_generations=8, per_device_train_batch_size=8, **changes),
        data={"validation_split": None, "validation": 0.0},
    )
    grpo_text.run(spec, {})
    table = pandas.read_parquet(Path(spec.run.output_dir) / "completions")
    return {**table.to_dict("list"), "loss": records(spec)[0]["loss"]}


def test_normalise_then_sum_reaches_the_trainer_and_gives_other_advantages(recipe: Recipe) -> None:
    summed = advantages(recipe)
    apart = advantages(recipe, multi_objective_aggregation="normalize_then_sum")
    assert summed["completion"] == apart["completion"]

    def scaled(values: list[float]) -> torch.Tensor:
        own = torch.tensor(values, dtype=torch.float64)
        return (own - own.mean()) / (own.std() + 1e-4)

    total = torch.tensor(summed["reward"], dtype=torch.float64)
    assert summed["advantage"] == pytest.approx(scaled(total.tolist()).tolist(), abs=1e-4)
    sums = scaled(apart["rewards/digits"]) + 0.1 * scaled(apart["rewards/capitals"])
    assert apart["advantage"] == pytest.approx(scaled(sums.tolist()).tolist(), abs=1e-4)
    change = [abs(a - b) for a, b in zip(summed["advantage"], apart["advantage"], strict=True)]
    assert max(change) > 0.01


def test_masking_truncated_completions_reaches_the_trainer(recipe: Recipe) -> None:
    """At the first step the loss is the mean of -advantage over the tokens that count."""
    for mask in (False, True):
        found = advantages(recipe, mask_truncated_completions=mask)
        assert sum(found["truncated"]) > 4  # an untrained model hardly ever ends its answers
        rows = zip(found["advantage"], found["tokens"], found["truncated"], strict=True)
        kept = [(a, n) for a, n, truncated in rows if not (mask and truncated)]
        total = sum(n for _, n in kept) or 1
        wanted = -sum(a * n for a, n in kept) / total
        assert found["loss"] == pytest.approx(wanted, abs=1e-5)


def test_an_easy_reward_is_learned(recipe: Recipe) -> None:
    changes = training(
        max_steps=12,
        num_generations=16,
        per_device_train_batch_size=16,
        max_completion_length=20,
        learning_rate=1e-2,
    )
    spec = recipe(
        rewards=[{"name": "chance:Digits"}],
        training=changes,
        data={"validation_split": None, "validation": 0.0},
    )
    grpo_text.run(spec, {})
    paid = [r["reward"] for r in records(spec) if "reward" in r]
    assert sum(paid[-3:]) > 2 * sum(paid[:3])
