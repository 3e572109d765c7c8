"""Rows that are no checkpoint: a teacher behind a real loopback server, and cross-encoders."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from encoders import save_bert
from mortal_server import Mortal, free_port
from openai_server import Fixed, Server, ServerSettings

from rank_rl.bench.run import run
from rank_rl.bench.setting import settled
from rank_rl.data.tasks import write_tasks
from rank_rl.errors import BackendError, ModelError, RecipeError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import RecipeSpec

pytest.importorskip("openai")
pytest.importorskip("sentence_transformers")

INFO = {"hash": "abc123", "path": "recipes/x/bench.yaml", "versions": {}, "git": None}
QUERIES, DEPTH = 6, 12


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-Zy8secretQ")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def tasks() -> list[RankingTask]:
    """The relevant document of query i is the one worth most, at a rank that depends on i."""
    return [
        RankingTask(
            query=Query(qid=f"q{i}", text=f"which house is worth most, {i}?"),
            candidates=tuple(
                Candidate(
                    docid=f"q{i}-{j}", text=f"house {i} {j} worth {(j + i) % DEPTH}", rank=j + 1
                )
                for j in range(DEPTH)
            ),
            grades={f"q{i}-{DEPTH - 1 - i}": 1},
        )
        for i in range(QUERIES)
    ]


def judge(messages: Any, sample: int = 0) -> str:
    """An order by worth."""
    shown = re.findall(r"\[(\d+)\] house \d+ \d+ worth (\d+)", messages[-1]["content"])
    order = sorted(shown, key=lambda pair: -int(pair[1]))
    return " > ".join(f"[{label}]" for label, _ in order)


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    write_tasks(tmp_path / "test.jsonl", tasks())
    return {
        "run": {"name": "others", "output_dir": str(tmp_path / "out"), "seed": 3},
        "model": {"name": str(tiny_model_dir), "autocast": "off"},
        "data": {
            "source": "jsonl",
            "params": {"test": str(tmp_path / "test.jsonl")},
            "train_split": "",
            "validation": 0.0,
        },
        "format": {"name": "permutation", "mode": "answer", "doc_tokens": 24},
        "bench": {
            "metrics": ["ndcg@10"],
            "systems": [{"name": "first stage", "kind": "first_stage"}],
            "baselines": ["first stage"],
            "samples": 100,
            "report": False,
        },
    }


def teacher(url: str, **values: Any) -> dict[str, Any]:
    params = {"base_url": url, "concurrency": 2, "retries": 0, **values.pop("params", {})}
    sliding = {"name": "sliding", "params": {"window": 6, "step": 3}}
    known = {"name": "teacher", "kind": "endpoint", "model": "tiny", "strategy": sliding}
    return {**known, "params": params, **values}


def bench(recipe: dict[str, Any], *systems: dict[str, Any]) -> dict[str, Any]:
    first = recipe["bench"]["systems"][:1]
    content = {**recipe, "bench": {**recipe["bench"], "systems": [*first, *systems]}}
    summary = run(RecipeSpec.model_validate(content), INFO)
    return dict(json.loads(Path(summary["result"]).read_text(encoding="utf-8")))


def row(result: dict[str, Any], name: str = "teacher") -> dict[str, Any]:
    return next(s for s in result["systems"] if s["name"] == name)


def test_a_teacher_is_a_row_with_its_costs_and_files(recipe, tmp_path):
    with Server(ServerSettings(answer=judge)) as server:
        result = bench(recipe, teacher(server.url, max_new_tokens=99))
        counts = server.counts()
    found = row(result)
    assert found["metrics"]["ndcg@10"]["mean"] == 1.0
    assert found["costs"]["calls"] == found["costs"]["depth"] == 3  # windows of one pass
    assert counts["requests"] == counts["successes"] == 3 * QUERIES
    assert {b["max_tokens"] for b in server.bodies} == {99}
    assert found["costs"]["completion_tokens"] == 3 * 11 and found["costs"]["prompt_tokens"] > 0
    assert found["statuses"]["failed"] == 0 and found["failure_rate"] == 0.0
    # The name that the server answered under pins the model; no address is in the result.
    assert found["model"] == {"name": "tiny", "revision": "tiny", "contract": ""}
    assert found["setting"] == {
        "format": "permutation/default@1",
        "mode": "answer",
        "strategy": "sliding",
        "readout": "decoded",
        "reasoning": "",
    }
    assert "127.0.0.1" not in json.dumps(result) and "sk-Zy8secretQ" not in json.dumps(result)
    lines = (tmp_path / "out" / "exchanges" / "teacher.jsonl").read_text().splitlines()
    assert len(lines) == 3 * QUERIES
    assert json.loads(lines[0])["completion"]["prompt_tokens"] > 0


def test_a_teacher_that_dies_is_asked_nothing_twice(recipe, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    out = tmp_path / "out"
    alone = {
        "format": {"name": "permutation", "doc_tokens": 24},
        "strategy": {"name": "sliding", "params": {"window": 3, "step": 2}},
    }
    recipe["bench"]["batch_size"] = 2  # queries that are kept together
    words = "no answer: connection.*what was answered before is kept"
    with Mortal(port, 11, judge) as first, pytest.raises(BackendError, match=words):
        bench(recipe, teacher(url, **alone))
    assert not (out / "result.json").exists()
    with Mortal(port, 10_000, judge) as second:
        result = bench(recipe, teacher(url, **alone))
        counts = second.counts()
    total = row(result)["costs"]["calls"] * QUERIES
    assert sum(first.successes.values()) == 11
    assert counts["requests"] == counts["successes"] == total - 11
    assert not first.successes.keys() & second.successes.keys()
    assert row(result)["statuses"] == {"ok": total, "repaired": 0, "failed": 0}
    assert total == 6 * QUERIES
    # All of it is kept now: a bench that is run again, or with another metric, asks nobody.
    bench(recipe, teacher(url, **alone))
    (out / "systems" / "teacher.json").unlink()
    again = bench(recipe, teacher(url, **alone))
    assert again["per_query"] == result["per_query"]
    assert row(again)["costs"] == row(result)["costs"]


def test_garbage_and_refusals_are_counted_and_keep_the_first_stage(recipe):
    refused = Fixed(status=400, body={"error": {"message": "no"}})
    script = (refused, "", "")
    with Server(ServerSettings(answer=lambda m, s: "Nice ones.", script=script)) as server:
        result = bench(recipe, teacher(server.url, strategy={"name": "single"}))
    found = row(result)
    assert found["statuses"] == {"ok": 0, "repaired": 0, "failed": QUERIES}
    assert found["failure_rate"] == 1.0
    assert found["issues"]["no_answer"] == 1
    first = row(result, "first stage")["metrics"]["ndcg@10"]["mean"]
    assert found["metrics"]["ndcg@10"]["mean"] == pytest.approx(first)


def test_a_wrong_key_is_one_line_before_other_questions(recipe):
    with Server(ServerSettings(answer=judge, key="another")) as server:
        with pytest.raises(BackendError, match="unauthorised: 401 .*set OPENAI_API_KEY"):
            bench(recipe, teacher(server.url))
        assert server.requests == 0


def test_the_same_documents_are_shown_as_to_the_student(recipe, tiny_model_dir):
    from rank_rl.models.counting import Rough, token_counter

    long = " ".join(["antidisestablishmentarianism"] * 30)
    task = tasks()[0]
    cut = RankingTask(
        query=task.query,
        candidates=(Candidate(docid="a", text=long, rank=1), *task.candidates[1:]),
        grades=task.grades,
    )
    write_tasks(Path(recipe["data"]["params"]["test"]), [cut])
    student = {"name": "student", "kind": "text", "model": str(tiny_model_dir), "max_new_tokens": 2}
    student["strategy"] = {"name": "single"}
    with Server(ServerSettings(answer=judge)) as server:
        bench(recipe, student, teacher(server.url, strategy={"name": "single"}))
        recipe["model"]["name"] = "outputs/not/there"
        bench(recipe, teacher(server.url, name="guessed", strategy={"name": "single"}))
        exact, rough = (b["messages"] for b in server.bodies)
    out = Path(recipe["run"]["output_dir"]) / "exchanges" / "student.jsonl"
    (line,) = out.read_text().splitlines()
    assert json.loads(line)["prompt"]["messages"] == exact
    own = token_counter(str(tiny_model_dir))[0]
    words = [m[-1]["content"].partition("[1] ")[2].partition("\n")[0] for m in (exact, rough)]
    assert len(own.encode(words[0])) <= 24 and len(Rough().encode(words[1])) <= 24
    assert words[0] != words[1]


def test_latency_is_measured_by_asking_again(recipe):
    recipe["bench"]["latency"] = 2
    with Server(ServerSettings(answer=judge, delay=0.05)) as server:
        result = bench(recipe, teacher(server.url, strategy={"name": "single"}))
        assert server.requests >= QUERIES + 2
    assert row(result)["latency"]["queries"] == 2


YES_NO = {"name": "pointwise", "wording": "yes_no", "params": {"labels": ["no", "yes"]}}


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ({"format": {"name": "slots"}}, "no format for kind endpoint"),
        ({"readout": "guided"}, "readout 'guided' with format 'permutation'"),
        ({"format": {"name": "permutation"}, "reasoning": "skip"}, "no reasoning to skip"),
        ({"params": {"temperatur": 1}}, "unknown parameter 'temperatur'.*nearest: temperature"),
        ({"params": {"temperature": "warm"}}, "temperature is out of range"),
        ({"params": {"max_new_tokens": 3}}, "unknown parameter 'max_new_tokens'"),
        ({"params": {"tokenizer": "no/where/to/be/found"}}, "no tokenizer 'no/where"),
        ({"params": {"base_url": "ftp://x"}}, "base_url is not a URL"),
        ({"strategy": {"name": "by_score"}, "format": YES_NO}, "one document at a time"),
        ({"strategy": {"name": "by_score", "params": {"size": 1}}}, "no scores to compare"),
    ],
)
def test_what_a_teacher_cannot_be_asked_is_found_before_anything_is(recipe, system, words):
    with Server() as server:
        with pytest.raises(RecipeError, match=words):
            bench(recipe, teacher(server.url, **system))
        assert server.requests == 0
    assert not (Path(recipe["run"]["output_dir"]) / "systems").exists()


def test_keys_are_no_part_of_a_recipe():
    with pytest.raises(ValueError, match="'api_key' does not belong into a recipe"):
        RecipeSpec.model_validate(
            {
                "run": {"name": "x", "output_dir": "out"},
                "model": {"name": "m"},
                "data": {"source": "jsonl"},
                "format": {"name": "permutation"},
                "bench": {"systems": [teacher("http://x/v1", params={"api_key": "sk-1234567890"})]},
            }
        )


def test_how_others_are_asked_is_known_without_fetching(recipe):
    rows = [teacher("http://x/v1"), {"name": "ce", "kind": "cross_encoder", "model": "owner/name"}]
    content = {**recipe, "bench": {"systems": rows}}
    spec = RecipeSpec.model_validate(content)
    how = [settled(system, spec) for system in spec.bench.systems]
    assert [h.strategy.name for h in how] == ["sliding", "by_score"]
    assert [h.readout for h in how] == ["decoded", "score"]
    assert how[0].max_new_tokens == 2048  # room to think


def test_a_teachers_labels_are_read_off_log_probabilities(recipe):
    def answer(messages: Any, sample: int = 0) -> str:
        (worth,) = re.findall(r"worth (\d+)", messages[-1]["content"])
        return "yes" if int(worth) == DEPTH - 1 else "no"

    alone = {"strategy": {"name": "by_score", "params": {"size": 1}}, "format": YES_NO}
    with Server(ServerSettings(answer=answer)) as server:
        result = bench(recipe, teacher(server.url, readout="score", **alone))
        assert {(b["max_tokens"], b["top_logprobs"]) for b in server.bodies} == {(1, 20)}
    assert row(result)["metrics"]["ndcg@10"]["mean"] == 1.0
    assert row(result)["setting"]["readout"] == "score"


# Cross-encoders


def test_a_cross_encoder_is_a_row_that_cannot_be_unreadable(recipe, tmp_path):
    bert = str(save_bert(tmp_path / "bert", classifier=True))
    known = {"name": "ce", "kind": "cross_encoder", "model": bert}
    result = bench(recipe, {**known, "params": {"max_length": 16, "batch_size": 8}})
    found = row(result, "ce")
    assert found["costs"]["calls"] == DEPTH and found["costs"]["depth"] == 1
    assert 0 < found["costs"]["prompt_tokens"] <= 16 * DEPTH
    assert found["costs"]["completion_tokens"] == 0 and found["failure_rate"] is None
    assert found["model"]["revision"].startswith("files:")
    assert found["setting"]["format"].startswith("sentence-transformers ")
    assert (found["setting"]["strategy"], found["setting"]["readout"]) == ("by_score", "score")
    assert found["cuts"]["documents"] == QUERIES * DEPTH
    lines = (tmp_path / "out" / "exchanges" / "ce.jsonl").read_text().splitlines()
    assert len(lines) == QUERIES * DEPTH
    values = json.loads(lines[0])["outcome"]["answer"]["values"]
    assert list(values) == ["q0-0"] and isinstance(values["q0-0"], float)


def test_a_cross_encoder_is_asked_again_when_it_has_changed(recipe, tmp_path):
    bert = save_bert(tmp_path / "bert", classifier=True)
    known = {"name": "ce", "kind": "cross_encoder", "model": str(bert)}
    record = tmp_path / "out" / "systems" / "ce.json"

    def written() -> int:
        bench(recipe, known)
        return record.stat().st_mtime_ns

    first = written()
    assert written() == first
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert written() != first


def test_what_is_wrong_with_a_cross_encoder_is_found_before_anything_is_asked(
    recipe, tmp_path, monkeypatch
):
    bert = str(save_bert(tmp_path / "bert", classifier=True))
    known = {"name": "ce", "kind": "cross_encoder", "model": bert}
    with pytest.raises(RecipeError, match="unknown parameter 'max_lenght'.*nearest: max_length"):
        bench(recipe, {**known, "params": {"max_lenght": 3}})
    with pytest.raises(RecipeError, match="max_length"):
        bench(recipe, {**known, "params": {"max_length": "long"}})
    with pytest.raises(ModelError, match="no such folder"):
        bench(recipe, {**known, "model": str(tmp_path / "gone")})
    with pytest.raises(ModelError, match="unset HF_HUB_OFFLINE"):
        bench(recipe, {**known, "model": "owner/name-that-is-not-here"})
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(RecipeError, match=r"pip install 'rank-rl\[baselines\]'"):
        bench(recipe, known)
    assert not (tmp_path / "out" / "systems").exists()
