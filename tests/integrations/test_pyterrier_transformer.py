"""The transformer in real PyTerrier pipelines: order, scores, ranks, operators, a measure."""

from __future__ import annotations

import math

import pandas as pd
import pyterrier as pt
import pytest

from rank_rl.errors import DataError, RecipeError
from rank_rl.integrations.pyterrier import RankRLTransformer

TEXTS = ["the river runs", "the father of the director", "the lake is deep", "a small town"]
QUERIES = pd.DataFrame([["q2", "who is the father?"], ["q1", "the lake"]], columns=["qid", "query"])
THOUGHTS = "<think>\n[2] names him.\n</think>\n<answer>[2] > [4] > [1] > [3]</answer>"


def results(queries: pd.DataFrame = QUERIES) -> pd.DataFrame:
    """What a first stage found, with rows out of order."""
    rows = [
        [q.qid, q.query, f"d{i}", text, 9.0 - i, i, "kept"]
        for q in queries.itertuples()
        for i, text in enumerate(TEXTS)
    ]
    names = ["qid", "query", "docno", "text", "score", "rank", "extra"]
    return pd.DataFrame(rows, columns=names).iloc[::-1].reset_index(drop=True)


def test_a_pipeline_ranks_as_the_reranker_does(ranker):
    pipeline = pt.Transformer.from_df(results()) >> RankRLTransformer(ranker)
    found = pipeline(QUERIES)
    assert set(found.columns) == set(results().columns) and len(found) == 8
    assert list(found.groupby("qid", sort=False).groups) == ["q2", "q1"]
    for qid, query in QUERIES.itertuples(index=False):
        rows = found[found.qid == qid]
        direct = ranker.rank(query, TEXTS)
        assert list(rows.text) == [r.text for r in direct]
        assert list(rows["rank"]) == [0, 1, 2, 3]
        assert list(rows.score) == pytest.approx([r.score for r in direct], abs=1e-4)
        assert all(rows.score.diff().dropna() < 0) and set(rows.extra) == {"kept"}


def test_ranks_are_those_that_pyterrier_gives(ranker):
    found = RankRLTransformer(ranker)(results())
    again = pt.model.add_ranks(found.copy())
    assert list(again["rank"]) == list(found["rank"])
    assert found["score"].dtype.kind == "f" and found["rank"].dtype.kind == "i"


def test_operators(ranker):
    first = pt.Transformer.from_df(results())
    reranker = RankRLTransformer(ranker)
    cut = (first >> reranker % 2)(QUERIES)
    assert list(cut["rank"]) == [0, 1, 0, 1]
    shallow = (first % 2 >> reranker)(QUERIES)
    assert set(shallow.docno) == {"d0", "d1"}
    reranked, rest = first % 2 >> reranker, first
    joined = (reranked ^ rest)(QUERIES[:1]).sort_values("rank")  # the reranked above the rest
    assert list(joined.docno) == [*reranked(QUERIES[:1]).docno, "d2", "d3"]
    mixed = ((first >> reranker) * 0.5 + first)(QUERIES)
    scores = (first >> reranker)(QUERIES).set_index(["qid", "docno"]).score
    for row in mixed.itertuples():
        own = 9.0 - int(row.docno[1])
        assert row.score == pytest.approx(own + 0.5 * scores[row.qid, row.docno])
    one = (first >> reranker).search("the lake", qid="q1")
    assert list(one["rank"]) == [0, 1, 2, 3]


def test_an_experiment_measures_it(ranker):
    first = pt.Transformer.from_df(results())
    qrels = pd.DataFrame([["q1", "d2", 1], ["q2", "d1", 1]], columns=["qid", "docno", "label"])
    table = pt.Experiment(
        [first, first >> RankRLTransformer(ranker)],
        QUERIES,
        qrels,
        ["recip_rank"],
        names=["first", "reranked"],
        plan="tree",  # the first stage is asked once
    )
    expected = [
        1 / (1 + [r.docid for r in ranker.rank(query, TEXTS)].index(docid))
        for query, docid in (("the lake", "3"), ("who is the father?", "2"))
    ]
    measured = dict(zip(table.name, table.recip_rank, strict=True))
    assert measured["first"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert measured["reranked"] == pytest.approx(sum(expected) / 2)


def test_the_first_stage_reaches_prompts_that_show_it(listwise):
    ranker = listwise(THOUGHTS, first_stage_hint="score")
    found = RankRLTransformer(ranker)(results())
    assert list(found.docno) == ["d1", "d3", "d0", "d2"] * 2
    assert list(found.score) == [4.0, 3.0, 2.0, 1.0] * 2
    for prompt in ranker.generator.asked:
        shown = prompt.messages[-1]["content"]
        assert all(f"[{i + 1}] (score {9 - i}) {t}" in shown for i, t in enumerate(TEXTS)), shown
    by_score = listwise(THOUGHTS, first_stage_hint="rank")
    assert list(RankRLTransformer(by_score)(results().drop(columns="rank")).docno[:1]) == ["d1"]
    shown = by_score.generator.asked[0].messages[-1]["content"]
    assert all(f"(rank {i}) {text}" in shown for i, text in enumerate(TEXTS, 1)), shown


def test_frames_without_a_first_stage_are_ordered_by_bm25_where_prompts_show_it(listwise):
    ranker = listwise(THOUGHTS, first_stage_hint="rank")
    RankRLTransformer(ranker)(results(QUERIES[1:]).drop(columns=["rank", "score"]))
    shown = ranker.generator.asked[0].messages[-1]["content"]
    assert "(rank 1) the lake is deep" in shown


def test_queries_share_batches(listwise):
    ranker = listwise(THOUGHTS)
    sizes = []
    generate = ranker.generator.generate
    ranker.generator.generate = lambda prompts, **named: (
        sizes.append(len(prompts)),
        generate(prompts, **named),
    )[1]
    RankRLTransformer(ranker)(results())
    assert sizes == [2]


def test_reasoning_and_other_columns(listwise):
    frame = results().rename(columns={"text": "body", "query": "query_0"}).assign(title="Lake")
    ranker = listwise(THOUGHTS)
    transformer = RankRLTransformer(
        ranker, text_field="body", title_field="title", query_field="query_0", explain=True
    )
    found = transformer(frame)
    assert found.reasoning[0] == "[2] names him."
    assert "Lake. the river runs" in ranker.generator.asked[0].messages[-1]["content"]


@pytest.mark.parametrize("explain", [False, True])
def test_empty_frames_and_what_pyterrier_finds_out_about_it(ranker, explain):
    transformer = RankRLTransformer(ranker, explain=explain)
    needed = ["qid", "docno", "query", "text"]
    ((*inputs,),) = pt.inspect.transformer_inputs(transformer)
    assert set(inputs) == set(needed)
    outputs = pt.inspect.transformer_outputs(transformer, needed)
    assert set(outputs) == {*needed, "score", "rank"} | ({"reasoning"} if explain else set())
    empty = transformer(results().iloc[:0])
    assert len(empty) == 0 and set(outputs) <= set(empty.columns)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.assign(docno="d"), r"qid 'q1': docno 'd' appears twice"),
        (lambda f: f.assign(query=[str(i) for i in f.index]), r"qid 'q1': 4 queries"),
        (lambda f: f.assign(text=math.nan), r"text of docno 'd0' is nan"),
    ],
)
def test_frames_that_make_no_sense_are_refused(ranker, change, words):
    with pytest.raises(DataError, match=words):
        RankRLTransformer(ranker)(change(results()))


def test_wrong_arguments_and_missing_columns(ranker):
    with pytest.raises(RecipeError, match="unknown argument 'topk'"):
        RankRLTransformer(ranker, topk=3)
    with pytest.raises(RecipeError, match="unknown first stage"):
        RankRLTransformer(ranker, first_stage="dense")
    with pytest.raises(pt.validate.InputValidationError, match="text"):
        RankRLTransformer(ranker)(results().drop(columns="text"))
