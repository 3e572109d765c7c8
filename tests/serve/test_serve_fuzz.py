"""Whatever is sent: a permutation of the documents, or JSON with a reason."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fuzzing import RAW, body, wrong
from serving import HTTP

from rank_rl.seeds import rng


def test_every_answer_is_a_permutation_or_a_reason(url):
    counts: Counter[int] = Counter()
    for sent in [*RAW, *(body(rng(0, "fuzz", i)) for i in range(150))]:
        got = HTTP.post(f"{url}/v1/rerank", content=sent)
        assert not wrong(sent, got.status_code, got.content), (sent[:300], got.text[:300])
        counts[got.status_code] += 1
    assert counts[200] > 45 and counts[400] > 20 and counts[422] > 15
    assert not counts[503]


def test_dozens_of_clients_at_once(url):
    def ask(i: int) -> str:
        sent = body(rng(1, "fuzz", i))
        got = HTTP.post(f"{url}/v1/rerank", content=sent)
        return wrong(sent, got.status_code, got.content)

    with ThreadPoolExecutor(40) as pool:
        assert set(pool.map(ask, range(120))) == {""}


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (200, b'{"results":[{"index":0,"relevance_score":1}],"order":"model"}', "no permutation"),
        (200, b"<html>", "not JSON"),
        (500, b'{"message":"x","code":"y"}', "status 500"),
        (422, b'{"code":"y"}', "no reason"),
    ],
)
def test_the_check_itself_finds_what_is_wrong(status, answer, words):
    assert words in wrong(b'{"query":"a","documents":["x","y"]}', status, answer)
