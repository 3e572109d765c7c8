"""predict and rank as CrossEncoder has them, in a real evaluator of sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rank_rl.errors import DataError, RecipeError
from rank_rl.integrations import apart
from rank_rl.integrations.cross_encoder import RankRLCrossEncoder

QUERY = "who is the father of the director?"
TEXTS = ["the river runs", "the father of the director", "the lake is deep", "a small town"]
PAIRS = [(query, text) for text in TEXTS for query in (QUERY, "the lake")]  # queries mixed
REVERSED = "<think>\nx\n</think>\n<answer>[4] > [3] > [2] > [1]</answer>"


def test_predict_scores_pairs_of_several_queries(ranker):
    found = RankRLCrossEncoder(ranker).predict(PAIRS)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32 and found.shape == (8,)
    for query in (QUERY, "the lake"):
        scores = {text: s for (q, text), s in zip(PAIRS, found, strict=True) if q == query}
        direct = ranker.rank(query, TEXTS)
        assert sorted(scores, key=lambda t: -scores[t]) == [r.text for r in direct]
        assert [scores[r.text] for r in direct] == pytest.approx([r.score for r in direct], 1e-4)


def test_the_order_of_pairs_decides_nothing(listwise):
    """An evaluator lists the relevant documents first; a model may prefer what comes first."""
    one = RankRLCrossEncoder(listwise("I cannot say.")).predict(PAIRS)
    other = RankRLCrossEncoder(listwise("I cannot say.")).predict(PAIRS[::-1])
    assert list(one) == list(other[::-1])
    assert len(set(one[::2])) == 4  # ties and failures too are in an order
    given = RankRLCrossEncoder(listwise(REVERSED), first_stage="given")
    assert list(given.predict(PAIRS[::2])) == [1.0, 2.0, 3.0, 4.0]


def test_predict_of_one_pair_of_none_and_of_a_pair_twice(ranker):
    model = RankRLCrossEncoder(ranker)
    one = model.predict((QUERY, TEXTS[1]))
    assert one.shape == () and one == pytest.approx(ranker.rank(QUERY, TEXTS[1:2])[0].score)
    assert model.predict([]).shape == (0,)
    twice = model.predict([PAIRS[0], PAIRS[2], PAIRS[0]])
    assert twice[0] == twice[2] != twice[1]


def test_what_predict_returns(ranker):
    model = RankRLCrossEncoder(ranker)
    plain = model.predict(PAIRS, batch_size=2, show_progress_bar=False)
    tensor = model.predict(PAIRS, convert_to_tensor=True)
    assert torch.equal(tensor, torch.tensor(plain))
    several = model.predict(PAIRS, convert_to_numpy=False)
    assert isinstance(several, list) and torch.equal(torch.stack(several), tensor)
    squeezed = model.predict(np.array(PAIRS), activation_fn=torch.nn.Sigmoid())
    assert squeezed == pytest.approx(torch.sigmoid(tensor).numpy())


def test_rank_returns_what_cross_encoder_returns(ranker):
    model = RankRLCrossEncoder(ranker)
    found = model.rank(QUERY, TEXTS, top_k=3, return_documents=True)
    direct = ranker.rank(QUERY, TEXTS)[:3]
    assert [r["corpus_id"] for r in found] == [int(r.docid) - 1 for r in direct]
    assert [r["text"] for r in found] == [r.text for r in direct]
    assert [r["score"] for r in found] == pytest.approx([r.score for r in direct], 1e-4)
    assert [set(r) for r in model.rank(QUERY, TEXTS)] == [{"corpus_id", "score"}] * 4
    assert model.rank(QUERY, []) == []


def test_a_prompt_is_the_instruction(listwise):
    ranker = listwise(REVERSED)
    RankRLCrossEncoder(ranker).rank(QUERY, TEXTS, prompt="Find proofs.")
    assert "Find proofs." in ranker.generator.asked[0].messages[-1]["content"]


def test_a_real_evaluator_takes_it(ranker, tmp_path):
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    queries = {QUERY: TEXTS[1], "the lake": TEXTS[2], "a town": TEXTS[3]}
    samples = [
        {"query": query, "positive": [text], "documents": TEXTS} for query, text in queries.items()
    ]
    evaluator = CrossEncoderRerankingEvaluator(samples=samples, name="tiny")
    found = evaluator(RankRLCrossEncoder(ranker), output_path=str(tmp_path))
    places = [
        [r.text for r in ranker.rank(query, TEXTS)].index(text) for query, text in queries.items()
    ]
    expected = np.mean([1 / (1 + place) for place in places])
    assert found["tiny_mrr@10"] == pytest.approx(expected)
    assert found["tiny_map"] == pytest.approx(expected)
    assert "tiny_base_ndcg@10" in found and list(tmp_path.glob("*.csv"))


def test_an_evaluator_that_lists_relevant_documents_first_gives_nothing_away(listwise):
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    samples = [{"query": "the lake", "positive": [TEXTS[0]], "negative": TEXTS[1:]}]
    model = RankRLCrossEncoder(listwise("I cannot say."))
    found = CrossEncoderRerankingEvaluator(samples=samples)(model)
    assert found["mrr@10"] < 1.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.predict([("q", "a", "b")]), DataError, "pair 0.*a query and a document"),
        (lambda m: m.predict([("q", None)]), DataError, "pair 0"),
        (lambda m: m.rank("q", ["a", 7]), DataError, "pair 1"),
        (lambda m: m.rank("q", ["a"], top_k=0), RecipeError, "top_k is 0"),
        (lambda m: m.predict([], prompt_name="query"), RecipeError, "no prompt is named 'query'"),
        (lambda m: m.predict([], batchsize=2), RecipeError, "unknown argument 'batchsize'"),
    ],
)
def test_what_is_wrong_is_one_line(ranker, call, error, words):
    with pytest.raises(error, match=words):
        call(RankRLCrossEncoder(ranker))


def test_scores_are_set_apart_in_their_order():
    assert apart([2.5, 1.0, -1.0]) == [2.5, 1.0, -1.0]
    for scores in ([0.0] * 300, [1e6, 1e6, 1e6], [1.0, 3.0, 2.0], [1.0, 1.0 - 1e-9, 0.5]):
        found = np.array(apart(scores), dtype=np.float32)
        assert all(np.diff(found) < 0)
        assert len({f"{score:.6f}" for score in found}) == len(scores)
    assert apart([1.0, 1.0, 0.5])[2] == 0.5
