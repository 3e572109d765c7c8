"""Traps of stage teach: data that would be wrong without a word, and money paid twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai_server import Server, ServerSettings
from teach_runs import FUSION, LIST, POINT, collection, endpoint, judged, recipe, rows

from rank_rl.data.tasks import read_tasks
from rank_rl.errors import BackendError, DataError, RankRLError, RecipeError
from rank_rl.teachers.run import Options, run
from rank_rl.teachers.store import Store

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK_RL_TEST_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def answering(answer: Callable[..., str]) -> Server:
    return Server(ServerSettings(answer=answer, key=KEY))


def asked(server: Server, *questions: Any, **more: Any) -> dict[str, Any]:
    params = more.pop("params", {})
    return {
        "teachers": {"main": endpoint(server.url, **params)},
        "questions": list(questions),
        **more,
    }


def test_tasks_of_shuffled_draws_are_in_first_stage_order(tiny_model_dir: Path, tmp_path: Path):
    sampler = {"name": "groups", "size": 3, "per_query": 4, "shuffle": True}
    short = {**POINT, "name": "short", "documents": "shortlist", "size": 2}
    section = {"questions": [LIST, short], "units": "draws"}
    run(recipe(tmp_path, tiny_model_dir, section, data={"sampler": sampler}), {})
    tasks = read_tasks(tmp_path / "out" / "tasks.jsonl")  # refuses ranks that do not rise
    assert len(tasks) > 10
    shown = [x["ranks"] for x in lines(tmp_path / "out" / "lessons.jsonl") if len(x["ranks"]) == 3]
    assert any(ranks != sorted(ranks) for ranks in shown), "prompts show them in random order"
    drawn = {tuple(sorted(ranks)) for ranks in shown}
    exchanges = lines(tmp_path / "out" / "exchanges.jsonl")
    by_unit: dict[str, int] = {}
    for exchange in exchanges:
        by_unit[exchange["unit"]] = by_unit.get(exchange["unit"], 0) + 1
    assert set(by_unit.values()) == {3} and drawn  # a list, and the two best of the first stage


@pytest.mark.parametrize(
    "said", ["<think>x</think><answer>[2]</answer>", "<think>x</think><answer>[2] > [1] > "]
)
def test_an_answer_that_leaves_documents_out_gives_no_label_and_no_lesson(
    tiny_model_dir: Path, tmp_path: Path, said: str
):
    with answering(lambda messages, sample=0: said) as server:
        run(recipe(tmp_path, tiny_model_dir, asked(server, LIST)), {})
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert (report["counts"]["lessons"], report["counts"]["tasks"]) == (0, 0)
    assert report["drops"]["dropped"]["readable"]["dropped"] == 6


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1e"])
def test_reports_stay_json_whatever_separators_a_model_writes(
    tiny_model_dir: Path, tmp_path: Path, odd: str
):
    said = f"<think>one{odd}two</think><answer>[1] > [2] > [3] > [4]</answer>"
    with answering(lambda messages, sample=0: said) as server:
        section = asked(server, LIST, filters=[{"name": "copied"}])
        run(recipe(tmp_path, tiny_model_dir, section), {})
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["drops"]["dropped"]["copied"]["dropped"] == 6
    assert odd in report["drops"]["dropped"]["copied"]["examples"][0]["text"]


def test_imported_orders_and_ties_keep_a_last_place_that_is_not_relevant(
    tiny_model_dir: Path, tmp_path: Path
):
    passages = "\n".join(f"[{i}] text of passage number {i}" for i in (1, 2, 3))
    user = f"<Query>: what is it\n\n<Documents>:\n{passages}"
    answers = ("[2] > [1] > [3]", "[2] = [1] > [3]", "[2](3) > [1](2) > [3](0)")
    chats = [
        {"messages": [{"role": "user", "content": user.replace("what", f"what {i}")},
                      {"role": "assistant", "content": f"<think>why</think>\n{a}"}]}
        for i, a in enumerate(answers)
    ]  # fmt: skip
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(c) + "\n" for c in chats))
    section = {"questions": [], "imports": [{"name": "think_chat", "path": str(path)}]}
    run(recipe(tmp_path, tiny_model_dir, section), {})
    grades = [sorted(t.grades.values()) for t in read_tasks(tmp_path / "out" / "tasks.jsonl")]  # type: ignore[union-attr]
    assert grades == [[0, 1, 2], [0, 1, 1], [0, 2, 3]]


def test_a_second_run_in_the_same_folder_is_refused(tiny_model_dir: Path, tmp_path: Path):
    held = Store(tmp_path / "out" / "store")
    spec = recipe(tmp_path, tiny_model_dir, {"questions": [LIST]})
    with pytest.raises(DataError, match="another run is at work"):
        run(spec, {})
    held.close()
    assert run(spec, {})["lessons"] == 6


def test_models_of_one_name_on_two_servers_are_not_taken_for_each_other(
    tiny_model_dir: Path, tmp_path: Path
):
    teachers = {"main": endpoint("http://a/v1"), "other": endpoint("http://b/v1")}
    section = {"questions": [LIST, {**POINT, "teacher": "other"}], "teachers": teachers}
    with pytest.raises(RecipeError, match="same model on different servers"):
        run(recipe(tmp_path, tiny_model_dir, section), {})


def test_a_recipe_that_holds_the_value_of_a_key_is_refused(tiny_model_dir: Path, tmp_path: Path):
    section = {"teachers": {"main": endpoint("http://a/v1", extra={"user": f"me {KEY}"})}}
    with pytest.raises(RecipeError, match="value of RANK_RL_TEST_KEY") as caught:
        run(recipe(tmp_path, tiny_model_dir, section), {})
    assert KEY not in caught.value.line()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "section",
    [
        {"filters": [{"name": "length", "params": {"least": "abc"}}]},
        {"filters": [{"name": "agreement", "params": {"questions": ["list"]}}]},
        {"labels": {"name": "rank", "params": {"top": "a"}}},
        {"labels": {"name": "fusion", "params": {"questions": []}}},
        {"imports": [{"name": "reasons", "path": "nowhere.jsonl"}]},
    ],
)
def test_what_is_used_last_is_checked_first(
    tiny_model_dir: Path, tmp_path: Path, section: dict[str, Any]
):
    with answering(judged) as server:
        spec = recipe(tmp_path, tiny_model_dir, asked(server, LIST, **section))
        with pytest.raises(RankRLError):
            run(spec, {})
        assert server.requests == 0


def test_an_estimate_for_failed_requests_counts_them(tiny_model_dir: Path, tmp_path: Path):
    settings = ServerSettings(answer=judged, key=KEY, fault_rate=1.0, faults=("error_500",))
    with Server(settings) as bad:
        spec = recipe(tmp_path, tiny_model_dir, asked(bad, LIST, params={"retries": 0}))
        with pytest.raises(BackendError, match=r"6 requests were given up.*--retry-failed"):
            run(spec, {})
        assert run(spec, {}, Options(dry_run=True))["requests"] == 0
        again = Options(dry_run=True, retry_failed=True)
        assert run(spec, {}, again)["requests"] == 6


def test_failures_of_another_recipe_are_not_reported_again(tiny_model_dir: Path, tmp_path: Path):
    settings = ServerSettings(answer=judged, key=KEY, fault_rate=1.0, faults=("error_500",))
    with Server(settings) as bad:
        spec = recipe(tmp_path, tiny_model_dir, asked(bad, LIST, params={"retries": 0}))
        with pytest.raises(BackendError):
            run(spec, {})
    with answering(judged) as good:
        changed = {**LIST, "max_tokens": LIST["max_tokens"] + 1}
        summary = run(recipe(tmp_path, tiny_model_dir, asked(good, changed)), {})
    assert summary["requests"]["given_up"] == 0
    assert lines(tmp_path / "out" / "failures.jsonl") == []


def test_queries_that_cannot_be_read_are_in_the_files(tiny_model_dir: Path, tmp_path: Path):
    corpus = tmp_path / "corpus.jsonl"
    texts = [f"passage {i} tells of the market in town number {i} at length" for i in range(3)]
    corpus.write_text(
        "".join(json.dumps({"_id": str(i), "text": t}) + "\n" for i, t in enumerate(texts))
    )
    wanted = {"corpus": str(corpus), "passages": 3, "kinds": ["question"], "depth": 3}
    with answering(lambda messages, sample=0: "<answer>?</answer>") as server:
        spec = recipe(tmp_path, tiny_model_dir, asked(server, POINT, synthesis=wanted))
        with pytest.raises(DataError, match="no query was left"):
            run(spec, {})
    exchanges = lines(tmp_path / "out" / "exchanges.jsonl")
    assert [e["question"] for e in exchanges] == ["query_question"] * 3
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["status"]["query_question"]["status"] == {"failed": 3}
    assert "query_question" in report["source"]["prompt versions"]


def test_a_fusion_leaves_units_out_where_one_answer_is_cut_off(
    tiny_model_dir: Path, tmp_path: Path
):
    collection(tmp_path, [*rows(4, "train"), *rows(1, "validation"), *rows(1, "test")])

    def says(messages: Any, sample: int = 0) -> str:
        text = judged(messages, sample)
        cut = "street 0 " in messages[-1]["content"] and "[1]" in text
        return text[: text.index("[1]")] if cut else text

    with answering(says) as server:
        section = asked(server, LIST, POINT, labels=FUSION)
        run(recipe(tmp_path, tiny_model_dir, section), {})
    tasks = read_tasks(tmp_path / "out" / "tasks.jsonl")
    assert [t.query.qid for t in tasks] == ["train1", "train2", "train3"]
