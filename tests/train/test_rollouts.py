"""Sampler ``rollout``: views that a strategy asks, the kind of answers, noise, what is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_recipes import write_tasks
from typer.testing import CliRunner

from rank_rl import formats
from rank_rl.cli.app import app
from rank_rl.data.sampling import SampleReport, sample_tasks, sample_views
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Outcome, Pick, Query, Ranking, RankingTask, View, numbered
from rank_rl.specs import RecipeSpec, SamplerSpec
from rank_rl.training import common, grpo_text, rollouts

HERE = __name__
SEEN: list[Outcome] = []


@dataclass(frozen=True, kw_only=True)
class Eliminate:
    """Leaves out the worst of those left, one by one, until one is left."""

    def plan(self, task: RankingTask):
        left, out = list(task.candidates), []
        while len(left) > 1:
            view = numbered(task.query, left)
            (outcome,) = yield [view]
            SEEN.append(outcome)
            worst = outcome.as_order(view)[-1]
            out.append(worst)
            left = [c for c in left if c.docid != worst]
        return Ranking(qid=task.query.qid, docids=(left[0].docid, *reversed(out)))


def task_of(count: int = 6, qid: str = "q", **grades: int) -> RankingTask:
    docs = tuple(
        Candidate(docid=f"d{i}", text=f"text {i}", rank=i, score=-float(i))
        for i in range(1, count + 1)
    )
    return RankingTask(query=Query(qid=qid, text="?"), candidates=docs, grades=grades)


def spec_of(fmt: dict[str, Any], sampler: dict[str, Any], **sections: Any) -> RecipeSpec:
    made = {
        "run": {"name": "test", "output_dir": "out", "seed": 3},
        "model": {"name": "none"},
        "data": {"source": "bundled", "sampler": {"name": "rollout", **sampler}},
        "format": fmt,
        **sections,
    }
    return RecipeSpec.model_validate(made)


def drawn(task: RankingTask, spec: RecipeSpec) -> tuple[list[View], SampleReport]:
    return rollouts.draw(task, spec, formats.make(spec.format))


WORST = {"name": "choice", "params": {"pick": "worst"}}
ELIMINATE = {"strategy": {"name": f"{HERE}:Eliminate"}}


def test_every_state_of_an_elimination_becomes_a_view() -> None:
    SEEN.clear()
    spec = spec_of(WORST, {**ELIMINATE, "shuffle": False})
    views, report = drawn(task_of(d2=2, d5=1), spec)
    assert all(isinstance(o.answer, Pick) and o.answer.worst for o in SEEN)
    # d6, d4, d3 and d1 are left out first; the pair of relevant ones has no variance.
    assert [set(v.docids) for v in views] == [
        {"d1", "d2", "d3", "d4", "d5", "d6"},
        {"d1", "d2", "d3", "d4", "d5"},
        {"d1", "d2", "d3", "d5"},
        {"d1", "d2", "d5"},
    ]
    assert report == SampleReport(draws=5, views=4, dropped=1)
    assert all(v.labels == tuple(str(i + 1) for i in range(len(v.docids))) for v in views)
    ranks = {c.docid: c.rank for v in views for c in v.candidates}
    assert ranks == {f"d{i}": i for i in range(1, 7)}


def test_flat_views_are_kept_where_the_recipe_says_so() -> None:
    spec = spec_of(WORST, {**ELIMINATE, "shuffle": False, "keep_flat": True})
    views, report = drawn(task_of(d2=2, d5=1), spec)
    # Besides the four views of the test above, the pair of relevant ones.
    assert views[-1].docids == ("d2", "d5") and report == SampleReport(draws=5, views=5)
    plain = spec_of(WORST, {**ELIMINATE, "shuffle": False})
    assert not drawn(task_of(d2=0), plain)[0]
    assert len(drawn(task_of(d2=0), spec)[0]) == 5  # nothing relevant at all


def test_views_are_shown_in_random_order_where_the_recipe_says_so() -> None:
    sliding = {"strategy": {"name": "sliding", "params": {"window": 3, "step": 2}}}
    fmt = {"name": "permutation"}
    first: Counter[int] = Counter()
    for i in range(60):
        task = task_of(9, f"q{i}", d5=1)
        plain, _ = drawn(task, spec_of(fmt, {**sliding, "shuffle": False}))
        mixed, _ = drawn(task, spec_of(fmt, {**sliding, "shuffle": False, "shuffle_views": True}))
        assert [set(v.docids) for v in mixed] == [set(v.docids) for v in plain]
        assert all(v.labels == ("1", "2", "3") for v in mixed)
        # Of the windows that begin with two new documents, the last is what won the one before.
        assert all(v.docids.index("d5") == 2 for v in plain[1:])
        first.update(v.docids.index("d5") for v in mixed[1:])
    assert len(first) == 3 and min(first.values()) > sum(first.values()) / 6


@pytest.mark.parametrize("fmt", [{"name": "permutation"}, {"name": "scores"}, {"name": "choice"}])
def test_windows_begin_where_the_answers_before_them_led(fmt: dict[str, Any]) -> None:
    sliding = {"name": "sliding", "params": {"window": 3, "step": 2}}
    spec = spec_of(fmt, {"strategy": sliding, "shuffle": False})
    views, _ = drawn(task_of(d5=2, d6=1), spec)
    # The best of the last window is shown again in the next one.
    assert views[0].docids == ("d4", "d5", "d6")
    assert "d5" in views[1].docids and len(views[1].docids) == 3


def test_each_run_has_an_order_and_draws_of_its_own() -> None:
    task = task_of(8, d3=1, d7=2)
    spec = spec_of(WORST, {**ELIMINATE, "per_query": 3})
    views, report = drawn(task, spec)
    assert drawn(task, spec) == (views, report)
    whole = [v.docids for v in views if len(v.docids) == 8]
    assert len(set(whole)) == len(whole) == 3
    other = spec_of(WORST, {**ELIMINATE, "per_query": 3}, run={"name": "t", "output_dir": "o"})
    assert drawn(task, other)[0] != views
    # Without shuffling and without noise all runs are the same one.
    same, found = drawn(task, spec_of(WORST, {**ELIMINATE, "per_query": 3, "shuffle": False}))
    assert len(same) == 6 and (found.views, found.repeated) == (6, 14)
    assert "14 asked before" in found.line()


def test_views_of_a_run_can_be_fewer_and_are_counted() -> None:
    task = task_of(8, d3=1, d7=2)
    every, _ = drawn(task, spec_of(WORST, ELIMINATE))
    few, report = drawn(task, spec_of(WORST, {**ELIMINATE, "views_per_rollout": 2}))
    assert len(few) == 2 and few == [v for v in every if v in few]
    assert report == SampleReport(draws=7, views=2, dropped=1, beyond=4)
    assert "4 beyond views_per_rollout" in report.line()
    sizes = Counter(
        len(v.docids)
        for i in range(40)
        for v in drawn(
            task_of(8, f"q{i}", d3=1, d7=2), spec_of(WORST, {**ELIMINATE, "views_per_rollout": 1})
        )[0]
    )
    assert len(sizes) > 4  # not always the first one


def lost(noise: float, fmt: dict[str, Any] = WORST) -> float:
    """Share of runs in which the relevant document is left out before the end."""
    spec = spec_of(fmt, {**ELIMINATE, "noise": noise})
    gone = 0
    for i in range(100):
        views, _ = drawn(task_of(6, f"q{i}", d4=1), spec)
        gone += len(views[-1].docids) > 2
    return gone / 100


def test_noise_is_the_share_of_random_answers() -> None:
    assert lost(0.0) == 0.0
    # At random, one of six documents is among the last two in two runs of six.
    assert 0.4 < lost(1.0) < 0.9
    assert 0.0 < lost(0.3) < lost(1.0)


@pytest.mark.parametrize("fmt", [{"name": "permutation"}, {"name": "scores"}, {"name": "choice"}])
def test_noise_is_in_the_kind_of_the_format(fmt: dict[str, Any]) -> None:
    SEEN.clear()
    drawn(task_of(8, d3=1), spec_of(fmt, {**ELIMINATE, "noise": 1.0}))
    kind = {"permutation": "Order", "scores": "Scores", "choice": "Pick"}[fmt["name"]]
    assert {type(o.answer).__name__ for o in SEEN} == {kind}
    assert len({o.as_order(numbered(Query(qid="q", text="?"), task_of(8).candidates))
                for o in SEEN}) > 1  # fmt: skip


def test_documents_asked_one_by_one_are_kept_relevant_or_not() -> None:
    fmt = {"name": "pointwise", "params": {"max": 3}}
    by_score = {"strategy": {"name": "by_score", "params": {"size": 1}}}
    views, report = drawn(task_of(4, d2=1), spec_of(fmt, by_score))
    assert sorted(v.docids for v in views) == [("d1",), ("d2",), ("d3",), ("d4",)]
    assert report.dropped == 0


def test_the_strategy_is_that_of_inference_unless_another_is_named() -> None:
    strategy = {"eval": {"strategy": {"name": "sliding", "params": {"window": 4, "step": 2}}}}
    views, _ = drawn(task_of(6, d2=1), spec_of({"name": "permutation"}, {}, **strategy))
    assert {len(v.docids) for v in views} == {4}
    named = spec_of({"name": "permutation"}, {"strategy": {"name": "single"}}, **strategy)
    assert {len(v.docids) for v in drawn(task_of(6, d2=1), named)[0]} == {6}


def test_only_candidates_down_to_the_depth_are_ranked() -> None:
    task = task_of(8, d2=1, d7=1)
    views, _ = drawn(task, spec_of(WORST, {**ELIMINATE, "depth": 4}))
    assert set().union(*(v.docids for v in views)) == {"d1", "d2", "d3", "d4"}


def test_other_samplers_draw_as_before() -> None:
    tasks = [task_of(6, f"q{i}", d2=1) for i in range(3)]
    spec = spec_of({"name": "permutation"}, {"name": "pool", "size": 4, "per_query": 2})
    found = rollouts.draw_all(tasks, spec, formats.make(spec.format))
    assert found == sample_tasks(tasks, spec.data.sampler, seed=3)


@pytest.mark.parametrize(
    ("sampler", "told"),
    [
        ({"name": "pool", "noise": 0.1}, "noise belongs to sampler rollout, not pool"),
        ({"name": "groups", "strategy": {"name": "single"}}, "strategy belongs to sampler rollout"),
        ({"views_per_rollout": 1}, "views_per_rollout belongs to sampler rollout"),
        ({"name": "rollout", "strata": [[1, 2, 1]]}, "strata belong to samplers pool and groups"),
        ({"name": "rollout", "noise": 1.5}, "less than or equal to 1"),
    ],
)
def test_keys_of_roll_outs_are_refused_elsewhere(sampler: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SamplerSpec.model_validate(sampler)


def test_a_teacher_is_not_asked_about_roll_outs() -> None:
    with pytest.raises(RecipeError, match="data.sampler.name: sampler rollout.*pool, groups"):
        sample_views(task_of(d2=1), SamplerSpec(name="rollout"), seed=0)


def test_a_strategy_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match="slidin"):
        drawn(task_of(d2=1), spec_of(WORST, {"strategy": {"name": "slidin"}}))


def test_rows_of_grpo_come_from_roll_outs(recipe: Any) -> None:
    sampler = {"name": "rollout", **ELIMINATE, "per_query": 2}
    spec = recipe(
        format=WORST,
        data={"sampler": sampler},
        rewards=[{"name": "survived"}, {"name": "format"}],
    )
    stage = common.begin("grpo", spec, {})
    written, _, report = grpo_text.training_rows(stage)
    sizes = Counter(len(row["docids"]) for row in written)
    assert set(sizes) == {2, 3, 4} and sizes[4] == 2 * len(stage.collection.train)
    assert report["sampled"]["views"] == len(written)
    groups = [row["group"] for row in written]
    assert len(set(groups)) == len(groups)


RECIPE = """
run: {{name: t, output_dir: {out}}}
model: {{name: {model}, autocast: "off"}}
data:
  source: jsonl
  path: {file}
  validation_split: validation
  first_stage: {{name: given}}
  sampler: {{name: rollout, strategy: {{name: sliding, params: {{window: 3, step: 1}}}}}}
format: {{name: choice, params: {{pick: best}}, doc_tokens: 16, prompt_tokens: 512}}
rewards: [{{name: pick_match}}, {{name: format, weight: 0.5}}]
"""


def test_check_shows_a_view_of_a_roll_out(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.jsonl", tests=2)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE.format(out=tmp_path / "out", model=tiny_model_dir, file=tmp_path / "tasks.jsonl")
    )
    found = CliRunner().invoke(app, ["check", str(path), "--no-measure", "--stage", "grpo"])
    assert found.exit_code == 0, found.output
    assert "roll-outs of strategy sliding on 8 queries: " in found.output
    assert "[3]" in found.output and "[4]" not in found.output  # windows of three documents
    assert "malformed < worse than the input < copy < better holds" in found.output
