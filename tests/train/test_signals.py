"""Curriculum weights and teacher scores: what of them reaches a loss, and when."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_runs import SLOTS, TRAINING, learned
from typer.testing import CliRunner

from rank_rl.cli.app import app
from rank_rl.errors import DataError, RecipeError
from rank_rl.losses.group import ScoredGroup, need
from rank_rl.rewards import ranking
from rank_rl.specs import FormatSpec, RecipeSpec
from rank_rl.training import common, grpo, score, sft
from rank_rl.training.resume import resume_point

Recipe = Callable[..., RecipeSpec]
SEEN: list[ScoredGroup] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A weighted squared score that remembers its groups."""

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        SEEN.append(group)
        weights = torch.ones_like(group.scores) if group.weights is None else group.weights
        return (weights * group.scores**2).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherMse:
    """Mean squared difference from the teacher's scores, where it gave some."""

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        SEEN.append(group)
        teacher = need(group, "teacher_mse", "teacher", "data.teacher_run")
        given = ~teacher.isnan()
        return ((group.scores[given] - teacher[given]) ** 2).sum() / 4


WATCHED, TEACHER_MSE = ({"name": f"{__name__}:{kind.__name__}"} for kind in (Watched, TeacherMse))


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


def with_data(recipe: Recipe, changes: dict[str, Any], **sections: Any) -> RecipeSpec:
    return recipe(format=SLOTS, data={**recipe().data.model_dump(), **changes}, **sections)


def test_weights_reach_the_loss_and_grow_to_one(recipe: Recipe) -> None:
    training = {**TRAINING, "max_steps": 4, "per_device_train_batch_size": 1}
    curriculum = {"heuristic": "reciprocal_rank", "end": 0.5}
    spec = with_data(recipe, {"curriculum": curriculum}, losses=[WATCHED], training=training)
    score.run(spec, {})
    first, second, third, fourth = SEEN
    for group, p in ((first, 0.0), (second, 0.5)):
        wanted = [
            (1 / rank if grade else 1 - 1 / rank) * (1 - p) + p
            for rank, grade in zip(group.ranks.tolist(), group.grades.tolist(), strict=True)
        ]
        assert group.weights.tolist() == pytest.approx(wanted)
    assert third.weights is None and fourth.weights is None
    losses = [r["loss"] for r in learned(spec.run.output_dir)]
    weighted = [(g.weights * g.scores.detach() ** 2).mean().item() for g in (first, second)]
    assert losses[:2] == pytest.approx(weighted, abs=1e-4)


def test_weights_use_scores_of_the_whole_first_stage(recipe: Recipe) -> None:
    # Scores are 4, 3, 2, 1; of two documents shown the better one need not be the best.
    sampler = {"name": "pool", "size": 2}
    curriculum = {"heuristic": "normalised_score", "end": 1.0}
    spec = with_data(recipe, {"curriculum": curriculum, "sampler": sampler}, losses=[WATCHED])
    score.run(spec, {})
    for group in SEEN[:2]:
        for rank, grade, weight in zip(group.ranks, group.grades, group.weights, strict=True):
            ease = (4 - float(rank)) / 3
            assert float(weight) == pytest.approx(ease if grade else 1 - ease)


def test_without_the_new_keys_there_are_no_signals(recipe: Recipe) -> None:
    score.run(recipe(format=SLOTS, losses=[WATCHED]), {})
    assert all(g.weights is None and g.teacher is None for g in SEEN)


def test_losses_of_grpo_are_weighed_too(recipe: Recipe) -> None:
    spec = with_data(
        recipe,
        {"curriculum": {"end": 1.0}},
        losses=[WATCHED],
        rewards=[{"name": "ndcg"}],
        grpo={"policy": "slots", "supervised": 1.0, "group_size": 4},
    )
    grpo.run(spec, {})
    assert SEEN and all(g.weights is not None for g in SEEN)


@pytest.mark.parametrize("stage", [sft.run, grpo.run])
def test_stages_without_losses_refuse_a_curriculum(recipe: Recipe, stage: Any) -> None:
    spec = recipe(data={**recipe().data.model_dump(), "curriculum": {}}, rewards=[{"name": "ndcg"}])
    with pytest.raises(RecipeError, match="data.curriculum: stage .* has no losses"):
        stage(spec, {})


def test_check_refuses_what_the_stage_would(recipe: Recipe, tmp_path: Path) -> None:
    spec = recipe(data={**recipe().data.model_dump(), "curriculum": {}})
    file = tmp_path / "recipe.yaml"
    file.write_text(spec.model_dump_json())
    result = CliRunner().invoke(app, ["check", str(file), "--stage", "sft"])
    assert result.exit_code == 2
    assert "data.curriculum: stage sft has no losses that weigh documents" in result.stderr


def teacher_run(tmp_path: Path, values: tuple[float, ...] = (0.25, -0.5, 2.0)) -> str:
    """The same scores for d0, d1 … of every training query; d3 has none."""
    lines = [f"train{q} Q0 d{i} 1 {v} teacher" for q in range(8) for i, v in enumerate(values)]
    (tmp_path / "teacher.trec").write_text("\n".join(lines))
    return str(tmp_path / "teacher.trec")


def ungraded(recipe: Recipe, tmp_path: Path) -> str:
    """The training tasks without their grades."""
    lines = [json.loads(x) for x in Path(str(recipe().data.path)).read_text().splitlines()]
    for line in lines:
        if line["split"] == "train":
            del line["grades"]
    file = tmp_path / "ungraded.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def test_a_teachers_scores_reach_the_loss_without_any_grades(
    recipe: Recipe, tmp_path: Path
) -> None:
    changes = {"path": ungraded(recipe, tmp_path), "teacher_run": teacher_run(tmp_path)}
    summary = score.run(with_data(recipe, changes, losses=[TEACHER_MSE]), {})
    assert summary["metrics"]["views"]["sampled"]["views"] == 8
    assert len(SEEN) == 4
    known = {1: 0.25, 2: -0.5, 3: 2.0, 4: math.nan}  # by first-stage rank
    for group in SEEN:
        wanted = [known[int(rank)] for rank in group.ranks]
        assert group.teacher.tolist() == pytest.approx(wanted, nan_ok=True)
        assert group.grades.tolist() == [0, 0, 0, 0]


def test_a_teachers_scores_are_learned(recipe: Recipe, tmp_path: Path) -> None:
    training = {**TRAINING, "max_steps": 16, "learning_rate": 3e-3}
    changes = {
        "path": ungraded(recipe, tmp_path),
        "teacher_run": teacher_run(tmp_path, (-2.0, -2.0, -2.0, -2.0)),
    }
    spec = with_data(recipe, changes, losses=[TEACHER_MSE], training=training)
    score.run(spec, {})
    first, last = SEEN[0].scores.detach(), SEEN[-1].scores.detach()
    assert (last + 2).abs().max() < 0.5 * (first + 2).abs().max()


def test_a_teachers_best_documents_can_be_grades(recipe: Recipe, tmp_path: Path) -> None:
    changes = {
        "path": ungraded(recipe, tmp_path),
        "teacher_run": teacher_run(tmp_path),
        "teacher_relevant": 1,
        "sampler": {"name": "pool", "size": 2, "negatives": "hard"},
    }
    score.run(with_data(recipe, changes, losses=[WATCHED]), {})
    shown = [dict(zip(g.ranks.tolist(), g.grades.tolist(), strict=True)) for g in SEEN]
    assert shown == [{3: 1, 1: 0}] * 4


def test_tasks_need_grades_or_a_teacher(recipe: Recipe, tmp_path: Path) -> None:
    run = Path(teacher_run(tmp_path))
    run.write_text("\n".join(line for line in run.read_text().splitlines() if "train5" not in line))
    changes = {"path": ungraded(recipe, tmp_path), "teacher_run": str(run)}
    with pytest.raises(DataError, match="query 'train5': the task has no grades"):
        score.run(with_data(recipe, changes, losses=[TEACHER_MSE]), {})


def test_a_run_with_other_teacher_scores_starts_again(recipe: Recipe, tmp_path: Path) -> None:
    changes = {"teacher_run": teacher_run(tmp_path)}
    spec = with_data(recipe, changes, losses=[TEACHER_MSE], training={**TRAINING, "save_steps": 1})
    score.run(spec, {})
    longer = with_data(
        recipe,
        changes,
        losses=[TEACHER_MSE],
        training={**TRAINING, "max_steps": 3, "save_steps": 1},
    )
    stage = common.begin("score", longer, {})
    assert resume_point(stage.out_dir, longer, stage.identity()) is not None
    teacher_run(tmp_path, (2.0, -0.5, 0.5))
    stage = common.begin("score", longer, {})
    assert resume_point(stage.out_dir, longer, stage.identity()) is None


def shortened(tmp_path: Path) -> str:
    """A teacher's run that lacks train5."""
    run = Path(teacher_run(tmp_path))
    run.write_text("\n".join(x for x in run.read_text().splitlines() if "train5" not in x))
    return str(run)


@pytest.mark.parametrize(
    "loss",
    [{"name": "kl"}, {"name": "margin_mse"}, {"name": "ranknet", "params": {"target": "teacher"}}],
)
def test_training_goes_past_queries_that_the_teacher_did_not_score(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture, loss: dict[str, Any]
) -> None:
    training = {**TRAINING, "max_steps": 8, "per_device_train_batch_size": 1}
    changes = {"teacher_run": shortened(tmp_path)}
    spec = with_data(recipe, changes, losses=[loss, {**WATCHED, "weight": 0}], training=training)
    with caplog.at_level("INFO", logger="rank_rl"):
        score.run(spec, {})
    lacking = [g for g in SEEN if not g.teacher.isfinite().any()]
    assert len(SEEN) == 8 and len(lacking) == 1
    assert [r["loss"] for r in learned(spec.run.output_dir)].count(0.0) >= 1
    assert "1 of 8 training queries have no teacher scores" in caplog.text


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([], "8 training queries without grades, where bce takes all documents for irrelevant"),
        ([{"name": "label_ce"}, {"name": "ranknet"}], "where label_ce takes all"),
        ([{"name": "margin_mse"}], "where margin_mse has nothing to learn"),
    ],
)
def test_losses_of_grades_are_refused_where_only_a_teacher_judged(
    recipe: Recipe, tmp_path: Path, losses: list[Any], message: str
) -> None:
    changes = {"path": ungraded(recipe, tmp_path), "teacher_run": teacher_run(tmp_path)}
    with pytest.raises(RecipeError, match=message):
        score.run(with_data(recipe, changes, losses=losses), {})


def test_losses_that_teach_nothing_beside_others_are_told(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"path": ungraded(recipe, tmp_path), "teacher_run": teacher_run(tmp_path)}
    losses = [{"name": "lambda_loss"}, {"name": "ranknet"}]
    with caplog.at_level("WARNING", logger="rank_rl"):
        score.run(with_data(recipe, changes, losses=losses), {})
    assert "8 training queries have no grades: lambda_loss teaches nothing there" in caplog.text


def test_a_teacher_that_nothing_follows_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    run = {"teacher_run": teacher_run(tmp_path)}
    none = r"data.teacher_run: no loss of stage {} follows a teacher \({}\)"
    grades = [{"name": "bce"}, {"name": "listnet", "params": {"target": "grades"}}]
    with pytest.raises(RecipeError, match=none.format("score", "bce, listnet")):
        score.run(with_data(recipe, run, losses=grades), {})
    scorer = with_data(recipe, run, losses=[]).model_copy(
        update={"format": FormatSpec(name="embedding")}
    )
    with pytest.raises(RecipeError, match=none.format("score", "info_nce")):
        score.run(scorer, {})
    with pytest.raises(RecipeError, match=none.format("sft", "it has none")):
        sft.run(with_data(recipe, run), {})
    score.run(with_data(recipe, {**run, "teacher_relevant": 1}, losses=grades), {})
    score.run(with_data(recipe, run, losses=[]), {})  # listnet follows it


RBO = {"name": "rbo", "params": {"of": "teacher"}}
POLICIES = {
    "text": {"format": {"name": "permutation", "mode": "answer"}, "grpo": {"policy": "text"}},
    "slots": {"format": SLOTS, "grpo": {"policy": "slots"}},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_rewards_of_grpo_can_follow_a_teacher(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """The stage hands the run's scores to the reward, whoever draws the answers."""
    known: list[Any] = []
    orders = ranking.teacher_order
    monkeypatch.setattr(ranking, "teacher_order", lambda v, s: known.append(s) or orders(v, s))
    run = {**recipe().data.model_dump(), "teacher_run": teacher_run(tmp_path)}
    training = {"max_steps": 1, "per_device_train_batch_size": 2}
    training |= {"num_generations": 2} if policy == "text" else {}
    sections = {**POLICIES[policy], "rewards": [RBO], "training": training}
    grpo.run(recipe(data=run, **sections), {})
    assert known and all(s == {"d0": 0.25, "d1": -0.5, "d2": 2.0} for s in known)
    none = "reward 'rbo': follows a teacher, and there is none"
    with pytest.raises(RecipeError, match=none):
        grpo.run(recipe(**sections), {})
    with pytest.raises(RecipeError, match=r"data.teacher_run: no loss of stage grpo follows"):
        grpo.run(recipe(data=run, **{**sections, "rewards": [{"name": "rbo"}]}), {})


@pytest.mark.parametrize("stage", [score.run, grpo.run])
def test_only_sft_takes_lessons(recipe: Recipe, stage: Any) -> None:
    spec = with_data(recipe, {"lessons": "lessons.jsonl"}, rewards=[{"name": "ndcg"}])
    with pytest.raises(RecipeError, match="data.lessons: stage .* reads no lessons"):
        stage(spec, {})


@pytest.mark.parametrize("stage", [score.run, grpo.run])
def test_only_sft_mixes_answers_with_reasoning_and_without(recipe: Recipe, stage: Any) -> None:
    spec = with_data(recipe, {"reasoning_share": 0.5}, rewards=[{"name": "ndcg"}])
    with pytest.raises(RecipeError, match=r"data.reasoning_share: .* set it to 1.0 where"):
        stage(spec, {})
