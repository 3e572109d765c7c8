"""Runs as JSON: BRIGHT's scores, lists of RankLLM and RankGPT, and files that are neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rank_rl.data.trec import read_run
from rank_rl.errors import DataError

EXPECTED = {"7": (("d2", 3.5), ("d3", 2.0), ("d1", 2.0)), "8": (("d1", 1.0),)}
SCORES = {"7": {"d1": 2, "d2": 3.5, "d3": 2.0}, "8": {"d1": 1}}
RANK_LLM = [
    {
        "query": {"qid": 7, "text": "which?"},
        "candidates": [
            {"docid": "d1", "score": 2.0, "doc": {"contents": "…"}},
            {"docid": "d2", "score": 3.5, "doc": {"contents": "…"}},
            {"docid": "d3", "score": 2.0, "doc": {"contents": "…"}},
        ],
    },
    {"query": {"qid": "8", "text": "who?"}, "candidates": [{"docid": "d1", "score": 1.0}]},
]
RANK_GPT = [
    {
        "query": request["query"]["text"],
        "hits": [
            {"qid": int(request["query"]["qid"]), "content": "…", "rank": i, **c}
            for i, c in enumerate(request["candidates"], 1)
        ],
    }
    for request in RANK_LLM
]


def written(tmp_path: Path, content: Any, name: str = "run.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


@pytest.mark.parametrize("content", [SCORES, RANK_LLM, RANK_GPT])
def test_each_form_gives_the_same_run_with_ties_as_trec_eval_breaks_them(
    tmp_path: Path, content: Any
) -> None:
    assert read_run(written(tmp_path, content)) == EXPECTED
    if isinstance(content, list):
        lines = "\n".join(map(json.dumps, content))
        assert read_run(written(tmp_path, lines, "run.jsonl")) == EXPECTED


def test_queries_for_which_nothing_was_found(tmp_path: Path) -> None:
    empty = {"query": {"qid": "9", "text": "?"}, "candidates": []}
    assert read_run(written(tmp_path, [*RANK_LLM, empty]))["9"] == ()
    assert read_run(written(tmp_path, [*RANK_GPT, {"query": "?", "hits": []}])) == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "run.json: invalid JSON"),
        ("3", "no run; expected {query id"),
        ("{}", "no run; expected {query id"),
        ([], "no run"),
        ({"7": ["d1"]}, "query '7': no documents; expected {docid: score}"),
        ({"7": {"d1": "high"}}, "score 'high' of 'd1'; expected a number"),
        ({"7": {"d1": True}}, "score True"),
        ('{"7": {"d1": NaN}}', "score nan of 'd1'; expected finite"),
        ('{"7": {"d1": 1, "d1": 2}}', "run.json: 'd1' appears twice"),
        ('{"7": {"d1": 1}, "7": {"d2": 2}}', "run.json: '7' appears twice"),
        ([3], "query 1: not an object"),
        ([{"query": {"qid": "7"}}], "query 1: no candidates"),
        ([{"query": {"text": "?"}, "candidates": [{"docid": "d", "score": 1}]}], "no identifier"),
        ([RANK_LLM[0], RANK_LLM[0]], "query 2: query '7' appears twice"),
        (
            [{"query": {"qid": "7"}, "candidates": [{"docid": "d", "score": 1}] * 2}],
            "query 1, document 2: document 'd' appears twice",
        ),
        ([{"query": {"qid": "7"}, "candidates": [{"docid": "d"}]}], "score None of 'd'"),
        (
            [{"query": "?", "hits": [{"qid": q, "docid": "d", "score": 1} for q in (7, 8)]}],
            "2 query ids in one list",
        ),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_run(written(tmp_path, content))
    assert message in str(caught.value) and "\n" not in str(caught.value)
