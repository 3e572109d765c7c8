"""Stage teach from end to end: with an oracle, and with a teacher behind a real HTTP server."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import Fixed, Server, ServerSettings
from teach_runs import (
    FUSION,
    KEY,
    LIST,
    ORACLE,
    POINT,
    collection,
    content,
    endpoint,
    files,
    judged,
    lines,
    loaded,
    recipe,
    rows,
)
from typer.testing import CliRunner

from rank_rl import recipe as recipes
from rank_rl.cli.app import app
from rank_rl.data import lessons
from rank_rl.errors import BackendError, DataError, RecipeError
from rank_rl.specs import RecipeSpec
from rank_rl.teachers.ledger import LimitReached
from rank_rl.teachers.run import Options, run

pytest.importorskip("openai")

INFO = {"path": "recipe.yaml", "hash": "abc"}
WRITTEN = {
    "README.md",
    "exchanges.jsonl",
    "failures.jsonl",
    "lessons.jsonl",
    "report.json",
    "tasks.jsonl",
}
LEFT_OUT = {**POINT, "name": "rest", "documents": "left_out", "of": "list", "size": 2}
SAMPLED = {**LIST, "name": "drawn", "samples": 5, "temperature": 0.7, "choose": "consensus"}
PAIRS = {
    "name": "pairs",
    "format": {"name": "pair", "mode": "reason", "doc_tokens": 32, "prompt_tokens": 1600},
    "strategy": {"name": "pairs"},
    "max_tokens": 64,
}
CHOICE = {
    "name": "pick",
    "format": {"name": "choice", "mode": "reason", "doc_tokens": 32, "prompt_tokens": 1600},
    "max_tokens": 64,
}
GROUPS = {
    "name": "groups",
    "format": {"name": "scores", "mode": "answer", "doc_tokens": 32, "prompt_tokens": 1600},
    "strategy": {"name": "groups", "params": {"size": 2}},
    "max_tokens": 64,
}
SLIDING = {**LIST, "strategy": {"name": "sliding", "params": {"window": 2, "step": 1}}}
DRAWS = {"data": {"sampler": {"name": "pool", "size": 3, "per_query": 3}}}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK_RL_TEST_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def teach(spec: RecipeSpec, **options: Any) -> dict[str, Any]:
    return run(spec, INFO, Options(**options))


def asking(server: Server, *questions: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Section ``teach`` with a teacher on the server."""
    params = more.pop("params", {})
    price = more.pop("price", None)
    return {
        "teachers": {"main": endpoint(server.url, price=price, **params)},
        "questions": list(questions),
        **more,
    }


def good(**settings: Any) -> Server:
    return Server(ServerSettings(answer=judged, key=KEY, **settings))


def prompts(server: Server) -> list[str]:
    return [body["messages"][-1]["content"] for body in server.bodies]


def everything(folder: Path) -> bytes:
    """All bytes of a folder, of the store too."""
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


# With an oracle


def test_an_oracle_gives_perfect_lessons_and_labels(tiny_model_dir: Path, tmp_path: Path) -> None:
    spec = recipe(tmp_path, tiny_model_dir, {"questions": [LIST], "licence": "cc-by-4.0"})
    summary = teach(spec)
    out = tmp_path / "out"
    assert set(files(out)) == WRITTEN
    assert summary["verdict"]["list"].startswith("good: ")
    assert (summary["lessons"], summary["tasks"], summary["units"]) == (6, 6, "6 of 6 complete")
    for row, record in zip(rows(6, "train"), lines(out / "lessons.jsonl"), strict=True):
        (relevant,) = row["grades"]
        assert (record["qid"], record["query"]) == (row["qid"], row["query"])
        assert record["order"][0] == relevant
        assert (record["question"], record["teacher"]) == ("list", "oracle")
        assert record["licence"] == "cc-by-4.0"
        assert "<answer>" in record["completion"][0]["content"]
    for row, record in zip(rows(6, "train"), lines(out / "tasks.jsonl"), strict=True):
        assert max(record["grades"], key=record["grades"].get) == next(iter(row["grades"]))
        assert record["split"] == "train"
    assert lines(out / "failures.jsonl") == []
    assert loaded(out / "ledger.json")["requests"] == 6


@pytest.mark.parametrize("strategy", ["single", "groups"])
def test_an_oracle_picks(tiny_model_dir: Path, tmp_path: Path, strategy: str) -> None:
    worst = {**CHOICE, "name": "last", "format": {**CHOICE["format"], "params": {"pick": "worst"}}}
    params = {"size": 3} if strategy == "groups" else {}
    asked = [{**q, "strategy": {"name": strategy, "params": params}} for q in (CHOICE, worst)]
    teach(recipe(tmp_path, tiny_model_dir, {"questions": asked}))
    out = tmp_path / "out"
    assert lines(out / "failures.jsonl") == []
    taught = lessons.read(out / "lessons.jsonl")
    best = {row["qid"]: next(iter(row["grades"])) for row in rows(6, "train")}
    assert {lesson.question for lesson in taught} == {"pick", "last"}
    for lesson in taught:
        relevant, (picked, *_) = best[lesson.view.query.qid], lesson.order
        if lesson.question == "pick" and relevant in lesson.view.docids:
            assert picked == relevant
        if lesson.question == "last":
            assert lesson.order[-1] != relevant
    assert loaded(out / "report.json")["counts"]["tasks"] == 6


def test_the_data_card_and_the_report_say_what_was_made(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    section = {"licence": "cc-by-4.0", "filters": [{"name": "copied"}]}
    teach(recipe(tmp_path, tiny_model_dir, section))
    report = loaded(tmp_path / "out" / "report.json")
    counts = {k: report["counts"][k] for k in ("units", "units_complete", "answers", "tasks")}
    assert counts == {"units": 6, "units_complete": 6, "answers": 6, "tasks": 6}
    copied = report["drops"]["dropped"]["copied"]  # d0 is the relevant one of every fourth query
    assert (copied["dropped"], report["drops"]["kept"]) == (2, 4)
    assert copied["examples"][0]["why"] == "the order shown, repeated"
    assert report["quality"]["all"]["list"]["ndcg@10"] == 1.0
    assert report["source"]["prompt versions"] == {"list": "permutation/default@1"} or re.match(
        r"permutation", report["source"]["prompt versions"]["list"]
    )
    assert re.fullmatch(r"[0-9a-f]{16}", report["source"]["sha256 of prompts"]["list"])
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-4.0"
    for said in (
        "4 lessons and 6 labelled queries",
        "| copied | 2 | 2 |",
        "recipe.yaml (abc)",
        "list: good",
        "oracle",
        "tasks.jsonl",
    ):
        assert said in body, said


def test_lessons_load_with_datasets_and_as_parquet(tiny_model_dir: Path, tmp_path: Path) -> None:
    import datasets

    teach(recipe(tmp_path, tiny_model_dir, {"questions": [LIST, POINT], "parquet": True}))

    def load(kind: str, name: str) -> list[dict[str, Any]]:
        found = datasets.load_dataset(
            kind,
            data_files=str(tmp_path / "out" / name),
            split="train",
            cache_dir=str(tmp_path / f"cache {kind}"),
        )
        return list(found)

    as_json, as_parquet = load("json", "lessons.jsonl"), load("parquet", "lessons.parquet")
    assert len(as_json) == 6 + 24
    assert as_parquet == as_json
    assert as_json[0]["docids"] == ["d0", "d1", "d2", "d3"]
    assert as_json[0]["prompt"][-1]["role"] == "user"


def test_parquet_of_columns_that_are_empty_everywhere_has_types_and_none_at_all_is_no_error(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    from datasets import Dataset, Value
    from pyarrow import parquet

    teach(recipe(tmp_path, tiny_model_dir, {"parquet": True}))
    features = Dataset.from_parquet(str(tmp_path / "out" / "lessons.parquet")).features
    assert features["scores"].feature == Value("float64")
    assert features["instruction"] == Value("string")
    (tmp_path / "none").mkdir()
    nothing = {"parquet": True, "filters": [{"name": "length", "params": {"least": 9999}}]}
    teach(recipe(tmp_path / "none", tiny_model_dir, nothing))
    found = parquet.read_table(tmp_path / "none" / "out" / "lessons.parquet")
    assert (found.num_rows, found.column_names) == (0, list(features))


def test_a_second_run_sends_nothing_and_changes_nothing(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    with good() as server:
        section = asking(server, LIST, POINT, SAMPLED, labels=FUSION, parquet=True)
        spec = recipe(tmp_path, tiny_model_dir, section)
        teach(spec)
        before, sent = files(tmp_path / "out"), server.requests
        assert sent == 6 * (1 + 4 + 5)
        summary = teach(spec)
        assert server.requests == sent
    assert files(tmp_path / "out") == before
    assert summary["requests"]["requests"] == sent
    assert loaded(tmp_path / "out" / "ledger.json")["requests"] == sent


# What is asked


def test_lists_and_grades_are_asked_and_fused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with good() as server:
        section = asking(server, {**POINT, "lesson": False}, LIST, labels=FUSION)
        teach(recipe(tmp_path, tiny_model_dir, section))
        assert server.with_key == server.requests == 30
    made = lines(tmp_path / "out" / "tasks.jsonl")
    for row, record in zip(rows(6, "train"), made, strict=True):
        colours = {c["docid"]: c["text"].split()[-1] for c in row["candidates"]}
        relevant = next(iter(row["grades"]))
        points = {d: 3 if d == relevant else len(c) % 3 for d, c in colours.items()}
        ranks = [
            sorted(points, key=lambda d: (-points[d], d)),
            sorted(points, key=lambda d: (d != relevant, d)),
        ]
        gold = {d: sum(-0.5 * math.log(r.index(d) + 1) for r in ranks) for d in points}
        assert record["metadata"]["teacher"]["labels"] == pytest.approx(gold)
        expected = {d: sum(o < g - 1e-12 for o in gold.values()) for d, g in gold.items()}
        assert record["grades"] == expected
        assert record["grades"][relevant] == 3
    assert {r["question"] for r in lines(tmp_path / "out" / "lessons.jsonl")} == {"list"}
    assert {r["question"] for r in lines(tmp_path / "out" / "exchanges.jsonl")} == {"list", "point"}


def test_draws_are_units_of_their_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    spec = recipe(tmp_path, tiny_model_dir, {"units": "draws", "questions": [LIST]}, **DRAWS)
    teach(spec)
    made = lines(tmp_path / "out" / "tasks.jsonl")
    assert [r["qid"] for r in made] == [f"train{q}#{d}" for q in range(6) for d in range(3)]
    assert {len(r["candidates"]) for r in made} == {3}
    taught = lines(tmp_path / "out" / "lessons.jsonl")
    assert {r["unit"] for r in taught} == {r["qid"] for r in made}
    assert {r["qid"] for r in taught} == {f"train{q}" for q in range(6)}


def test_samples_are_drawn_and_the_consensus_is_kept(tiny_model_dir: Path, tmp_path: Path) -> None:
    def wavering(messages: Any, sample: int) -> str:
        if sample in (1, 3):
            return "<think>\nturned\n</think>\n<answer>[4] > [3] > [2] > [1]</answer>"
        return judged(messages, sample)

    with Server(ServerSettings(answer=wavering)) as server:
        section = asking(server, SAMPLED, params={"samples_per_request": 4})
        teach(recipe(tmp_path, tiny_model_dir, section))
        assert sorted(body.get("n", 1) for body in server.bodies) == [1] * 6 + [4] * 6
        assert all(body["temperature"] == 0.7 for body in server.bodies)
    exchanges = lines(tmp_path / "out" / "exchanges.jsonl")
    assert len(exchanges) == 30
    chosen = [e for e in exchanges if e["chosen"]]
    assert [e["sample"] for e in chosen] == [0] * 6  # of equal orders the shortest
    report = loaded(tmp_path / "out" / "report.json")
    assert report["counts"]["lessons"] == 6
    assert -1 < report["agreement"]["samples"]["drawn"] < 1


def test_documents_left_out_are_asked_about_and_no_others(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    label = {"name": "shortlist", "params": {"listed": "list", "judged": "rest", "size": 2}}
    with good() as server:
        teach(recipe(tmp_path, tiny_model_dir, asking(server, LIST, LEFT_OUT, labels=label)))
        graded = [p for p in prompts(server) if "Passage: " in p]
    expected = set()
    for row in rows(6, "train"):
        named = next(iter(row["grades"]))
        order = sorted((c["docid"] for c in row["candidates"]), key=lambda d: (d != named, d))
        texts = {c["docid"]: c["text"] for c in row["candidates"]}
        expected |= {(row["query"], texts[d]) for d in order[2:]}
    asked = {
        (q, d)
        for q, d in (re.findall(r"(which house.*\?|the house is \w+)", p)[:2] for p in graded)
    }
    assert asked == expected
    assert len(graded) == 12
    for record in lines(tmp_path / "out" / "tasks.jsonl"):
        assert sorted(record["grades"].values())[2:] == [2, 3]
        assert set(sorted(record["grades"].values())[:2]) <= {0, 1}


def test_a_shortlist_is_the_first_documents_of_the_first_stage(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    short = {**LIST, "documents": "shortlist", "size": 3}
    teach(recipe(tmp_path, tiny_model_dir, {"questions": [short]}))
    taught = lines(tmp_path / "out" / "lessons.jsonl")
    assert {tuple(sorted(r["docids"])) for r in taught} == {("d0", "d1", "d2")}
    made = lines(tmp_path / "out" / "tasks.jsonl")
    assert {tuple(c["docid"] for c in r["candidates"]) for r in made} == {("d0", "d1", "d2")}


def test_the_instruction_of_a_task_reaches_every_prompt(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    told = [row | {"instruction": "Only houses, please."} for row in rows(2, "train")]
    collection(tmp_path, [*told, *rows(1, "validation"), *rows(1, "test")])
    with good() as server:
        teach(
            recipe(tmp_path, tiny_model_dir, asking(server, LIST, POINT, LEFT_OUT, PAIRS, GROUPS))
        )
        seen = prompts(server)
    assert len(seen) > 2 * (1 + 4 + 12)
    assert [p for p in seen if "Only houses, please." not in p] == []
    assert {r["instruction"] for r in lines(tmp_path / "out" / "lessons.jsonl")} == {
        "Only houses, please."
    }


def test_sampling_goes_into_the_request(tiny_model_dir: Path, tmp_path: Path) -> None:
    exact = {**LIST, "temperature": 0.3, "top_p": 0.9, "max_tokens": 40, "logprobs": 2}
    with good() as server:
        teach(recipe(tmp_path, tiny_model_dir, asking(server, exact)))
        body = server.bodies[0]
    wanted = {"temperature": 0.3, "top_p": 0.9, "max_tokens": 40, "top_logprobs": 2}
    assert {k: body[k] for k in wanted} == wanted
    logprobs = [e["logprob"] for e in lines(tmp_path / "out" / "exchanges.jsonl")]
    assert all(isinstance(value, float) and value < 0 for value in logprobs)


# The estimate


SAMPLES = [SAMPLED, {**POINT, "samples": 3, "temperature": 1.0}]
SLIDING_SAMPLES = [{**SLIDING, "samples": 2, "temperature": 1.0}]


@pytest.mark.parametrize(
    ("questions", "sections", "most"),  # most: samples of one request
    [
        pytest.param([LIST], {}, 1, id="list"),
        pytest.param([LIST, POINT], {}, 4, id="both"),
        pytest.param([LIST, LEFT_OUT], {}, 1, id="left_out"),
        pytest.param(SAMPLES, {}, 1, id="samples"),
        pytest.param(SAMPLES, {}, 4, id="samples together"),
        pytest.param([POINT, LIST], DRAWS, 1, id="draws"),
        pytest.param([SLIDING], {}, 1, id="sliding"),
        pytest.param(SLIDING_SAMPLES, {}, 1, id="sliding samples"),
        pytest.param(SLIDING_SAMPLES, {}, 4, id="sliding samples together"),
        pytest.param([PAIRS, GROUPS], {}, 1, id="pairs"),
        pytest.param([CHOICE], {}, 1, id="choice"),
    ],
)
def test_a_dry_run_counts_exactly_what_is_then_sent(
    tiny_model_dir: Path,
    tmp_path: Path,
    most: int,
    questions: list[dict[str, Any]],
    sections: dict[str, Any],
) -> None:
    def answered(messages: Any, sample: int) -> str:
        text = messages[-1]["content"]
        if '"[1]": score' in text:
            return '{"[1]": 3, "[2]": 1}'
        return judged(messages, sample)

    collection(tmp_path, [*rows(3, "train"), *rows(1, "validation"), *rows(1, "test")])
    with Server(ServerSettings(answer=answered)) as server:
        section = asking(server, *questions, params={"samples_per_request": most})
        section["units"] = "draws" if sections else "task"
        spec = recipe(tmp_path, tiny_model_dir, section, **sections)
        estimate = teach(spec, dry_run=True)
        assert server.requests == 0
        assert not (tmp_path / "out").exists(), "an estimate leaves nothing behind"
        half = estimate["requests"] // 2
        with pytest.raises(LimitReached):
            teach(spec, max_requests=half)
        assert server.requests == half
        assert teach(spec, dry_run=True)["requests"] == estimate["requests"] - half
        teach(spec)
        assert server.requests == estimate["requests"]
        assert teach(spec, dry_run=True)["requests"] == 0
    spent = loaded(tmp_path / "out" / "ledger.json")
    assert spent["requests"] == spent["succeeded"] == estimate["requests"]


def test_an_estimate_has_tokens_and_money(tiny_model_dir: Path, tmp_path: Path) -> None:
    with good() as server:
        section = asking(server, LIST, POINT, price={"input": 3.0, "output": 12.0})
        estimate = teach(recipe(tmp_path, tiny_model_dir, section), dry_run=True)
    first, second = estimate["table"]
    assert (first["requests"], first["samples"], first["tokens out at most"]) == (6, 6, 6 * 64)
    assert (second["requests"], second["tokens out at most"]) == (24, 24 * 8)
    cost = sum((r["tokens in"] * 3 + r["tokens out at most"] * 12) / 1e6 for r in (first, second))
    assert estimate["cost at most"] == pytest.approx(cost, abs=2e-6)
    assert first["tokens in"] > 600


def test_the_same_prompt_is_paid_for_once(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Draws of one query share documents, so their pointwise prompts are the same."""
    with good(delay=0.01) as server:
        section = asking(server, POINT, units="draws")
        teach(recipe(tmp_path, tiny_model_dir, section, **DRAWS))
        distinct = {json.dumps(body, sort_keys=True) for body in server.bodies}
        assert server.requests == len(distinct) <= 24
    assert loaded(tmp_path / "out" / "report.json")["counts"]["answers"] == 6 * 3 * 3


# Limits and interruptions


def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    label = {"name": "shortlist", "params": {"listed": "list", "judged": "rest", "size": 2}}
    outputs = []
    for name, limits in (("whole", []), ("halting", [0, 5, 6, 17, 30])):
        with good() as server:
            section = asking(server, LIST, LEFT_OUT, SAMPLED, labels=label)
            run_section = {"output_dir": str(tmp_path / name)}
            spec = recipe(tmp_path, tiny_model_dir, section, run=run_section)
            for limit in limits:
                with pytest.raises(LimitReached, match=f"max_requests {limit} is reached"):
                    teach(spec, max_requests=limit)
                assert server.requests == limit
            teach(spec)
            assert server.requests == 6 * (1 + 2 + 5)
        outputs.append(files(tmp_path / name))
    assert outputs[0].keys() == outputs[1].keys() == WRITTEN
    assert [n for n in WRITTEN if outputs[0][n] != outputs[1][n]] == []


def test_what_is_complete_is_written_where_a_limit_stops(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    with good() as server:
        section = asking(server, LIST, params={"concurrency": 1}, max_requests=4)
        with pytest.raises(LimitReached):
            teach(recipe(tmp_path, tiny_model_dir, section))
    report = loaded(tmp_path / "out" / "report.json")
    assert (report["counts"]["units"], report["counts"]["units_complete"]) == (6, 4)
    assert len(lines(tmp_path / "out" / "lessons.jsonl")) == 4


def test_max_cost_is_never_passed(tiny_model_dir: Path, tmp_path: Path) -> None:
    price = {"input": 10.0, "output": 1000.0}
    collection(tmp_path, [*rows(14, "train"), *rows(1, "validation"), *rows(1, "test")])
    with good(delay=0.005) as server:
        spec = recipe(
            tmp_path, tiny_model_dir, asking(server, LIST, POINT, price=price, max_cost=0.25)
        )
        stops = 0
        for limit in (0.085, 0.16, None):  # each lets one more list through at least
            with pytest.raises(LimitReached, match=r"would pass max_cost"):
                teach(spec, max_cost=limit)
            spent = loaded(tmp_path / "out" / "ledger.json")
            assert 0 < spent["cost"] <= (limit or 0.25)
            assert spent["requests"] == server.requests > stops
            stops = server.requests
    assert stops < 14 * 5


# Faults


def test_a_refused_request_is_recorded_and_repaired(tiny_model_dir: Path, tmp_path: Path) -> None:
    outputs = []
    refused = Fixed(status=400, body={"error": {"message": "bad \ud83d words"}})
    for name, script in (("whole", ()), ("repaired", ("", refused))):
        with good(script=script) as server:
            section = asking(server, LIST, params={"concurrency": 1})
            spec = recipe(
                tmp_path, tiny_model_dir, section, run={"output_dir": str(tmp_path / name)}
            )
            teach(spec)
            assert server.requests == 6
            if script:
                (failure,) = lines(tmp_path / name / "failures.jsonl")
                assert failure["unit"] in {f"train{n}" for n in range(6)}
                assert {k: failure[k] for k in ("question", "teacher", "cause")} == {
                    "question": "list",
                    "teacher": "main",
                    "cause": "refused",
                }
                assert failure["detail"].startswith("400 bad ")
                report = loaded(tmp_path / name / "report.json")
                assert report["counts"]["units_complete"] == 6
                assert (report["counts"]["tasks"], report["counts"]["tasks_without_labels"]) == (
                    5,
                    1,
                )
                assert report["drops"]["dropped"]["no answer"]["dropped"] == 1
                assert loaded(tmp_path / name / "ledger.json")["given_up"] == 1
                teach(spec)
                assert server.requests == 6
                teach(spec, retry_failed=True)
                assert server.requests == 7
        outputs.append(files(tmp_path / name))
    assert [n for n in WRITTEN if outputs[0][n] != outputs[1][n]] == []
    assert loaded(tmp_path / "repaired" / "ledger.json")["given_up"] == 0


def test_a_fault_that_passes_is_repeated(tiny_model_dir: Path, tmp_path: Path) -> None:
    with good(script=("", "rate_limit", "error_500", "", "truncated")) as server:
        teach(recipe(tmp_path, tiny_model_dir, asking(server, LIST, params={"concurrency": 1})))
        assert server.requests == 9
    spent = loaded(tmp_path / "out" / "ledger.json")
    assert (spent["requests"], spent["succeeded"], spent["failed_attempts"]) == (9, 6, 3)
    assert spent["teachers"]["main"]["failed_attempts"] == {
        "malformed": 1,
        "rate_limit": 1,
        "server_error": 1,
    }
    assert lines(tmp_path / "out" / "failures.jsonl") == []


def test_a_prompt_that_is_too_long_is_recorded_and_the_others_go_on(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    long = rows(3, "train")
    long[1]["query"] = "which house is red? " * 400
    collection(tmp_path, [*long, *rows(1, "validation"), *rows(1, "test")])
    with good() as server:
        spec = recipe(tmp_path, tiny_model_dir, asking(server, LIST, POINT))
        estimate = teach(spec, dry_run=True)
        assert (estimate["requests"], estimate["prompts too long"]) == (10, 5)
        teach(spec)
        assert server.requests == 10
        teach(spec)
        assert server.requests == 10
    failures = lines(tmp_path / "out" / "failures.jsonl")
    assert [(f["unit"], f["cause"]) for f in failures] == [("train1", "too_long")] * 5
    assert "format.prompt_tokens = 1600" in failures[0]["detail"]
    assert [r["qid"] for r in lines(tmp_path / "out" / "tasks.jsonl")] == ["train0", "train2"]
    assert teach(spec, dry_run=True)["requests"] == 0


def test_a_wrong_key_stops_the_run_and_nothing_is_lost(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    denied = Fixed(status=401, body={"error": {"message": f"no such key {KEY}"}})
    with good(script=("", "", denied)) as server:
        spec = recipe(tmp_path, tiny_model_dir, asking(server, LIST, params={"concurrency": 1}))
        with pytest.raises(BackendError, match="refused every further request") as error:
            teach(spec)
        assert "\n" not in error.value.line()
        assert KEY not in error.value.line()
        assert server.requests == 3
        assert len(lines(tmp_path / "out" / "lessons.jsonl")) == 2
        teach(spec)
        assert server.requests == 3 + 4
    assert loaded(tmp_path / "out" / "report.json")["counts"]["units_complete"] == 6
    assert KEY.encode() not in everything(tmp_path / "out")


def test_after_a_fatal_answer_only_what_is_in_flight_is_sent(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    with Server(ServerSettings(answer=judged, key="another key", delay=0.01)) as server:
        spec = recipe(tmp_path, tiny_model_dir, asking(server, POINT, params={"concurrency": 2}))
        with pytest.raises(BackendError, match="unauthorised"):
            teach(spec)
    assert loaded(tmp_path / "out" / "ledger.json")["requests"] <= 2


HOSTILE = (
    "{query}",
    "../../x",
    "</answer>",
    "\x00\x00",
    "a" * 1_000_000,
    "\ud800",
    "<think>\ud83d</think><answer>[1] > [2] > [3] > [4]\x00</answer>",
    "%s %(query)s {0.__class__.__init__.__globals__} $(touch pwned) ${query}",
    "<think>\n{query} {instruction}\u2028\u0085 | -- |\n</think>\n<answer>[2]>[1]>[3]>[4]</answer>",
    "<think>" * 5000,
    "[9999999999999999999999] > [-1] > [1e999]",
    "'; DROP TABLE completions; --",
)


def test_hostile_answers_do_no_harm(tiny_model_dir: Path, tmp_path: Path) -> None:
    import datasets

    def hostile(messages: Any, sample: int) -> str:
        number = int(re.findall(r"street (\d+)", messages[-1]["content"])[0])
        return HOSTILE[number % len(HOSTILE)]

    told = rows(len(HOSTILE), "train")
    collection(tmp_path, [*told, *rows(1, "validation"), *rows(1, "test")])
    names = {p.name for p in tmp_path.iterdir()}
    settings = ServerSettings(answer=hostile, model="../{query}\ud800|\n---\nx: y")
    with Server(settings) as server:
        section = asking(server, LIST, POINT, PAIRS, params={"retries": 0}, parquet=True)
        spec = recipe(tmp_path, tiny_model_dir, section)
        teach(spec)
        before, sent = files(tmp_path / "out"), server.requests
        teach(spec)
        assert server.requests == sent
    assert files(tmp_path / "out") == before
    out = tmp_path / "out"
    assert {p.name for p in tmp_path.iterdir()} == names | {"out"}
    assert set(files(out)) == WRITTEN | {"lessons.parquet"}
    exchanges = lines(out / "exchanges.jsonl")
    assert len(exchanges) == len(HOSTILE) * (1 + 4 + 12)
    texts = {e["text"] for e in exchanges}
    assert {"{query}", "../../x", "\x00\x00"} <= texts
    taught = lessons.read(out / "lessons.jsonl")
    assert len(taught) == loaded(out / "report.json")["counts"]["lessons"] > 0
    assert any("{query} {instruction}" in lesson.reasoning for lesson in taught)
    found = datasets.load_dataset(
        "json", data_files=str(out / "lessons.jsonl"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert len(found) == len(taught)
    card = (out / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"
    assert "x: y" not in card.splitlines()


def test_a_key_in_a_recipe_is_refused_and_not_shown(tiny_model_dir: Path, tmp_path: Path) -> None:
    for params in (
        {"api_key": KEY},
        {"extra": {"api-key": KEY}},
        {"extra": {"headers": [{"Authorization": f"Bearer {KEY}"}]}},
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"api_key_env": KEY},
    ):
        teacher = {"name": "endpoint", "model": "m", "params": params}
        made = content(tmp_path, tiny_model_dir, {"teachers": {"main": teacher}})
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(made))
        with pytest.raises(RecipeError) as error:
            recipes.load(file, [])
        assert KEY not in str(error.value)
        assert "environment" in str(error.value)
    hub = content(tmp_path, tiny_model_dir, {"hub": {"repo": "me/x", "token": KEY}})
    file.write_text(yaml.safe_dump(hub))
    with pytest.raises(RecipeError) as error:
        recipes.load(file, [])
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"filters": [{"name": "qualty"}]}, r"unknown filter 'qualty'.*quality"),
        ({"filters": [{"name": "quality", "params": {"lest": 1}}]}, r"unknown parameter 'lest'"),
        ({"labels": {"name": "rank", "params": {"question": "lst"}}}, r"'lst'"),
        ({"labels": {"name": "fusion", "params": {"questions": ["list", "x"]}}}, r"'x'"),
        ({"filters": [{"name": "stable", "params": {"of": "lst"}}]}, r"'lst'"),
        ({"filters": [{"name": "agreement", "params": {"questions": ["list", "x"]}}]}, r"'x'"),
        ({"hub": {"repo": "norepo"}}, r"owner/name"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_before_anything_is_sent(
    tiny_model_dir: Path, tmp_path: Path, section: dict[str, Any], message: str
) -> None:
    with good() as server:
        spec = recipe(tmp_path, tiny_model_dir, asking(server, LIST, **section))
        with pytest.raises(RecipeError, match=message):
            teach(spec)
        assert server.requests == 0


def test_an_oracle_without_grades_is_one_line(tiny_model_dir: Path, tmp_path: Path) -> None:
    plain = [{k: v for k, v in row.items() if k != "grades"} for row in rows(2, "train")]
    collection(tmp_path, [*plain, *rows(1, "validation"), *rows(1, "test")])
    with pytest.raises(DataError, match=r"query 'train0': an oracle needs grades"):
        teach(recipe(tmp_path, tiny_model_dir, {}))


# What is thrown away


def test_lessons_about_test_queries_are_removed(tiny_model_dir: Path, tmp_path: Path) -> None:
    def foreign(query: str) -> dict[str, Any]:
        return {"query": query, "passages": ["one text", "another text"], "permutation": [2, 1]}

    queries = [rows(2, "test")[1]["query"].upper(), rows(1, "validation")[0]["query"], "a new one?"]
    file = tmp_path / "foreign.jsonl"
    file.write_text("".join(json.dumps(foreign(q)) + "\n" for q in queries))
    section = {"imports": [{"name": "rankgpt", "path": str(file), "licence": "mit"}]}
    teach(recipe(tmp_path, tiny_model_dir, section))
    report = loaded(tmp_path / "out" / "report.json")
    assert report["drops"]["dropped"]["in the test set"]["dropped"] == 2
    taught = lines(tmp_path / "out" / "lessons.jsonl")
    assert [r["query"] for r in taught[6:]] == ["a new one?"]
    assert (taught[6]["licence"], taught[6]["question"]) == ("mit", "rankgpt")


def test_every_answer_is_kept_or_counted_as_dropped(tiny_model_dir: Path, tmp_path: Path) -> None:
    def mixed(messages: Any, sample: int) -> str:
        number = int(re.findall(r"street (\d+)", messages[-1]["content"])[0])
        if number == 0:
            return "I cannot rank these."
        if number == 1:
            return "<think>\nshort\n</think>\n<answer>[1] > [2] > [3] > [4]</answer>"
        if number == 2:
            return "<think>\n" + "long " * 200
        return judged(messages, sample)

    told = rows(6, "train")
    told[5]["query"] = "which house is it? " * 400  # fits no prompt
    collection(tmp_path, [*told, *rows(1, "validation"), *rows(2, "test")])
    with Server(ServerSettings(answer=mixed)) as server:
        filters = [{"name": "copied"}, {"name": "length", "params": {"least": 2}}]
        section = asking(server, LIST, filters=filters)
        summary = teach(recipe(tmp_path, tiny_model_dir, section))
    drops = loaded(tmp_path / "out" / "report.json")["drops"]
    counts = {name: d["dropped"] for name, d in drops["dropped"].items() if d["dropped"]}
    assert counts == {"no answer": 1, "readable": 2, "copied": 2}
    assert drops["answers"] == drops["kept"] + sum(counts.values()) == 6
    assert drops["dropped"]["length"]["alone"] >= 1
    assert summary["dropped"] == {
        n: d["dropped"] for n, d in drops["dropped"].items() if d["alone"]
    }
    exchanges = lines(tmp_path / "out" / "exchanges.jsonl")
    assert [e["dropped"].split(":")[0] for e in exchanges] == [
        "readable",
        "copied",
        "readable",
        "",
        "copied",
        "no answer",
    ]


def test_a_teacher_that_answers_at_random_is_recognised(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    collection(tmp_path, [*rows(40, "train"), *rows(1, "validation"), *rows(1, "test")])
    with Server() as server:
        bad = teach(recipe(tmp_path, tiny_model_dir, asking(server, LIST)))
    assert bad["verdict"]["list"].startswith(("poor", "mediocre"))
    assert "labelled positive in" in bad["verdict"]["list"]


def test_a_perfect_teacher_of_perfect_lists_is_not_called_poor(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    first = [row for row in rows(12, "train") if "d0" in row["grades"]]
    collection(tmp_path, [*first, *rows(1, "validation"), *rows(1, "test")])
    section = {"questions": [{**LIST, "documents": "shortlist", "size": 3}]}
    summary = teach(recipe(tmp_path, tiny_model_dir, section))
    assert summary["verdict"]["list"].startswith("good")


def test_a_pointwise_teacher_is_measured_by_the_ranking_that_it_gives(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    section = {"questions": [POINT], "teachers": {"main": ORACLE}}
    teach(recipe(tmp_path, tiny_model_dir, section))
    quality = loaded(tmp_path / "out" / "report.json")["quality"]["all"]["point"]
    assert quality["verdict"].startswith("good")
    assert (quality["checkable"], quality["ndcg@10"]) == (6, 1.0)


# Written queries


def test_queries_are_written_for_passages_then_labelled(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    towns = ("oslo", "bern", "rome", "lima", "cairo", "paris")
    passages = [
        {"_id": f"p{i}", "text": f"the town of {town} has a market where people sell {town} fish"}
        for i, town in enumerate(towns)
    ]
    corpus.write_text("".join(json.dumps(p) + "\n" for p in passages))

    def writes(messages: Any, sample: int) -> str:
        text = messages[-1]["content"]
        town = re.findall(r"town of (\w+)", text)[0]
        if "Passage: " in text and "whole number" in text:
            return "3"
        return f"<answer>what do people sell in {town} of all places?</answer>"

    wanted = {"corpus": str(corpus), "passages": 4, "kinds": ["question"], "depth": 3}
    with Server(ServerSettings(answer=writes)) as server:
        spec = recipe(tmp_path, tiny_model_dir, asking(server, POINT, synthesis=wanted))
        estimate = teach(spec, dry_run=True)
        assert estimate["requests"] == 4
        assert "not counted" in estimate
        with pytest.raises(LimitReached):
            teach(spec, max_requests=6)
        assert teach(spec, dry_run=True)["requests"] == 4 + 12 - 6
        teach(spec)
        sent, before = server.requests, files(tmp_path / "out")
        assert sent == 4 + 12
        teach(spec)
        assert (server.requests, files(tmp_path / "out")) == (sent, before)
    made = lines(tmp_path / "out" / "tasks.jsonl")
    assert len(made) == 4
    assert all(r["metadata"]["kind"] == "question" for r in made)
    assert loaded(tmp_path / "out" / "report.json")["synthesis"]["kept"] == 4


# The command


def test_the_command_stops_at_a_limit_with_one_line_and_goes_on(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    runner, path = CliRunner(), str(tmp_path / "recipe.yaml")
    with good() as server:
        made = content(tmp_path, tiny_model_dir, asking(server, LIST, params={"concurrency": 2}))
        Path(path).write_text(yaml.safe_dump(made))
        stopped = runner.invoke(app, ["teach", path, "--max-requests", "4"])
        assert stopped.exit_code == 2, stopped.output
        last = stopped.stderr.splitlines()[-1]
        assert last.startswith("error: max_requests 4 is reached (") and "raise the limit" in last
        assert "Traceback" not in stopped.stderr
        out = tmp_path / "out"
        assert not (out / "done.json").exists()
        assert len(lines(out / "lessons.jsonl")) == 4
        finished = runner.invoke(app, ["teach", path])
        assert finished.exit_code == 0, finished.output
        assert server.requests == 6
    assert loaded(out / "done.json")["stage"] == "teach"
    assert "good: its first choice" in finished.output
    assert KEY.encode() not in everything(tmp_path)
    for said in (stopped.stdout, stopped.stderr, finished.output):
        assert KEY not in said


def test_a_dead_server_stops_the_run_instead_of_failing_every_item(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rank_rl.teachers.asking.IN_VAIN", 3)
    told = rows(30, "train")
    collection(tmp_path, [*told, *rows(1, "validation"), *rows(1, "test")])
    with good() as server:
        section = asking(server, LIST, params={"retries": 0, "concurrency": 1})
        spec = recipe(tmp_path, tiny_model_dir, section)
    with pytest.raises(BackendError, match=r"3 requests in a row.*--retry-failed"):
        teach(spec)
    assert len(lines(tmp_path / "out" / "failures.jsonl")) == 3
    with good() as server:
        again = recipe(tmp_path, tiny_model_dir, asking(server, LIST, params={"retries": 0}))
        summary = teach(again, retry_failed=True)
        assert server.requests == 30
    assert summary["lessons"] == 30


def test_a_server_that_does_not_say_what_it_used_is_charged_the_most(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with good(usage=False) as server:
        price = {"input": 1.0, "output": 2.0}
        spec = recipe(tmp_path, tiny_model_dir, asking(server, LIST, price=price))
        teach(spec)
        sent = sum(len(json.dumps(b["messages"]).encode()) for b in server.bodies)
    told = loaded(tmp_path / "out" / "ledger.json")
    assert told["tokens_out"] == 6 * LIST["max_tokens"]
    assert told["tokens_in"] > 0.8 * sent
    assert "does not report the tokens" in caplog.text


def test_units_that_a_filter_leaves_without_labels_are_in_the_report(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    silent = [{**LIST, "lesson": False}, {**POINT, "lesson": False}]
    strict = {"questions": ["point", "list"], "least": 1.5}
    section = {"questions": silent, "filters": [{"name": "agreement", "params": strict}]}
    teach(recipe(tmp_path, tiny_model_dir, section))
    report = loaded(tmp_path / "out" / "report.json")
    assert report["counts"]["tasks"] == 0
    assert report["drops"]["dropped"]["agreement"]["units"] == 6
    assert report["status"]["point"]["status"] == {"ok": 24}
