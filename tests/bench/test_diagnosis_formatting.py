"""Documents written in other ways: words are kept, and differences are paired with the original."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rank_rl import Reranker, formats
from rank_rl.bench import diagnosis
from rank_rl.bench.diagnosis.formatting import VARIANTS, line_breaks, no_punctuation, spaces
from rank_rl.records import Candidate, Query, Ranking, RankingTask
from rank_rl.specs import FormatSpec, ModelSpec

DOC = Candidate(
    docid="d",
    title="The U.S. novel",
    text='It\'s well-known (since 1962): "He won!" Did he? Yes, 3.5 times.',
    rank=4,
    score=2.5,
)
TEXTS = st.text(st.sampled_from("abcXYZ 0159.,!?'-()\n\täöÜ"), max_size=60)


def test_what_each_variant_makes_of_a_document():
    shown = {name: (write(DOC).title, write(DOC).text) for name, write in VARIANTS.items()}
    assert shown["lower_case"][0] == "the u.s. novel"
    assert shown["upper_case"][1].startswith("IT'S WELL-KNOWN (SINCE 1962): ")
    assert shown["no_punctuation"] == (
        "The U.S novel",
        "It's well-known since 1962 He won Did he Yes 3.5 times",
    )
    assert shown["spaces"][0] == "The   U.S.   novel"
    assert shown["line_breaks"][1].endswith('"He won!" Did he?\nYes, 3.5 times.')
    assert shown["no_title"] == ("", DOC.text)
    assert shown["title_behind"] == ("", f"{DOC.text} The U.S. novel.")
    assert shown["markdown"] == ("## The U.S. novel", f"> {DOC.text}")
    assert shown["html"] == ("<h2>The U.S. novel</h2>", f"<p>{DOC.text}</p>")
    bare = replace(DOC, title="")
    assert VARIANTS["title_behind"](bare) == VARIANTS["no_title"](bare) == bare
    assert VARIANTS["html"](bare).title == VARIANTS["markdown"](bare).title == ""
    assert no_punctuation("...") == "..."  # no document without a text


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@hypothesis_settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_variants_keep_words_and_everything_but_the_text(title, text):
    candidate = replace(DOC, title=title, text=text)
    for name, write in VARIANTS.items():
        written = write(candidate)
        assert (written.docid, written.rank, written.score) == ("d", 4, 2.5)
        own, said = words(f"{title} {text}"), words(f"{written.title} {written.text}")
        if name == "no_title":
            own = words(text)
        if name == "title_behind":
            own, said = sorted(own), sorted(said)
        if name == "html":
            said = [word for word in said if word not in ("p", "h2")]
        assert said == own, name
    assert "".join(line_breaks(text).split()) == "".join(text.split())
    assert spaces(text).split() == text.split()


def task(qid: str, graded: bool = True) -> RankingTask:
    """The relevant document is the only one that has no capital letter."""
    texts = ["One River.", "one lake", "One Town!", "One Film."]
    candidates = tuple(
        Candidate(docid=f"d{i}", text=text, title="One", rank=i + 1) for i, text in enumerate(texts)
    )
    return RankingTask(
        query=Query(qid=qid, text="one?"),
        candidates=candidates,
        grades={"d1": 1} if graded else None,
    )


def by_capitals(tasks: Sequence[RankingTask]) -> list[Ranking]:
    """Ranks documents with fewer capital letters in their text first, ties as they come."""
    found = []
    for one in tasks:
        ordered = sorted(one.candidates, key=lambda c: sum(x.isupper() for x in c.text))
        found.append(Ranking(qid=one.query.qid, docids=tuple(c.docid for c in ordered)))
    return found


def test_a_ranker_that_looks_at_capitals_is_found_out():
    tasks = [task("a"), task("b")]
    found = diagnosis.formatting(by_capitals, tasks, metric="mrr@10", seed=0)
    rows = {row["name"]: row for row in found["variants"]}
    assert (found["queries"], found["metric"]) == (2, "mrr@10")
    assert rows.keys() == VARIANTS.keys() - {"line_breaks"}  # one sentence each: nothing changed
    # In lower case all are level, so that the relevant document is second again.
    assert rows["lower_case"]["difference"] == rows["lower_case"]["low"] == -0.5
    assert rows["lower_case"]["tau"] == pytest.approx(2 / 3)
    for name in ("no_punctuation", "spaces", "no_title", "markdown", "html"):
        assert (rows[name]["difference"], rows[name]["tau"]) == (0.0, 1.0), name
    json.dumps(found)


def test_known_rankings_are_used_and_queries_without_judgements_have_no_difference():
    calls = []

    def counted(tasks: Sequence[RankingTask]) -> list[Ranking]:
        calls.append(len(tasks))
        return by_capitals(tasks)

    tasks = [task("a", graded=False)]
    known = {r.qid: r for r in by_capitals(tasks)}
    only = {"lower_case": VARIANTS["lower_case"]}
    found = diagnosis.formatting(
        counted, tasks, metric="mrr@10", seed=0, given=known, variants=only
    )
    assert calls == [1]
    (row,) = found["variants"]
    assert (row["difference"], row["low"], row["high"]) == (None, None, None)
    assert row["tau"] == pytest.approx(2 / 3)
    assert diagnosis.formatting(counted, [], metric="mrr@10", seed=0) == {}


def test_a_real_model_reads_prompts_of_one_line_a_document(tiny_model_dir):
    from rank_rl.models.loading import load

    loaded = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")
    texts = ["The river. It runs.", "The Lake is deep.", "A small Town!", "Who is the father?"]
    tasks = [
        RankingTask(
            query=Query(qid=f"q{i}", text=f"who is the father {i}?"),
            candidates=tuple(
                Candidate(docid=f"d{j}", text=text, title="The film", rank=j + 1)
                for j, text in enumerate(texts)
            ),
            grades={"d3": 1},
        )
        for i in range(3)
    ]
    reranker = Reranker(loaded=loaded, fmt=formats.make(FormatSpec(name="slots")))
    found = diagnosis.formatting(diagnosis.by(reranker), tasks, metric="ndcg@10", seed=0)
    rows = {row["name"]: row for row in found["variants"]}
    assert rows.keys() == VARIANTS.keys()
    for name in ("spaces", "line_breaks"):
        assert (rows[name]["tau"], rows[name]["difference"]) == (1.0, 0.0)
    assert any(row["tau"] < 1.0 for row in rows.values())
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows.values())
