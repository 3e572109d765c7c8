"""Groups that see other orders of the same documents: rows, prompts, rewards, the stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stage_runs import learned, moved, records, training

from rank_rl import metrics, rewards
from rank_rl.data.rows import view_of
from rank_rl.errors import RecipeError
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.specs import RecipeSpec
from rank_rl.training import common, grpo, grpo_text
from rank_rl.training.group_rows import GroupShuffle, reordered

Recipe = Callable[..., RecipeSpec]
REWARDS = [{"name": "ndcg"}, {"name": "format", "weight": 0.5}]
SIZE = 6


def prepared(recipe: Recipe, **sections: Any) -> tuple[GroupShuffle, list[dict[str, Any]], Any]:
    spec = recipe(rewards=REWARDS, grpo={"group_shuffle": True}, **sections)
    stage = common.begin("grpo", spec, {})
    shuffle = grpo_text.group_shuffle(stage, rewards.make(spec.rewards))
    assert shuffle is not None
    return shuffle, grpo_text.training_rows(stage)[0], stage


def variants(shuffle: GroupShuffle, row: dict[str, Any]) -> list[dict[str, Any]]:
    return shuffle([row] * SIZE, list(range(SIZE)))


@pytest.mark.parametrize("mode", ["answer", "reason"])
def test_a_group_sees_the_same_documents_in_other_orders(recipe: Recipe, mode: str) -> None:
    form = {"name": "permutation", "mode": mode, "first_stage_hint": "rank"}
    shuffle, rows, stage = prepared(recipe, format=form)
    for row in rows:
        group = variants(shuffle, row)
        assert group[0] == row
        assert len({one["prompt"] for one in group}) > SIZE // 2
        assert {tuple(sorted(one["docids"])) for one in group} == {tuple(sorted(row["docids"]))}
        assert {one["group"] for one in group} == {row["group"]}
        for one in group:
            view, grades = view_of(one)
            assert view.labels == tuple(row["labels"])  # labels say the place shown
            assert grades == view_of(row)[1]
            # The prompt is the one that inference would show for these columns.
            ids = stage.tokens.encode_prompt(stage.fmt.render(view))
            assert stage.loaded.tokenizer(text=one["prompt"])["input_ids"] == ids
            ranks = dict(zip(one["docids"], one["ranks"], strict=True))
            assert ranks == dict(zip(row["docids"], row["ranks"], strict=True))


def test_orders_depend_on_seed_group_and_place_alone(recipe: Recipe) -> None:
    shuffle, rows, _ = prepared(recipe)
    again, same, _ = prepared(recipe)
    assert variants(shuffle, rows[0]) == variants(again, same[0])
    view = view_of(rows[0])[0]
    orders = [
        {reordered(view, seed, group, place).docids for place in range(1, 20)}
        for seed, group in ((0, "q#1"), (1, "q#1"), (0, "q#2"))
    ]
    assert all(len(found) > 5 for found in orders)
    first = [reordered(view, s, g, 1).docids for s in range(4) for g in ("q#1", "q#2")]
    assert len(set(first)) > 2


def test_two_draws_of_a_query_are_two_groups(recipe: Recipe) -> None:
    sampler = {"sampler": {"name": "groups", "size": 3, "per_query": 3}}
    _, rows, _ = prepared(recipe, data=sampler)
    names = [row["group"] for row in rows]
    assert len(set(names)) == len(names)
    assert {name.rpartition("#")[2] for name in names} >= {"1", "2"}


def test_rewards_are_those_of_the_order_that_each_answer_was_shown(recipe: Recipe) -> None:
    shuffle, rows, stage = prepared(recipe)
    specs = recipe(rewards=[{"name": "ndcg"}, {"name": "ndcg_gain"}]).rewards
    adapter = TrlRewards(rewards.make(specs), stage.fmt)
    group = [*variants(shuffle, rows[0]), *variants(shuffle, rows[1])]
    copies = [" > ".join(f"[{label}]" for label in one["labels"]) for one in group]
    columns = {key: [one[key] for one in group] for key in group[0] if key != "prompt"}
    paid = {f.__name__: f(completions=copies, **columns) for f in adapter.functions}
    shown = [metrics.ndcg(one["docids"], view_of(one)[1]) for one in group]
    assert len(set(shown)) > 1 and paid["ndcg"] == pytest.approx(shown)
    assert paid["ndcg_gain"] == pytest.approx([0.0] * len(group))  # copying gains nothing
    judged = adapter.last[1]
    assert [j.baselines.copy for j in judged] == pytest.approx(shown)
    assert len({j.group for j in judged[:SIZE]}) == len({j.group for j in judged[SIZE:]}) == 1
    assert judged[0].group is not judged[SIZE].group
    # All of the first group say the same order of documents: a flat group, though texts differ.
    order = rows[0]["docids"]
    alike = [
        " > ".join(f"[{dict(zip(one['docids'], one['labels'], strict=True))[d]}]" for d in order)
        for one in group[:SIZE]
    ]
    logged: dict[str, float] = {}
    part = {key: values[:SIZE] for key, values in columns.items()}
    ndcg = TrlRewards(rewards.make(specs[:1]), stage.fmt).functions[0]
    ndcg(completions=alike, log_metric=logged.__setitem__, **part)
    assert len(set(alike)) > 1 and logged["ranking/flat_groups"] == 1.0


def test_a_gain_over_the_order_shown_is_warned_of(
    recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="rank_rl.training.group_rows"):
        prepared(recipe)
        assert not caplog.records
        spec = recipe(rewards=[{"name": "ndcg_gain"}], grpo={"group_shuffle": True})
        grpo_text.group_shuffle(common.begin("grpo", spec, {}), rewards.make(spec.rewards))
    assert "ndcg_gain is the gain over the order that each answer was shown" in caplog.text


def test_lengths_hold_for_the_longest_order(recipe: Recipe) -> None:
    shuffle, rows, stage = prepared(recipe)
    longest = grpo_text.training_rows(stage)[1]
    most = max(shuffle.row(row, place)[1] for row in rows for place in range(SIZE))
    tight = SimpleNamespace(max_completion_length=longest["answer"], num_generations=SIZE)
    found = shuffle.longest(rows, longest, tight, longest["prompt"] + longest["answer"])
    assert found["prompt"] == max(most, longest["prompt"])
    assert found["answer"] >= longest["answer"]
    wide = SimpleNamespace(max_completion_length=500, num_generations=SIZE)
    assert shuffle.longest(rows, longest, wide, 4096) == longest


def run(recipe: Recipe, out: Path, **changes: Any) -> tuple[RecipeSpec, dict[str, Any]]:
    spec = recipe(
        run={"output_dir": str(out)},
        rewards=[*REWARDS, {"name": "chance:Digits"}],
        grpo={"group_shuffle": True, **changes},
        training=training(),
    )
    return spec, grpo.run(spec, {})


@pytest.mark.parametrize("credit", ["answer", "rank"])
def test_training_on_shuffled_groups_is_the_same_every_time(
    recipe: Recipe, tmp_path: Path, tiny_model_dir: Path, credit: str
) -> None:
    _, first = run(recipe, tmp_path / "a", credit=credit)
    _, again = run(recipe, tmp_path / "b", credit=credit)
    assert moved(tiny_model_dir, first["checkpoint"])
    assert not moved(first["checkpoint"], again["checkpoint"])
    untimed = [
        [{k: v for k, v in r.items() if "time" not in k} for r in learned(tmp_path / name)]
        for name in "ab"
    ]
    assert untimed[0] == untimed[1] and len(untimed[0]) == 2
    # Of four documents two answers may see the same order; prompts that differ share nothing.
    assert all(r.get("shared/computed", 1) > 0.6 for r in records(tmp_path / "a"))
    assert json.dumps(first["metrics"])


def test_training_pays_agreement_between_the_orders_of_a_group(
    recipe: Recipe, tmp_path: Path, tiny_model_dir: Path
) -> None:
    paid = [*REWARDS, {"name": "chance:Digits"}, {"name": "agreement", "weight": 0.3}]
    spec = recipe(rewards=paid, grpo={"group_shuffle": True}, training=training())
    found = grpo.run(spec, {})
    assert moved(tiny_model_dir, found["checkpoint"])
    # An untrained model writes nothing that can be read: the low end, and no agreement to find.
    assert [r["rewards/agreement/mean"] for r in learned(Path(spec.run.output_dir))] == [-1.0, -1.0]


def test_agreement_needs_whole_groups_on_a_process(recipe: Recipe) -> None:
    composite = rewards.make(recipe(rewards=[*REWARDS, {"name": "agreement"}]).rewards)
    split = SimpleNamespace(
        per_device_train_batch_size=2, steps_per_generation=1, num_generations=4
    )
    with pytest.raises(RecipeError, match="'agreement' compares the 4 answers of a group"):
        grpo_text.check_groups(composite, split)
    split.steps_per_generation = 2
    grpo_text.check_groups(composite, split)
    split.steps_per_generation = 1
    grpo_text.check_groups(rewards.make(recipe(rewards=REWARDS).rewards), split)


def test_label_slots_refuse_it(recipe: Recipe) -> None:
    with pytest.raises((RecipeError, ValueError), match="group_shuffle and pass_rate belong to"):
        recipe(grpo={"policy": "slots", "group_shuffle": True})
