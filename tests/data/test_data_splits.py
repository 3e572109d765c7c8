"""Splits: disjoint, independent of file order, and free of leaks that are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from rank_rl import data
from rank_rl.data.splits import check_leaks, cut, divide, normalised
from rank_rl.data.tasks import write_tasks
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import DataSpec


def task(qid: str, text: str = "", relevant: str = "d0", split: str = "") -> RankingTask:
    return RankingTask(
        query=Query(qid=qid, text=text or f"question {qid}"),
        candidates=(Candidate(docid="d0", text="a"), Candidate(docid="d1", text="b", rank=2)),
        grades={relevant: 1, "zero": 0},
        split=split,
    )


def qids(tasks: tuple[RankingTask, ...]) -> list[str]:
    return [t.query.qid for t in tasks]


def test_query_texts_are_compared_without_case_punctuation_and_width() -> None:
    assert normalised("  Who’s  the KING? ") == normalised("who s the king")
    assert normalised("ＡＢＣ") == "abc"
    assert normalised("father of X") != normalised("father of Y")


def test_leaks_by_id_by_text_and_by_document() -> None:
    train = [task("a"), task("b", "What is X?"), task("c", relevant="d1"), task("d", relevant="e")]
    test = [task("a", "other words"), task("z", "what is x", relevant="e")]
    report = check_leaks(train, test)
    assert (report.qids, report.texts) == (("a",), ("b",))
    assert report.documents == ("d0", "e")
    assert report.removable == {"a", "b"}
    assert report.as_dict() == {
        "shared_qids": ["a"],
        "shared_texts": ["b"],
        "removed_queries": 2,
        "shared_relevant_documents": 2,
    }


def test_leaking_training_queries_are_removed_and_counted(tmp_path: Path) -> None:
    tasks = [
        task("a", split="train"),
        task("b", "Same words?", split="train"),
        task("c", split="train"),
        task("v", "same  WORDS", split="dev"),
        task("z", "same words", split="test"),
    ]
    write_tasks(tmp_path / "t.jsonl", tasks)
    spec = DataSpec(source="jsonl", path=str(tmp_path / "t.jsonl"), validation=0.0)
    collection = data.load(spec, seed=0)
    assert (qids(collection.train), qids(collection.test)) == (["a", "c"], ["z"])
    assert collection.provenance["leaks"]["shared_texts"] == ["b"]
    assert collection.provenance["leaks"]["removed_queries"] == 1
    named = data.load(spec.model_copy(update={"validation_split": "dev"}), seed=0)
    assert (qids(named.validation), named.provenance["leaks"]["shared_texts"]) == ([], ["b", "v"])


def test_training_queries_that_are_in_validation_are_removed() -> None:
    parts = {
        "train": (task("a"), task("b", "Same words?")),
        "dev": (task("v", "same words"),),
        "test": (task("z"),),
    }
    division = divide(parts, DataSpec(source="jsonl", validation_split="dev"), seed=0)
    assert (qids(division.train), qids(division.validation)) == (["a"], ["v"])
    assert division.validation_leaks.texts == ("b",) and not division.leaks.removable


def test_validation_is_a_share_of_train_whatever_the_file_order() -> None:
    train = tuple(task(f"q{i}") for i in range(40))
    spec = DataSpec(source="jsonl", validation=0.25)
    division = divide({"train": train, "test": (task("t"),)}, spec, seed=1)
    turned = divide({"train": train[::-1], "test": (task("t"),)}, spec, seed=1)
    other = divide({"train": train, "test": (task("t"),)}, spec, seed=2)
    assert (len(division.train), len(division.validation)) == (30, 10)
    assert not set(qids(division.train)) & set(qids(division.validation))
    assert qids(division.validation) == sorted(qids(division.validation), key=lambda q: int(q[1:]))
    assert set(qids(turned.validation)) == set(qids(division.validation))
    assert set(qids(other.validation)) != set(qids(division.validation))


@pytest.mark.parametrize("seed", range(5))
def test_validation_shares_no_relevant_document_with_training(seed: int) -> None:
    # Families of three: q0 and q1 share d0, q1 and q2 share e0, and so on.
    pairs = [("d{}", "x{}"), ("d{}", "e{}"), ("e{}", "y{}")]
    train = tuple(
        RankingTask(
            query=Query(qid=f"q{3 * f + i}", text=f"question {f} {i}"),
            candidates=(Candidate(docid="a", text="a"),),
            grades={name.format(f): 1 for name in names} | {"a": 0},
        )
        for f in range(10)
        for i, names in enumerate(pairs)
    )
    spec = DataSpec(source="jsonl", validation=0.34)
    division = divide({"train": train, "test": ()}, spec, seed=seed)
    assert len(division.validation) == 9 and not division.validation_leaks.documents
    turned = divide({"train": train[::-1], "test": ()}, spec, seed=seed)
    assert set(qids(turned.validation)) == set(qids(division.validation))


def test_interwoven_queries_are_divided_all_the_same_with_a_warning(caplog) -> None:
    train = tuple(task(f"q{i}") for i in range(12))
    division = divide(
        {"train": train, "test": ()}, DataSpec(source="jsonl", validation=0.25), seed=0
    )
    assert (len(division.train), len(division.validation)) == (9, 3)
    assert division.validation_leaks.documents == ("d0",)
    assert "what validation says is too good" in caplog.text


def test_a_cut_keeps_file_order_and_a_smaller_cut_is_part_of_it() -> None:
    tasks = tuple(task(f"q{i}") for i in range(30))
    ten, five = cut(tasks, 10, seed=4), cut(tasks, 5, seed=4)
    assert len(ten) == 10 and set(qids(five)) < set(qids(ten))
    assert qids(ten) == sorted(qids(ten), key=lambda q: int(q[1:]))
    assert qids(ten) != qids(tasks[:10])
    assert cut(tasks, None, seed=4) == cut(tasks, 99, seed=4) == tasks


def test_limits_apply_to_each_part() -> None:
    parts = {
        "train": tuple(task(f"q{i}") for i in range(20)),
        "test": tuple(task(f"t{i}") for i in range(9)),
    }
    spec = DataSpec(source="jsonl", validation=0.5, max_train=3, max_validation=2, max_test=4)
    division = divide(parts, spec, seed=0)
    assert (len(division.train), len(division.validation), len(division.test)) == (3, 2, 4)


def test_a_named_split_must_exist() -> None:
    spec = DataSpec(source="jsonl", validation_split="dev")
    with pytest.raises(DataError, match=r"data\.validation_split: no split 'dev'.*test, train"):
        divide({"train": (task("a"),), "test": (task("b"),)}, spec, seed=0)
