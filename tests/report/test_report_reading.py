"""Result files found, completed and named; what lies beside them; training logs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import made
import pytest

from rank_rl.errors import DataError, RecipeError
from rank_rl.report import shape
from rank_rl.report.reading import sources
from rank_rl.report.training import MOST, stages

OLD = {
    "name": "x",
    "metrics": ["ndcg@10"],
    "systems": [{"name": "a", "metrics": {"ndcg@10": {"mean": 0.5, "low": 0.4, "high": 0.6}}}],
}


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_the_least_that_a_result_can_have(tmp_path: Path) -> None:
    (source,) = sources([put(tmp_path / "r.json", OLD)])
    result = source.result
    assert source.label == "x" and source.metric == "ndcg@10"
    assert result["systems"][0]["costs"] == {} and result["systems"][0]["price"] is None
    assert result["collection"]["name"] == "x" and result["ceiling"] == {}
    assert source.beside.tasks == {} and source.beside.orders("a") == {}
    assert "no tasks.jsonl" in source.beside.notes[0]


@pytest.mark.parametrize("key", ["comparisons", "slices", "versions", "data", "minimal_difference"])
def test_null_and_wrong_types_count_as_absent(tmp_path: Path, key: str) -> None:
    for value in (None, 3):
        (source,) = sources([put(tmp_path / "r.json", {**OLD, key: value})])
        assert source.result[key] in ({}, [])


def test_rows_that_lack_something_are_left_out(tmp_path: Path) -> None:
    step = {"metric": "ndcg@10", "from": "a", "to": "a", "difference": 0, "low": 0, "high": 0}
    rows = {"steps": [step, {**step, "p": 0.5}, "x"], "comparisons": [step, {"system": "a"}]}
    (source,) = sources([put(tmp_path / "r.json", {**OLD, **rows})])
    assert source.result["steps"] == [{**step, "p": 0.5}] and source.result["comparisons"] == []


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"benchmark": "something else"},
        {**OLD, "systems": []},
        {**OLD, "metrics": []},
        {**OLD, "systems": [{"kind": "text"}]},
        {**OLD, "systems": [{"name": "a", "metrics": {"ndcg@10": {"mean": "high"}}}]},
        {**OLD, "systems": [{"name": "a", "metrics": {"ndcg@10": 0.5}}]},
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: object) -> None:
    path = put(tmp_path / "r.json", content)
    with pytest.raises(DataError, match=r"r\.json: .*expected a result\.json of rank-rl bench"):
        sources([path])


def test_broken_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"name": ')
    with pytest.raises(DataError, match="not a benchmark result"):
        sources([tmp_path / "r.json"])
    with pytest.raises(DataError, match="no such file or folder"):
        sources([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no result\.json"):
        sources([tmp_path / "empty"])


def test_folders_of_several_collections_and_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        put(tmp_path / name / "result.json", {**OLD, "collection": {"name": name}})
    assert [s.label for s in sources([tmp_path])] == ["a", "b"]
    index = {"collections": {"b": "b/result.json", "a": "a/result.json"}}
    put(tmp_path / "results.json", index)
    assert [s.label for s in sources([tmp_path])] == ["b", "a"]
    assert [s.label for s in sources([tmp_path / "a", tmp_path, tmp_path / "a"])] == ["a", "b"]
    same = [put(tmp_path / f"{n}.json", OLD) for n in (1, 2)]
    labels = [s.label for s in sources(same)]
    assert len(set(labels)) == 2 and all(label.startswith("x (") for label in labels)
    assert [s.slug for s in sources(same)] == ["c1", "c2"]


def test_the_metric_asked_for_comes_first(bench_dir: Path) -> None:
    (source,) = sources([bench_dir], "map")
    assert source.result["metrics"] == ["map", "ndcg@10", "mrr@10", "recall@5"]
    with pytest.raises(RecipeError, match="no metric 'ndcg@1'.*nearest: ndcg@10"):
        sources([bench_dir], "ndcg@1")


def test_old_results_have_what_can_be_made(old_dir: Path) -> None:
    (source,) = sources([old_dir])
    assert source.result["ceiling"]["ndcg@10"] == 1.0
    assert source.result["collection"]["first_stage"] == "BM25 (made)"
    assert source.result["queries"] == 12
    assert [s["name"] for s in shape.asked(source.result)] == [s.name for s in made.SYSTEMS[2:5]]


def test_what_lies_beside(bench_dir: Path) -> None:
    (source,) = sources([bench_dir])
    beside, name = source.beside, made.SYSTEMS[3].name
    assert len(beside.tasks) == 12 and len(beside.orders(name)) == 12
    answer = beside.answers(name)["made-1"]
    assert (answer.calls, answer.prompt_tokens, answer.statuses) == (1, 900, {"ok": 1})
    assert answer.notes["d1-0"].startswith("It says where the river runs")
    assert len(answer.comparisons) == 1 and answer.reasoning[0].startswith("First the rivers")
    failed = beside.answers("untrained base")["made-0"]
    assert failed.statuses == {"failed": 1} and failed.issues == {"no_answer_tag": 1}
    assert beside.answers("first stage") == {} and beside.notes == []
    assert beside.question("made-1").startswith("where does river 1 run?")


def test_files_that_are_missing_broken_or_elsewhere_are_said(
    bench_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bench_dir, tmp_path / "copy"))
    (folder / "runs" / "random.trec").unlink()
    (folder / "exchanges" / "slow.jsonl").write_text("{broken\n")
    (folder / "tasks.jsonl").write_text('{"qid": 1}\n')
    (tmp_path / "secret.trec").write_text("q Q0 d 1 1 x\n")
    result = json.loads((folder / "result.json").read_text())
    result["systems"][1]["run"] = "../secret.trec"
    put(folder / "result.json", result)
    (source,) = sources([folder])
    beside = source.beside
    assert beside.orders("random") == {} == beside.orders("first stage")
    assert beside.answers("slow") == {} == beside.tasks
    said = " ".join(beside.notes)
    for words in ("runs/random.trec", "outside the result", "exchanges of slow", "tasks.jsonl"):
        assert words in said


def test_explanations_and_several_exchanges_become_one_answer(
    bench_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bench_dir, tmp_path / "copy"))
    path = folder / "exchanges" / "slow.jsonl"
    line = json.loads(path.read_text().splitlines()[1])
    line["outcome"].update(issues=["no_answer_tag"], status="repaired", notes={"d1-1": "old"})
    told = {"qid": "made-1", "explains": "d1-1", "note": "new", "issues": ["empty"],
            "completion": {"prompt_tokens": 10, "completion_tokens": 5, "seconds": 1}}  # fmt: skip
    path.write_text("\n".join(json.dumps(x) for x in (line, line, told)))
    (source,) = sources([folder])
    answer = source.beside.answers("slow")["made-1"]
    assert (answer.calls, answer.prompt_tokens, answer.seconds) == (2, 10_010, 19.0)
    assert answer.notes == {"d1-1": "new"} and answer.statuses == {"repaired": 2}
    assert answer.issues == {"no_answer_tag": 2, "empty": 1}


def test_training_logs_of_checkpoints_and_of_folders(bench_dir: Path, tmp_path: Path) -> None:
    read = sources([bench_dir])
    (stage,) = stages(read)
    assert stage.name == "slow" and stage.folder == bench_dir.parent / "out" / "slow"
    titles = [f.chart.title for f in stage.figures]
    assert titles[0] == "slow: validation" and "slow: mean of each reward" in titles
    assert stage.figures[0].chart.references == (("first stage", 0.42), ("perfect order", 1.0))
    assert stage.alarms == ("Step 6, hacking: reward <b>rises</b> alone",)
    curve = stage.figures[0].chart.series[0]
    assert [(p.x, p.y) for p in curve.points] == [(0, 0.4), (6, 0.55)]
    long = made.training(tmp_path / "long", steps=3 * MOST)
    both = stages(read, [long, long / "final"])
    assert [s.name for s in both] == ["long", "slow"]
    loss = next(f for f in both[0].figures if f.chart.title.endswith("loss"))
    xs = [p.x for p in loss.chart.series[0].points]
    assert both[0].thinned and len(xs) == MOST and (xs[0], xs[-1]) == (1, 3 * MOST)
    with pytest.raises(DataError, match=r"no training_log\.jsonl"):
        stages(read, [tmp_path / "none"])
