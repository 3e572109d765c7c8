"""Overlap of training data with test queries: what is found, what is not, what is removed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rank_rl import data
from rank_rl.data import lessons
from rank_rl.data.leak_files import file_of, samples
from rank_rl.data.leak_report import Report, Sample, compare
from rank_rl.data.leaks import bench_leaks
from rank_rl.data.lessons import Lesson, as_record
from rank_rl.data.overlap import Index, units
from rank_rl.data.splits import normalised
from rank_rl.data.tasks import write_tasks
from rank_rl.data.trained import training_of
from rank_rl.errors import DataError
from rank_rl.formats import make
from rank_rl.records import Candidate, Order, Query, RankingTask, numbered
from rank_rl.specs import DataSpec, FormatSpec, LeakSpec

TIDES = "Why do the tides of the sea follow the course of the moon?"
CORAL = "Which corals of the Great Barrier Reef survive warmer water?"
PASSAGE = (
    "The moon pulls at the water of the sea, and so does the sun; where both pull along one line "
    "the tide is high, and where they pull across one another it is low."
)


def found(text: str, *known: str, inside: bool = False, **how: Any) -> dict[int, float]:
    index = Index(known, **{"ngram": 3, "share": 0.6, **how})
    return {n: match.share for n, match in index.find(text, inside=inside).items()}


def sample(text: str, name: str = "x", source: str = "train", **more: Any) -> Sample:
    return Sample(source=source, where=name, qid=name, query=text, **more)


def test_units_are_words_and_characters_of_scripts_without_spaces() -> None:
    assert units("The ＢＩＧ sea-horse's 2nd_try") == [
        "the",
        "big",
        "sea",
        "horse",
        "s",
        "2nd",
        "try",
    ]
    assert units("BERT模型 怎么用？") == ["bert", "模", "型", "怎", "么", "用"]
    assert units("한국어 질문") == ["한국어", "질문"]
    assert len(units("ประเทศไทย")) > 5
    assert units("?!") == []


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        (TIDES.upper() + "!!", True),
        ("Please tell me: " + TIDES, True),
        ("why do the tides of the sea follow the course of the sun", True),
        ("the course of the moon and the tides", False),
        ("why do the prices of the oil follow the course of the dollar", False),
        ("", False),
    ],
)
def test_a_query_with_another_word_is_found_and_one_with_its_wording_is_not(
    text: str, matches: bool
) -> None:
    assert bool(found(text, TIDES)) == matches


def test_equal_texts_are_told_from_near_ones() -> None:
    index = Index([TIDES], ngram=3, share=0.6)
    assert index.find("WHY do the tides of the sea follow the course of the moon")[0].equal
    near = index.find(TIDES + " And why twice a day?")[0]
    assert (near.equal, near.share) == (False, 1.0)
    assert near.place == normalised(TIDES)


def test_the_share_is_the_lesser_of_n_grams_and_of_words_by_their_rarity() -> None:
    # 9 of the 11 3-grams of TIDES; of its five content words, equally rare, all but "moon".
    text = "why do the tides of the sea follow the course of a planet"
    assert found(text, TIDES)[0] == pytest.approx(0.8)
    assert found(text, TIDES, share=0.81) == {}


def test_words_that_many_queries_share_do_not_make_an_overlap() -> None:
    films = ["Arrival", "Alien", "Solaris", "Stalker", "Gravity", "Contact", "Sunshine", "Moon"]
    known = [f"Who is the father of the director of the film {name}?" for name in films]
    # 8 of 9 3-grams are there, but of the words only those that tell no query from another.
    assert found("Who is the father of the director of the film Dune?", *known) == {}
    assert list(found("who is the father of the director of the film solaris", *known)) == [2]


def test_function_words_alone_are_compared_as_a_whole() -> None:
    assert found("what is it that they have been doing to him", "What is it that they have?") == {}
    assert found("what is it that they have", "What is it that they have?") == {0: 1.0}


def test_queries_shorter_than_an_n_gram_are_compared_as_a_whole() -> None:
    assert found("air brake", "Air brake") == {0: 1.0}
    assert found("how do i fix an air brake", "air brake") == {}


def test_chinese_is_compared_by_characters() -> None:
    asked = "身份证丢了应该去哪里补办"
    assert found("请问身份证丢了应该去哪里补办？", asked) == {0: 1.0}
    assert found("驾驶证到期应该去哪里换", asked) == {}
    # An n-gram of 3 words is one of 6 characters here, or a common ending would do.
    assert found("鼠和什么生肖相冲", "狗与什么生肖相冲") == {}
    assert list(found("鼠和什么生肖相冲", "狗与什么生肖相冲", ngram=1)) == [0]


def test_inside_a_long_text_the_place_counts() -> None:
    filler = "Barges and lighters were moored along the wharf. " * 40
    assert found(filler + TIDES + filler, TIDES, inside=True) == {0: 1.0}
    scattered = filler.join(
        ["Why do the tides", "do the tides of the sea", "follow the course", "course of the moon"]
    )
    assert found(scattered, TIDES, inside=True) == {}
    # Short ones must be there whole: three words of a query in a passage are chance.
    assert (
        found(filler + "anxiety is a mood disorder", "what is a mood disorder", inside=True) == {}
    )
    assert found(filler + "what is a mood disorder?", "what is a mood disorder", inside=True)


def by_force(text: str, known: list[str], ngram: int, share: float) -> set[int]:
    """The n-gram rule without an index: which known texts have the share of their n-grams here."""

    def grams(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)}

    own = grams(units(text))
    counts = [(grams(units(k)), k) for k in known]
    return {n for n, (g, k) in enumerate(counts) if g and len(g & own) >= share * len(g) - 1e-9}


def test_the_index_finds_all_that_a_full_comparison_finds() -> None:
    words = [f"w{i}" for i in range(9)]
    texts = [" ".join(words[(i * k + k * k) % 9] for k in range(1, 10)) for i in range(60)]
    known, others = texts[:30], texts[15:]
    index = Index(known, ngram=2, share=0.5)
    total = 0
    for text in others:
        expected = by_force(text, known, 2, 0.5)
        indexed = set(index.find(text))
        # The rarity of words may take matches away, never add any.
        assert indexed <= expected
        words_shared = {n for n in expected if set(units(known[n])) <= set(units(text))}
        assert words_shared <= indexed
        total += len(indexed)
    assert total > len(others)


def report(train: list[Sample], test: list[Sample], **how: Any) -> Report:
    return compare(train, test, LeakSpec(**how))


def test_the_clearest_case_of_each_query_is_kept_and_the_examples_are_counted() -> None:
    test = [sample(TIDES, "t1", "test"), sample(CORAL, "t2", "test")]
    train = [
        sample("Another question of its own kind", "a", texts=(f"Question: {TIDES}\nAnswer: …",)),
        sample(TIDES + " Explain!", "b"),
        sample(TIDES.lower(), "c", "other"),
        sample("How are bells cast in bronze today?", "d", "other"),
    ]
    made = report(train, test)
    assert [(o.kind, o.source, o.where, o.samples) for o in made.overlaps] == [
        ("near", "train", "b", 2),
        ("text", "other", "c", 1),
    ]
    assert made.leaking == {("train", "a"), ("train", "b"), ("other", "c")}
    told = made.as_dict()
    assert told["kinds"] == {"text": 1, "near": 0, "inside": 0}
    assert told["overlapping"]["t1"]["with"] == "c"
    assert told["overlapping"]["t1"]["query"] == TIDES
    assert (told["queries"], told["compared"]) == (2, {"train": 2, "other": 2})
    assert "query" not in made.as_dict(texts=False)["overlapping"]["t1"]


def test_an_id_alone_is_no_overlap() -> None:
    test = [sample(TIDES, "1", "test"), sample(CORAL, "2", "test")]
    made = report([sample("How are bells cast?", "1"), sample(CORAL, "2")], test)
    assert [o.qid for o in made.overlaps] == ["2"]
    assert made.shared_ids == (("test", "2", "train"),)
    assert made.reused_ids == (("test", "1", "train"),)


def test_relevant_documents_by_id_and_by_text() -> None:
    edited = PASSAGE.replace("The moon pulls", "Our moon pulls") + " So it is twice a day."
    test = [
        sample(TIDES, "t1", "here", documents={"d1": PASSAGE, "d2": "", "d3": "Bells are cast."}),
        sample(CORAL, "t2", "here", documents={"d4": "A text about corals."}),
    ]
    train = [
        sample("a", "q1", "here", documents={"d2": ""}),
        sample("b", "q2", "there", documents={"e1": edited, "d3": "No such text.", "d2": ""}),
    ]
    made = report(train, test)
    assert [(d.docid, d.by, d.source, d.other) for d in made.documents] == [
        ("d1", "text", "there", "e1"),
        ("d2", "id", "here", "d2"),
    ]
    assert made.as_dict()["documents"] == {"relevant": 4, "shared": 2, "by_id": 1, "by_text": 1}
    assert report(train, test, document_ngram=60).as_dict()["documents"]["shared"] == 1


def task(qid: str, text: str, split: str = "", **metadata: Any) -> RankingTask:
    return RankingTask(
        query=Query(qid=qid, text=text, metadata=metadata),
        candidates=(Candidate(docid="d0", text="a"), Candidate(docid="d1", text="b", rank=2)),
        grades={"d0": 1, "d1": 0},
        split=split,
    )


def lesson(qid: str, text: str, reasoning: str = "") -> Lesson:
    view = numbered(Query(qid=qid, text=text), task(qid, text).candidates)
    return Lesson(view=view, answer=Order(docids=("d1", "d0")), reasoning=reasoning)


TASKS = [
    task("a", "How are bells cast in bronze today?", "train"),
    task("b", TIDES + " Explain!", "train"),
    task("c", "Who wrote the oldest book on bees?", "train", notes={"d0": f"It asks: {CORAL}"}),
    task("d", "Where do eels spawn in the ocean?", "dev"),
    task("e", "Please: which corals of the Great Barrier Reef survive warmer water?", "dev"),
    task("z", TIDES, "test"),
    task("y", CORAL, "test"),
]


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., DataSpec]:
    """``spec(action="filter", …)``: TASKS with a leak check; the file is ``tasks.jsonl``."""
    write_tasks(tmp_path / "tasks.jsonl", TASKS)

    def make_spec(lessons: str | None = None, **leaks: Any) -> DataSpec:
        return DataSpec(
            source="jsonl",
            path=str(tmp_path / "tasks.jsonl"),
            validation_split="dev",
            lessons=lessons,
            leaks=LeakSpec(**leaks),
        )

    return make_spec


def qids(tasks: tuple[RankingTask, ...]) -> list[str]:
    return [t.query.qid for t in tasks]


def test_a_recipe_reports_or_removes_what_overlaps(
    spec: Callable[..., DataSpec], caplog: pytest.LogCaptureFixture
) -> None:
    reported = data.load(spec(), seed=0)
    assert (qids(reported.train), qids(reported.validation)) == (["a", "b", "c"], ["d", "e"])
    facts = reported.provenance["leaks"]["overlap"]
    assert facts["kinds"] == {"text": 0, "near": 2, "inside": 0}
    assert "removed" not in facts and not reported.leaking
    assert "3 training examples overlap with test queries and are kept" in caplog.text
    filtered = data.load(spec(action="filter"), seed=0)
    assert (qids(filtered.train), qids(filtered.validation)) == (["a"], ["d"])
    facts = filtered.provenance["leaks"]["overlap"]
    assert facts["removed"] == {"train": 2, "validation": 1, "lessons": 0}
    assert filtered.provenance["splits"]["train"]["queries"] == 1
    assert filtered.provenance["leaks"]["removed_queries"] == 0
    assert json.loads(json.dumps(facts)) == facts


def test_without_a_leak_check_nothing_changes(spec: Callable[..., DataSpec]) -> None:
    plain = data.load(spec().model_copy(update={"leaks": None}), seed=0)
    assert qids(plain.train) == ["a", "b", "c"]
    assert "overlap" not in plain.provenance["leaks"]


def test_other_test_collections_count_and_queries_cut_away(
    spec: Callable[..., DataSpec], tmp_path: Path
) -> None:
    (tmp_path / "other.tsv").write_text("9\tHow are bells cast in bronze\n", encoding="utf-8")
    made = spec(action="filter", against=[str(tmp_path / "other.tsv")])
    found = data.load(made.model_copy(update={"max_test": 1}), seed=0)
    assert len(found.test) == 1
    assert qids(found.train) == []
    with pytest.raises(DataError, match=r"none\.tsv: no such file or folder"):
        data.load(spec(against=[str(tmp_path / "none.tsv")]), seed=0)


def test_lessons_of_overlapping_queries_are_not_trained_on(
    spec: Callable[..., DataSpec], tmp_path: Path
) -> None:
    taught = [
        lesson("b", TIDES + " Explain!"),
        lesson("n1", "When do comets come back to us?", f"This is like: {CORAL}"),
        lesson("n2", "When do cicadas come out of the earth?"),
        lesson("z", TIDES),  # held out anyway, and not counted again
    ]
    lessons.write(tmp_path / "lessons.jsonl", map(as_record, taught))
    found = data.load(spec(str(tmp_path), action="filter"), seed=0)
    facts = found.provenance["leaks"]["overlap"]
    assert facts["removed"] == {"train": 2, "validation": 1, "lessons": 2}
    fmt = make(FormatSpec(name="permutation"))
    held_out = (*found.validation, *found.test)
    kept, counts = lessons.usable(taught, fmt, held_out, found.leaking)
    assert [k.view.query.qid for k in kept] == ["n2"]
    assert counts == {"read": 4, "held_out": 1, "not_in_format": 0, "leaking": 2}


def test_a_benchmark_is_compared_with_its_training_data(
    spec: Callable[..., DataSpec], tmp_path: Path
) -> None:
    collection = data.load(spec(), seed=0)
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": f"no: {CORAL}"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    told = bench_leaks(LeakSpec(against=[str(chats)]), collection)
    assert told["compared"] == {"tasks": 5, str(chats): 1}
    assert told["overlapping"]["z"] == {
        **{"kind": "near", "with": "b", "source": "tasks", "share": 1.0, "samples": 1}
    }
    assert (told["left_out"], told["unknown"]) == ([], [])
    assert told["examples"][0]["query"] == TIDES
    filtered = bench_leaks(LeakSpec(action="filter"), collection)
    assert filtered["left_out"] == ["z", "y"]
    assert json.loads(json.dumps(filtered)) == filtered


def checkpoint(folder: Path, base: str, content: dict[str, Any] | None) -> str:
    """The files of a checkpoint that tell what it was trained on."""
    (folder / "final").mkdir(parents=True)
    (folder / "final" / "rank_rl.json").write_text(json.dumps({"base_model": base}))
    if content is not None:
        (folder / "recipe.resolved.yaml").write_text(json.dumps(content))
    return str(folder / "final")


def test_what_checkpoints_were_trained_on_is_found_through_their_bases(
    spec: Callable[..., DataSpec], tmp_path: Path
) -> None:
    write_tasks(tmp_path / "old.jsonl", [task("o", CORAL.lower(), "train"), task("p", "?", "test")])
    old = DataSpec(source="jsonl", path=str(tmp_path / "old.jsonl"), validation=0.0)
    said = {"data": old.model_dump(mode="json"), "run": {"seed": 3}}
    first = checkpoint(tmp_path / "sft", "pip:some-model", said)
    again = {"data": spec().model_dump(mode="json"), "run": {"seed": 0}}
    second = checkpoint(tmp_path / "grpo", first, again)
    broken = checkpoint(tmp_path / "broken", "", None)
    training = training_of(spec(), 0, [second, broken, "an/id"])
    assert [c.name for _, c in training.parts] == ["tasks", "old"]
    assert [u.partition(":")[0] for u in training.unknown] == ["pip", broken, "an/id"]
    told = bench_leaks(LeakSpec(), data.load(spec(), seed=0), training)
    assert told["compared"] == {"tasks": 5, "old": 1}
    assert told["overlapping"]["y"]["source"] == "old"
    assert told["overlapping"]["y"]["kind"] == "text"
    assert len(told["unknown"]) == 3


def write(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def test_a_beir_folder_has_splits(beir_folder: Callable[..., Path]) -> None:
    folder = str(beir_folder())
    assert [s.qid for s in samples(folder, "train")] == ["q1", "q2"]
    (test,) = samples(folder, "test")
    assert (test.source, test.qid, test.query) == ("rivers", "q3", "How is rye bread baked?")
    assert test.documents == {"d4": "Bread. Rye bread is baked with sourdough."}
    assert [s.qid for s in samples(f"{folder}:train", "test")] == ["q1", "q2"]
    assert file_of(folder) is None


def test_bundled_collections_are_named() -> None:
    assert len(list(samples("bundled:musique200", "test"))) == 80
    assert len(list(samples("bundled:musique200:train", "test"))) == 120
    with pytest.raises(DataError, match=r"no bundled collection 'musique'.*musique200"):
        samples("bundled:musique", "test")


def test_tasks_lessons_chats_and_queries_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.jsonl", TASKS)
    assert len(list(samples(str(tmp_path / "tasks.jsonl"), "train"))) == 5
    assert [s.qid for s in samples(str(tmp_path / "tasks.jsonl"), "test")] == ["z", "y"]
    (dev,) = {s.documents["d0"] for s in samples(f"{tmp_path / 'tasks.jsonl'}:dev", "test")}
    assert dev == "a"
    said = as_record(lesson("l", TIDES, "a reason"), prompt=[{"role": "user", "content": "Rank."}])
    (one,) = samples(write(tmp_path / "lessons.jsonl", said), "train")
    assert (one.qid, one.query, one.texts) == ("l", TIDES, ("a reason", "Rank."))
    assert one.documents == {"d1": "b"}  # the teacher's first choice, where nobody graded
    assert file_of(str(tmp_path)) == tmp_path / "lessons.jsonl"
    chat = {"prompt": [{"role": "user", "content": TIDES}], "completion": "because"}
    (row,) = samples(write(tmp_path / "rows.jsonl", chat), "train")
    assert (row.qid, row.query, row.texts) == ("", "", (TIDES, "because"))
    assert row.where == f"{tmp_path / 'rows.jsonl'}:1"
    (row,) = samples(str(tmp_path / "rows.jsonl"), "test")
    assert row.query == TIDES
    shared = {"conversations": [{"from": "human", "value": CORAL}, {"from": "gpt", "value": "x"}]}
    (row,) = samples(write(tmp_path / "shared.jsonl", shared), "test")
    assert (row.query, row.texts) == (CORAL, (CORAL, "x"))
    queries = write(tmp_path / "queries.jsonl.txt", {"_id": 7, "text": TIDES, "answer": "the moon"})
    (row,) = samples(queries, "train")
    assert (row.qid, row.query, row.texts) == ("7", TIDES, ("the moon",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a line without a tab\n", "no query"),
        ('{"messages": []}\n', "no text"),
        ('{"candidates": [], "qid": "q", "query": "x"}\n', "no candidates"),
        ('{"x": 1}\n', "no identifier"),
        ("", "the file is empty"),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "file"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        list(samples(str(path), "train"))


def test_a_split_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_tasks(tmp_path / "t.jsonl", [task("a", "x", "train"), task("b", "y", "dev")])
    with pytest.raises(DataError, match=r"no split 'test' among dev, train.*t\.jsonl:dev"):
        list(samples(str(tmp_path / "t.jsonl"), "test"))
    with pytest.raises(DataError, match="no split 'eval'; expected one of dev, train"):
        list(samples(f"{tmp_path / 't.jsonl'}:eval", "test"))
    with pytest.raises(DataError, match=r"no queries\.jsonl and no lessons\.jsonl"):
        samples(str(tmp_path), "train")


HASHED = """
from rank_rl.data.overlap import Index
known = [f"the {a} of the {b} is {a}{b} here" for a in "uvwx" for b in "klmn"]
index = Index(known, ngram=2, share=0.2)
found = [(n, m.share, m.place) for t in known for n, m in index.find(t).items()]
"""


def test_the_order_of_hashes_does_not_change_what_is_found() -> None:
    """N-grams are kept as hashes, which differ from process to process."""
    here: dict[str, Any] = {}
    exec(HASHED, here)
    done = subprocess.run(
        [sys.executable, "-c", HASHED + "print(found)"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1"},
    )
    assert len(here["found"]) > 16
    assert done.stdout.strip() == str(here["found"])
