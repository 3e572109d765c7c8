"""Stage sft does not train on lessons that ``data.leaks`` filters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rank_rl.data import lessons
from rank_rl.data.lessons import Lesson, as_record
from rank_rl.records import Candidate, Order, Query, numbered
from rank_rl.specs import RecipeSpec
from rank_rl.training import common, sft

DOCUMENTS = [Candidate(docid=f"d{i}", text=f"text {i}", rank=i) for i in (1, 2)]
TEST = "which house of test street 0 is red?"


def lesson(qid: str, text: str) -> Lesson:
    view = numbered(Query(qid=qid, text=text), DOCUMENTS)
    return Lesson(view=view, answer=Order(docids=("d2", "d1")), reasoning="so it is")


def test_filtered_lessons_are_left_out(recipe: Callable[..., RecipeSpec], tmp_path: Path) -> None:
    taught = [lesson("a", f"Tell me, {TEST}"), lesson("b", "who wrote it?"), lesson("c", TEST)]
    lessons.write(tmp_path / "lessons.jsonl", map(as_record, taught))
    named = {"lessons": str(tmp_path / "lessons.jsonl")}
    for action, leaking in (("report", {}), ("filter", {"leaking": 1})):
        made = recipe(data={**named, "leaks": {"action": action}})
        stage = common.begin("sft", made, {})
        rows, report = sft.lesson_rows(stage)
        assert report["lessons"] == {"read": 3, "held_out": 1, "not_in_format": 0, **leaking}
        assert len(rows) == 2 - len(leaking)
        assert stage.collection.provenance["leaks"]["overlap"]["leaking_samples"] == 1
