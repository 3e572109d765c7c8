"""BM25 over documents none of whose words count."""

from __future__ import annotations

import pytest

from rank_rl.data.first_stage import BM25
from rank_rl.records import Candidate


@pytest.mark.parametrize("texts", [["the"], ["", " "], ["x y"]])
def test_documents_without_a_word_that_counts_are_ranked_with_scores_of_nought(texts):
    documents = {f"d{i}": Candidate(docid=f"d{i}", text=text) for i, text in enumerate(texts)}
    ranked = BM25(documents).rank("who is the king", list(documents))
    assert {d for d, _ in ranked} == set(documents) and {s for _, s in ranked} == {0.0}
