"""The whole benchmark on a tiny model: rows, files, statistics, and nothing computed twice."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from encoders import save_bert

from rank_rl import formats
from rank_rl.bench import tables
from rank_rl.bench.run import run
from rank_rl.data import trec
from rank_rl.data.tasks import write_tasks
from rank_rl.errors import ModelError, RecipeError
from rank_rl.hub.contract import PromptContract
from rank_rl.records import Candidate, Query, Ranking, RankingTask
from rank_rl.specs import FormatSpec, RecipeSpec, StrategySpec
from rank_rl.strategies.groups import Groups

INFO = {"hash": "abc123", "path": "recipes/x/bench.yaml", "versions": {"python": "3"}, "git": None}


def tasks(split: str, n: int = 6) -> list[RankingTask]:
    """Query i has its relevant document at first-stage rank 3."""
    words = ["river", "lake", "town", "film", "father"]
    return [
        RankingTask(
            query=Query(qid=f"{split}{i}", text=f"who is the father {split} {i}?"),
            candidates=tuple(
                Candidate(docid=f"{split}{i}-{j}", text=f"the {w} {i}", rank=j + 1)
                for j, w in enumerate(words)
            ),
            grades={f"{split}{i}-2": 1} if i else {},
        )
        for i in range(n)
    ]


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    for split in ("train", "test"):
        write_tasks(tmp_path / f"{split}.jsonl", tasks(split))
    given = [Ranking(qid=t.query.qid, docids=t.docids[::-1]) for t in tasks("test")[:3]]
    trec.write_run(tmp_path / "given.trec", given, "given")
    model = str(tiny_model_dir)
    files = {s: str(tmp_path / f"{s}.jsonl") for s in ("train", "test")}
    return {
        "run": {"name": "tiny", "output_dir": str(tmp_path / "out"), "seed": 3},
        "model": {"name": model, "autocast": "off"},
        "data": {"source": "jsonl", "params": files, "validation": 0.0},
        "format": {"name": "permutation", "mode": "answer"},
        "bench": {
            "metrics": ["ndcg@10", "map"],
            "systems": [
                {"name": "random", "kind": "random"},
                {"name": "first stage", "kind": "first_stage"},
                {"name": "given", "kind": "run", "path": str(tmp_path / "given.trec")},
                {"name": "base", "kind": "text", "model": model, "max_new_tokens": 5},
                {
                    "name": "slots",
                    "kind": "slots",
                    "model": model,
                    "format": {"name": "slots", "mode": "reason"},
                    "explain": 1,
                    "max_new_tokens": 5,
                },
                {"name": "perfect", "kind": "perfect"},
            ],
            "baselines": ["first stage"],
            "steps": [["base", "slots"]],
            "samples": 500,
        },
    }


def bench(recipe: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    summary = run(RecipeSpec.model_validate(recipe), INFO)
    return summary, json.loads(Path(summary["result"]).read_text())


def test_rows_files_and_statistics(recipe):
    summary, result = bench(recipe)
    out = Path(recipe["run"]["output_dir"])
    rows = {s["name"]: s for s in result["systems"]}
    mean = {name: row["metrics"]["ndcg@10"]["mean"] for name, row in rows.items()}
    assert (result["queries"], result["queries_without_relevant"]) == (5, 1)
    assert mean["perfect"] == 1.0 and mean["first stage"] == pytest.approx(0.5)
    assert mean["base"] == pytest.approx(0.5)  # an unreadable answer keeps first-stage order …
    assert rows["base"]["failure_rate"] == 1.0  # … and is counted
    # Two of the run's three queries count; the relevant document stays third when reversed.
    assert mean["given"] == pytest.approx(2 * 0.5 / 5) and rows["given"]["missing_queries"] == 3
    expected = sum(1 / d for d in (1, 1.585, 2, 2.3219, 2.585)) / 5
    assert mean["random"] == pytest.approx(expected, abs=0.1)
    assert rows["slots"]["explanations"]["written"] == 6
    assert sum(rows["slots"]["statuses"].values()) == 6 * 5
    assert rows["slots"]["costs"]["completion_tokens"] > 0 == len(rows["perfect"]["costs"])
    assert rows["slots"]["setting"]["format"].startswith("slots/")
    assert rows["slots"]["setting"]["readout"] == "score"
    assert rows["base"]["setting"]["readout"] == "decoded"
    assert rows["base"]["explanations"] == {}  # mode answer has no reasoning
    per_query = result["per_query"]["slots"]["ndcg@10"]
    assert sum(per_query.values()) / 5 == pytest.approx(mean["slots"])

    found = {(c["system"], c["metric"]): c for c in result["comparisons"]}
    assert len(found) == 5 * 2
    assert found["perfect", "ndcg@10"]["difference"] == pytest.approx(0.5)
    assert found["base", "ndcg@10"]["p"] == 1.0
    assert all(c["p_holm"] >= c["p"] for c in found.values())
    (step, _) = result["steps"]
    assert step["difference"] == pytest.approx(mean["slots"] - mean["base"])

    written = trec.read_run(out / "runs" / "slots.trec")
    assert len(written) == 6
    assert all(a[1] > b[1] for r in written.values() for a, b in zip(r, r[1:], strict=False))
    traces = [json.loads(t) for t in (out / "exchanges" / "slots.jsonl").read_text().splitlines()]
    assert len(traces) == 6 + 6 and sum("explains" in t for t in traces) == 6
    base = json.loads((out / "exchanges" / "base.jsonl").read_text().splitlines()[0])
    assert base["outcome"]["status"] == "failed" and base["prompt"]["messages"]
    assert [row["system"] for row in summary["table"]] == list(rows)
    json.dumps(summary)


def test_a_stopped_bench_goes_on_and_changes_are_computed_again(recipe, tiny_model_dir, tmp_path):
    model = str(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    for system in recipe["bench"]["systems"]:
        if "model" in system:
            system["model"] = model
    _, first = bench(recipe)
    records = Path(recipe["run"]["output_dir"]) / "systems"

    def times() -> dict[str, int]:
        return {p.stem: p.stat().st_mtime_ns for p in sorted(records.iterdir())}

    before = times()
    (records / "slots.json").unlink()
    _, second = bench(recipe)
    again = times()
    assert [n for n in before if before[n] != again[n]] == ["slots"]
    assert second["per_query"] == first["per_query"]

    recipe["bench"]["systems"][3]["max_new_tokens"] = 4
    bench(recipe)
    third = times()
    assert [n for n in again if again[n] != third[n]] == ["base"]

    from safetensors.torch import load_file, save_file

    weights = load_file(f"{model}/model.safetensors")
    trained = {name: 1.01 * tensor for name, tensor in weights.items()}
    save_file(trained, f"{model}/model.safetensors", metadata={"format": "pt"})
    bench(recipe)
    assert [n for n in third if third[n] != times()[n]] == ["base", "slots"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"systems": []}, "no systems"),
        ({"baselines": ["first_stage"]}, "nearest: first stage"),
        ({"steps": [["base", "slot"]]}, "no system 'slot'.*nearest: slots"),
        ({"metrics": []}, "no metrics"),
        ({"metrics": ["foo@10"]}, "bench.metrics: unknown metric|unknown metric.*foo"),
    ],
)
def test_mistakes_are_found_before_anything_is_computed(recipe, change, words):
    recipe["bench"].update(change)
    with pytest.raises(RecipeError, match=words):
        bench(recipe)
    assert not Path(recipe["run"]["output_dir"]).exists()


def test_a_strategy_that_refuses_the_pick_is_found_before_any_system_is_asked(recipe):
    systems = recipe["bench"]["systems"]
    worst = {"name": "choice", "mode": "answer", "params": {"pick": "worst"}}
    row = {**systems[3], "name": "last", "format": worst, "strategy": {"name": "setwise"}}
    recipe["bench"]["systems"] = [*systems, row]
    message = "bench.systems 'last': strategy 'setwise': the format picks the worst document"
    with pytest.raises(RecipeError, match=message):
        bench(recipe)
    assert not Path(recipe["run"]["output_dir"]).exists()
    recipe["bench"].update(systems=[{**row, "readout": "score"}], baselines=[], steps=[])
    assert bench(recipe)[1]["systems"][0]["setting"]["strategy"] == "setwise"


def test_names_kinds_and_formats_must_fit(recipe):
    systems = recipe["bench"]["systems"]
    recipe["bench"]["systems"] = [systems[0], systems[0]]
    recipe["bench"].update(baselines=[], steps=[])
    with pytest.raises(RecipeError, match="share a name"):
        bench(recipe)
    recipe["bench"]["systems"] = [{**systems[3], "explain": 2}]
    with pytest.raises(RecipeError, match="cannot explain"):
        bench(recipe)
    recipe["bench"]["systems"] = [{k: v for k, v in systems[4].items() if k != "format"}]
    with pytest.raises(RecipeError, match="no format for kind slots"):
        bench(recipe)
    recipe["bench"] = None
    with pytest.raises(RecipeError, match="no systems"):
        bench(recipe)


def strings(value: Any) -> list[str]:
    """All strings of a JSON value but query ids."""
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in [k, *strings(v)]]
    return [s for v in value for s in strings(v)] if isinstance(value, list) else [str(value)]


def test_no_path_of_this_machine_is_in_the_result(recipe, tiny_model_dir, tmp_path):
    info = {**INFO, "path": str(tmp_path / "recipes" / "bench.yaml")}
    result = json.loads(
        Path(run(RecipeSpec.model_validate(recipe), info)["result"]).read_text(encoding="utf-8")
    )
    found = [s for s in strings(result) if s.startswith(("/", "~")) or str(tmp_path.parent) in s]
    assert found == []
    assert result["recipe"]["path"] == "recipes/bench.yaml"
    names = {s["name"]: s["model"].get("name") for s in result["systems"]}
    assert names["base"] == names["slots"] == f"{tiny_model_dir.parent.name}/tiny"


def test_readouts_of_systems_come_from_recipe_checkpoint_and_eval(recipe, tiny_model_dir, tmp_path):
    from rank_rl.bench.setting import setting

    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    slots = FormatSpec(name="slots")
    contract = PromptContract.of(
        formats.make(slots), StrategySpec(name="by_score"), readout="decoded"
    )
    contract.write(folder)
    recipe["format"] = {"name": "slots"}
    recipe["eval"] = {"readout": "expected"}

    def readout(**system: Any) -> str:
        recipe["bench"]["systems"] = [{"name": "x", "kind": "slots", **system}]
        spec = RecipeSpec.model_validate(recipe)
        return setting(spec.bench.systems[0], spec).readout

    assert readout(model=str(folder)) == "decoded"
    assert readout(model=str(folder), readout="score") == "score"
    assert readout(model=str(tiny_model_dir)) == "expected"
    orders = {"name": "permutation"}
    assert readout(model=str(tiny_model_dir), kind="text", format=orders) == "decoded"
    with pytest.raises(RecipeError, match=r"systems 'x': readout: readout 'score' with format"):
        readout(model=str(tiny_model_dir), kind="text", format=orders, readout="score")
    with pytest.raises(ValueError, match="kind random has no readout"):
        readout(kind="random", readout="score")


def test_guided_answers_are_a_row_that_can_always_be_read(recipe, tiny_model_dir):
    base = {"kind": "text", "model": str(tiny_model_dir), "max_new_tokens": 5}
    base["format"] = {"name": "scores", "mode": "answer", "params": {"max": 9, "quote": 4}}
    rows = [{"name": r, "readout": r, **base} for r in ("guided", "decoded")]
    recipe["bench"].update(systems=rows, baselines=[], steps=[])
    summary, result = bench(recipe)
    assert [row["readout"] for row in summary["table"]] == ["guided", "decoded"]
    assert [row["parse failures"] for row in summary["table"]] == [
        "0.0% of answers",
        "100.0% of answers",
    ]
    guided, decoded = result["systems"]
    assert guided["metrics"]["ndcg@10"]["mean"] != decoded["metrics"]["ndcg@10"]["mean"]


def test_readouts_are_rows_of_their_own(recipe, tiny_model_dir):
    graded = {"name": "slots", "params": {"labels": [" 0", " 1", " 2"]}}
    recipe["bench"]["systems"] = [
        {"name": r, "kind": "slots", "model": str(tiny_model_dir), "format": graded, "readout": r}
        for r in ("score", "expected", "decoded")
    ]
    recipe["bench"].update(baselines=[], steps=[])
    summary, result = bench(recipe)
    assert [row["readout"] for row in summary["table"]] == ["score", "expected", "decoded"]
    systems = {s["name"]: s for s in result["systems"]}
    # An untrained model writes no label, so that nothing moves …
    assert systems["decoded"]["failure_rate"] == 1.0
    assert systems["decoded"]["metrics"]["ndcg@10"]["mean"] == pytest.approx(0.5)
    # … and failures are counted alike whatever ranks.
    assert systems["score"]["statuses"] == systems["decoded"]["statuses"]


def test_reasoning_of_text_answers_is_an_explanation(recipe):
    (base,) = [s for s in recipe["bench"]["systems"] if s["name"] == "base"]
    base["format"] = {"name": "permutation", "mode": "reason"}
    recipe["bench"].update(systems=[base], baselines=[], steps=[])
    summary, result = bench(recipe)
    written = result["systems"][0]["explanations"]
    assert written == {"written": 6, "malformed": 6, "cut_off": 6}
    (row,) = summary["table"]
    assert row["malformed explanations"] == "100.0%"
    assert row["parse failures"] == "100.0% of answers"


def test_a_missing_checkpoint_is_found_before_anything_is_computed(recipe, tmp_path):
    recipe["bench"]["systems"][-2]["model"] = str(tmp_path / "gone")
    with pytest.raises(ModelError, match="no such folder"):
        bench(recipe)
    assert not Path(recipe["run"]["output_dir"]).exists()


def test_scores_of_several_tokens_are_found_before_anything_is_computed(recipe):
    base = next(s for s in recipe["bench"]["systems"] if s["name"] == "base")
    base.update(readout="expected", format={"name": "scores", "params": {"max": 100}})
    with pytest.raises(ModelError, match=r"more than one token.*max to 9"):
        bench(recipe)
    assert not Path(recipe["run"]["output_dir"]).exists()


def test_answers_are_as_long_as_system_or_checkpoint_say(recipe, tiny_model_dir, tmp_path):
    from rank_rl.bench.setting import setting

    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    orders = formats.make(FormatSpec(name="permutation"))
    PromptContract.of(orders, StrategySpec(), max_new_tokens=77).write(folder)

    def length(**system: Any) -> int:
        recipe["bench"]["systems"] = [{"name": "x", "kind": "text", **system}]
        spec = RecipeSpec.model_validate(recipe)
        return setting(spec.bench.systems[0], spec).max_new_tokens

    assert length(model=str(folder)) == 77
    assert length(model=str(folder), max_new_tokens=5) == 5
    assert length(model=str(tiny_model_dir)) == 256
    # Explanations of label slots are no lists of this checkpoint.
    assert length(model=str(folder), kind="slots", format={"name": "slots"}) == 256


def test_groups_are_drawn_with_the_seed_of_the_run(recipe):
    base = next(s for s in recipe["bench"]["systems"] if s["name"] == "base")
    base["strategy"] = {"name": "groups", "params": {"size": 3, "repeats": 1}}
    recipe["bench"].update(systems=[base], baselines=[], steps=[])
    bench(recipe)
    file = Path(recipe["run"]["output_dir"]) / "exchanges" / "base.jsonl"
    asked = [json.loads(line) for line in file.read_text().splitlines()]
    shown = {(a["qid"], *a["docids"]) for a in asked}
    groups = Groups(size=3, repeats=1, seed=recipe["run"]["seed"])
    views = [view for task in tasks("test") for view in next(groups.plan(task))]
    assert shown == {(view.query.qid, *view.docids) for view in views}


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def test_the_table_shows_intervals_marks_failures_and_costs():
    costs = {"prompt_tokens": 812.4, "completion_tokens": 31.6, "calls": 2.0, "seconds": 0.314}
    costs["depth"] = 1.5
    common = {"failure_rate": None, "explanations": {}, "costs": {}, "setting": {}, "kind": "run"}
    systems = [
        {"name": "bm25", **common, "metrics": {"map": interval(0.3), "mrr": interval(0.4)}},
        {"name": "base", **common, "metrics": {"map": interval(0.1), "mrr": interval(0.2)}},
        {
            "name": "ours",
            "kind": "slots",
            "metrics": {"map": interval(0.5), "mrr": interval(0.4)},
            "failure_rate": 0.012,
            "explanations": {"written": 40, "malformed": 1, "cut_off": 0},
            "costs": costs,
            "setting": {"readout": "score"},
        },
    ]
    compared = [
        ("map", "bm25", "base", -0.2, 0.01),
        ("map", "bm25", "ours", 0.2, 0.02),
        ("map", "base", "ours", 0.4, 0.0004),
        ("mrr", "bm25", "base", -0.2, 0.06),
        ("mrr", "bm25", "ours", 0.0, 1.0),
        ("mrr", "base", "ours", 0.2, 0.049),
    ]
    keys = ("metric", "baseline", "system", "difference", "p_holm")
    comparisons = [dict(zip(keys, row, strict=True)) for row in compared]
    result = {"metrics": ["map", "mrr"], "systems": systems, "comparisons": comparisons}
    bm25, base, ours = tables.rows(result)
    assert bm25["map (95 % CI)"] == "0.300 (0.250-0.350)"
    assert base["map (95 % CI)"] == "0.100 (0.050-0.150) -a"
    assert base["mrr (95 % CI)"] == "0.200 (0.150-0.250)"  # p 0.06 earns no mark
    assert ours == {
        "system": "ours",
        "map (95 % CI)": "0.500 (0.450-0.550) +a+b",
        "mrr (95 % CI)": "0.400 (0.350-0.450) +b",
        "p vs bm25 (a)": "0.020",
        "p vs base (b)": "< 0.001",
        "readout": "score",
        "parse failures": "1.2% of slots",
        "malformed explanations": "2.5%",
        "tokens in / query": "812",
        "tokens out / query": "32",
        "calls / query": "2.0",
        "depth": "1.5",
        "s / query": "0.31",
    }
    assert [line.partition(";")[0] for line in tables.legend(result)] == ["a: bm25", "b: base"]
    assert "| ours | 0.500 (0.450-0.550) +a+b |" in tables.markdown([bm25, base, ours])


def test_only_the_first_process_works(recipe, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run(RecipeSpec.model_validate(recipe), INFO) == {}
    assert not Path(recipe["run"]["output_dir"]).exists()


def test_the_readme_table_comes_from_the_result(recipe, tmp_path):
    recipe["bench"]["systems"] = [
        s for s in recipe["bench"]["systems"] if s["kind"] in ("first_stage", "perfect")
    ]
    recipe["bench"].update(steps=[["first stage", "perfect"]])
    summary, _ = bench(recipe)
    source = Path(summary["result"]).relative_to(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n<!-- table:{source} -->\nold\n<!-- /table -->\nafter\n")
    assert tables.main([str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("<!-- /table -->\nafter\n")
    assert "old" not in text
    assert "| perfect | 1.000 (1.000-1.000) | 1.000 (1.000-1.000) |" in text
    assert "tokens in" not in text  # no system asked a model
    assert "first stage → perfect: ndcg@10 +0.500 (+0.500 to +0.500, p " in text
    assert "5 test queries" in text and "`recipes/x/bench.yaml` (abc123)" in text
    tables.regenerate(readme)
    assert readme.read_text() == text


def test_a_readme_that_names_no_result_is_one_line(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:gone.json -->\n<!-- /table -->\n")
    assert tables.main([str(readme)]) == 0  # nothing was measured so far
    assert tables.UNMEASURED in readme.read_text()
    readme.write_text("<!-- table:gone.json -->\n| a table |\n<!-- /table -->\n")
    assert tables.main([str(readme)]) == 2
    assert "gone.json: no such file" in capsys.readouterr().err
    (tmp_path / "gone.json").write_text("[]")
    assert tables.main([str(readme)]) == 2
    assert "not a benchmark result" in capsys.readouterr().err


def test_scorers_are_loaded_for_their_own_format_and_cannot_be_unreadable(recipe, tmp_path, caplog):
    bert = str(save_bert(tmp_path / "bert"))
    listwise = {"name": "embedding", "params": {"listwise": 2, "listwise_order": "own"}}
    recipe["format"] = {"name": "cross_encoder", "doc_tokens": 16}
    recipe["bench"]["systems"] = [
        {"name": "first stage", "kind": "first_stage"},
        {"name": "cross-encoder", "kind": "scorer", "model": bert},
        {"name": "embedding", "kind": "scorer", "model": bert, "format": {"name": "embedding"}},
        {"name": "listwise", "kind": "scorer", "model": bert, "format": listwise},
        {"name": "pairs", "kind": "scorer", "model": bert, "format": {"name": "pair_scores"}},
    ]
    recipe["bench"]["steps"] = []
    with caplog.at_level(logging.INFO, logger="rank_rl.bench.systems"):
        _, result = bench(recipe)
    said = [t for t in caplog.messages if t.startswith("cross-encoder: ")]
    assert "calls showing" in said[0] and " took " in said[1] and len(said) == 2
    foreseen, spent = (int(re.findall(r"([0-9,]+) prompt tokens", t)[0]) for t in said)
    assert foreseen == pytest.approx(spent, rel=0.05)
    rows = {s["name"]: s for s in result["systems"] if s["kind"] == "scorer"}
    assert [r["setting"]["format"] for r in rows.values()] == [
        "cross_encoder/plain@1", "embedding/plain@1", "embedding/plain@1", "pair_scores/plain@1"
    ]  # fmt: skip
    for row in rows.values():
        assert row["failure_rate"] is None and row["costs"]["prompt_tokens"] > 0
        assert (row["costs"]["calls"], row["costs"]["completion_tokens"]) == (1, 0)
        assert (row["setting"]["readout"], row["setting"]["strategy"]) == ("score", "by_score")
    tokens = {name: row["costs"]["prompt_tokens"] for name, row in rows.items()}
    assert tokens["embedding"] < tokens["listwise"] and tokens["embedding"] < tokens["pairs"]
    trace = (tmp_path / "out" / "exchanges" / "embedding.jsonl").read_text().splitlines()[0]
    roles = [m["role"] for m in json.loads(trace)["prompt"]["messages"]]
    assert roles[0] == "query" and set(roles[1:]) == {"document"}
    recipe["bench"]["systems"] = [{"name": "x", "kind": "slots", "model": bert}]
    with pytest.raises(RecipeError, match="no format for kind slots"):
        bench(recipe | {"bench": {"systems": recipe["bench"]["systems"]}})


def test_reasoning_is_skipped_as_checkpoint_or_recipe_say(recipe, tiny_model_dir, tmp_path):
    from rank_rl.bench.setting import setting

    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    saved = FormatSpec(name="choice", mode="reason", params={"pick": "worst"})
    PromptContract.of(formats.make(saved), StrategySpec(), reasoning="skip").write(folder)
    other = {"name": "choice", "mode": "reason"}
    recipe["format"] = other

    def reasoning(wanted: str, **system: Any) -> str:
        recipe["eval"] = {"reasoning": wanted}
        row = {"name": "x", "kind": "text", "model": str(folder), **system}
        recipe["bench"]["systems"] = [row]
        spec = RecipeSpec.model_validate(recipe)
        return setting(spec.bench.systems[0], spec).reasoning

    assert reasoning("write") == reasoning("skip") == "skip"  # the checkpoint's
    assert reasoning("skip", format=other) == "skip"
    assert reasoning("write", format=other) == "write"
    third = {**other, "params": {"labels": "after"}}
    assert reasoning("skip", format=third) == "write"
    assert reasoning("write", format=third, reasoning="skip") == "skip"
