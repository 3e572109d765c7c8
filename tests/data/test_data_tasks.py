"""Ranking tasks as JSONL: an exact round trip, and errors that name file, line and key."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_rl import data
from rank_rl.data.tasks import read_tasks, write_tasks
from rank_rl.errors import DataError, StorageError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import DataSpec, FirstStageSpec

LINE = (
    '{"qid": "q1", "query": "who?", "instruction": "Find facts.", "metadata": {"answer": "x"}, '
    '"candidates": [{"docid": "a", "text": "A."}, {"docid": "b", "text": "B.", "title": "T", '
    '"rank": 5, "score": 1.5}], "grades": {"a": 2, "c": 1}, "source": "s", "split": "train"}'
)
TASK = RankingTask(
    query=Query(qid="q1", text="who?", instruction="Find facts.", metadata={"answer": "x"}),
    candidates=(
        Candidate(docid="a", text="A.", rank=1),
        Candidate(docid="b", text="B.", title="T", rank=5, score=1.5),
    ),
    grades={"a": 2, "c": 1},
    source="s",
    split="train",
)


def test_a_line_of_the_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text("\ufeff" + LINE + "\n\n", encoding="utf-8")
    assert read_tasks(path) == [TASK]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda s: s.strip()
)


@st.composite
def ranking_tasks(draw: st.DrawFn) -> RankingTask:
    docids = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)
    return RankingTask(
        query=Query(
            qid=draw(names),
            text=draw(texts),
            instruction=draw(st.none() | texts),
            metadata=draw(st.dictionaries(names, texts | st.lists(st.integers()), max_size=2)),
        ),
        candidates=tuple(
            Candidate(docid=d, text=draw(texts), title=draw(texts), rank=i, score=draw(scores))
            for i, d in enumerate(docids, 1)
        ),
        grades=draw(st.none() | st.dictionaries(names, st.integers(-2, 5), max_size=4)),
        source=draw(texts),
        split=draw(texts),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(ranking_tasks(), min_size=1, max_size=3))
def test_written_and_read_again_is_the_same(tasks: list[RankingTask]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "tasks.jsonl"
        write_tasks(path, tasks)
        assert read_tasks(path) == tasks
        assert [p.name for p in path.parent.iterdir()] == ["tasks.jsonl"]


def spoiled(**changes: object) -> str:
    record = {**json.loads(LINE), **changes}
    return json.dumps({k: v for k, v in record.items() if v != "absent"})


WRONG = {
    "unknown key": (spoiled(grade={}), "unknown key 'grade'"),
    "no qid": (spoiled(qid="absent"), "no identifier; expected key qid"),
    "no query": (spoiled(query="absent"), "no text; expected key query"),
    "no candidates": (spoiled(candidates=[]), "no candidates"),
    "candidates are text": (spoiled(candidates="a"), "no candidates; expected a list of objects"),
    "candidate key": (spoiled(candidates=[{"docid": "a", "txt": "A"}]), "unknown key 'txt'"),
    "candidate text": (spoiled(candidates=[{"docid": "a"}]), "candidate 1: no text"),
    "docid twice": (spoiled(candidates=[{"docid": "a", "text": ""}] * 2), "'a' appears twice"),
    "rank falls": (
        spoiled(candidates=[{"docid": d, "text": "", "rank": 2} for d in "ab"]),
        "candidate 2: rank 2; expected an integer, 3 or more",
    ),
    "score": (spoiled(candidates=[{"docid": "a", "text": "", "score": "1"}]), "score '1'"),
    "grade": (spoiled(grades={"a": 1.5}), "grade of 'a' is 1.5; expected integer"),
    "grades": (spoiled(grades=[1]), "grades is [1]; expected an object"),
    "not json": ("{'qid': 1}", "invalid JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_lines_are_named(name: str, tmp_path: Path) -> None:
    line, message = WRONG[name]
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"{LINE}\n{line}\n")
    with pytest.raises(DataError) as raised:
        read_tasks(path)
    assert "tasks.jsonl:2" in str(raised.value) and message in str(raised.value)


def test_files_for_each_part_and_order_of_the_file(tmp_path: Path) -> None:
    for name, docids in (("train", "ba"), ("test", "ab")):
        candidates = [{"docid": d, "text": {"a": "lake", "b": "river"}[d]} for d in docids]
        record = {"qid": name, "query": f"{name} lake", "candidates": candidates}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record))
    params = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    spec = DataSpec(source="jsonl", params=params, validation=0.0)
    collection = data.load(spec, seed=0)
    assert (collection.train[0].docids, collection.test[0].docids) == (("b", "a"), ("a", "b"))
    assert collection.provenance["first_stage"] == "order of the file"
    pool = spec.model_copy(update={"first_stage": FirstStageSpec(pool=True)})
    assert data.load(pool, seed=0).train[0].docids == ("a", "b")


def test_a_validation_file_is_used_without_naming_a_split(tmp_path: Path) -> None:
    names = ("train", "validation", "test")
    for name in names:
        own = LINE.replace('"q1"', f'"{name}"').replace("who?", f"who is in {name}?")
        (tmp_path / f"{name}.jsonl").write_text(own)
    params = {name: str(tmp_path / f"{name}.jsonl") for name in names}
    for split in (None, "dev"):
        spec = DataSpec(source="jsonl", params=params, validation=0.5, validation_split=split)
        found = data.load(spec, seed=0)
        assert [t.query.qid for t in found.validation] == ["validation"]


def test_a_collection_is_called_after_its_file_or_the_folder_of_its_files(tmp_path: Path) -> None:
    candidates = [{"docid": "d", "text": "t"}]
    for place in ("facts/train.jsonl", "facts/more/test.jsonl"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        task = {"qid": place, "query": f"what is in {place}?", "candidates": candidates}
        (tmp_path / place).write_text(json.dumps(task) + "\n")

    def named(train_split: str = "train", **files: str) -> str:
        params = {split: str(tmp_path / place) for split, place in files.items()}
        spec = DataSpec(source="jsonl", params=params, validation=0.0, train_split=train_split)
        return data.load(spec, seed=0).name

    assert named(train="facts/train.jsonl", test="facts/more/test.jsonl") == "facts"
    assert named(train_split="", test="facts/train.jsonl") == "train"
    whole = DataSpec(source="jsonl", path=str(tmp_path / "facts" / "train.jsonl"))
    assert data.load(whole, seed=0).name == "train"


def test_a_query_twice_in_a_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"{LINE}\n{LINE}\n")
    with pytest.raises(DataError, match=r"split train: query id 'q1' appears twice"):
        data.load(DataSpec(source="jsonl", path=str(path), test_split=""), seed=0)


def test_what_cannot_be_written_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        write_tasks(tmp_path / "file" / "tasks.jsonl", [TASK])
    target = tmp_path / "tasks.jsonl"
    write_tasks(target, [TASK])

    def broken() -> object:
        yield TASK
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        write_tasks(target, broken())  # type: ignore[arg-type]
    assert read_tasks(target) == [TASK]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "tasks.jsonl"]
