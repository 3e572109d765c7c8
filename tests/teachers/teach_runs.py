"""What the tests of stage teach share: a collection, recipes, a server's answers, trails."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from small_recipes import tasks as rows

from rank_rl.records import (
    Candidate,
    Completion,
    Order,
    Outcome,
    Query,
    Ranking,
    RankingTask,
    Scores,
    View,
    numbered,
)
from rank_rl.specs import RecipeSpec
from rank_rl.teachers.units import Answer, Answered, Trail, Unit

# What says how a run went, not what came of it.
HOW = ("ledger.json", "done.json", "provenance.json")
KEY = "sk-verysecret-0123456789"
ORACLE = {"name": "oracle"}
LIST = {
    "name": "list",
    "format": {"name": "permutation", "mode": "reason", "doc_tokens": 32, "prompt_tokens": 1600},
    "max_tokens": 64,
}
POINT = {
    "name": "point",
    "format": {"name": "pointwise", "mode": "answer", "doc_tokens": 32, "prompt_tokens": 1600},
    "strategy": {"name": "by_score", "params": {"size": 1}},
    "max_tokens": 8,
}
FUSION = {"name": "fusion", "params": {"questions": ["point", "list"]}}


def collection(folder: Path, lines: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """``tasks.jsonl`` of a folder; six training, one validation and two test queries by default."""
    lines = lines or [*rows(6, "train"), *rows(1, "validation"), *rows(2, "test")]
    file = folder / "tasks.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def content(folder: Path, model: Path, teach: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """A recipe as it would stand in a file; it reads and writes in ``folder``."""
    if not (folder / "tasks.jsonl").exists():
        collection(folder)
    made: dict[str, Any] = {
        "run": {"name": "lesson test", "output_dir": str(folder / "out"), "seed": 3},
        "model": {"name": str(model), "autocast": "off"},
        "data": {
            "source": "jsonl",
            "path": str(folder / "tasks.jsonl"),
            "validation_split": "validation",
            "first_stage": {"name": "given"},
            "sampler": {"name": "pool", "size": 3},
        },
        "format": LIST["format"],
        "teach": {"teachers": {"main": ORACLE}, "questions": [LIST], **teach},
    }
    for name, values in sections.items():
        made[name] = {**made.get(name, {}), **values}
    return made


def recipe(folder: Path, model: Path, teach: Mapping[str, Any], **sections: Any) -> RecipeSpec:
    """The same, checked."""
    return RecipeSpec.model_validate(content(folder, model, teach, **sections))


def endpoint(
    url: str, *, price: Mapping[str, float] | None = None, **params: Any
) -> dict[str, Any]:
    """A teacher on a server of the tests."""
    given = {"base_url": url, "api_key_env": "RANK_RL_TEST_KEY", "retries": 2, **params}
    return {"name": "endpoint", "model": "tiny", "price": dict(price or {}), "params": given}


def judged(messages: Sequence[Mapping[str, str]], sample: int = 0) -> str:
    """What a good teacher answers about the colours; the sample shows in the reasoning."""
    text = messages[-1]["content"]
    wanted = re.findall(r" is (\w+)\?", text)[0]
    passage = re.search(r"Passage: the house is (\w+)", text)
    if passage:
        return "3" if passage[1] == wanted else str(len(passage[1]) % 3)
    shown = dict(re.findall(r"\[(\d+)\] the house is (\w+)", text))
    labels = sorted(shown, key=lambda label: shown[label] != wanted)
    order = " > ".join(f"[{label}]" for label in labels)
    if "<answer>" in text:
        return f"<think>\n{'so ' * sample}the {wanted} one\n</think>\n<answer>{order}</answer>"
    return order


def files(folder: Path) -> dict[str, bytes]:
    """What came of a run, by file name: everything but the store and how the run went."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name not in HOW}


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file, split as JSON readers split it."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def loaded(path: Path) -> dict[str, Any]:
    """A JSON file."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


# Trails made by hand


def task(count: int, grades: Mapping[str, int] | None = None, qid: str = "q1") -> RankingTask:
    """Documents d1 … dn in first-stage order."""
    candidates = tuple(
        Candidate(docid=f"d{i}", text=f"text {i}", rank=i) for i in range(1, count + 1)
    )
    return RankingTask(query=Query(qid=qid, text="why?"), candidates=candidates, grades=grades)


def answer(view: View, said: Order | Scores | None, length: int = 0, **told: Any) -> Answer:
    outcome = Outcome(status="failed" if said is None else "ok", answer=said, **told)
    completion = Completion(text="x" * length)
    return Answer(view=view, outcome=outcome, completion=completion, key="k")


def listed(
    about: RankingTask, order: str, *, name: str = "list", sample: int = 0, length: int = 0
) -> Trail:
    """One listwise answer, ``"2 1 3"``; "" could not be read."""
    docids = tuple(f"d{n}" for n in order.split())
    view = numbered(about.query, about.candidates)
    said = Order(docids=docids) if docids else None
    ranking = Ranking(qid=about.query.qid, docids=docids or about.docids)
    return Trail(
        question=name,
        sample=sample,
        ranking=ranking,
        answers=(answer(view, said, length),),
        kind="permutation",
    )


def pointed(
    about: RankingTask, scores: Mapping[str, float | None], *, name: str = "point"
) -> Trail:
    """A pointwise answer a document; None could not be read."""
    by_docid = {c.docid: c for c in about.candidates}
    answers = []
    for docid, score in scores.items():
        view = numbered(about.query, (by_docid[docid],))
        answers.append(answer(view, None if score is None else Scores(values={docid: score})))
    order = sorted(scores, key=lambda d: (-(scores[d] or 0.0), by_docid[d].rank))
    ranking = Ranking(qid=about.query.qid, docids=tuple(order))
    return Trail(question=name, sample=0, ranking=ranking, answers=tuple(answers), kind="pointwise")


def answered(about: RankingTask, *trails: Trail) -> Answered:
    """All trails about a unit, each chosen."""
    by_name: dict[str, tuple[Trail, ...]] = {}
    for trail in trails:
        by_name[trail.question] = (*by_name.get(trail.question, ()), trail)
    return Answered(unit=Unit(uid=about.query.qid, task=about), drawn=by_name, chosen=by_name)
