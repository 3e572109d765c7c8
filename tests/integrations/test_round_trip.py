"""One checkpoint, five libraries: the same ranking through each, from disk and in a new process."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from rank_rl.errors import RecipeError
from rank_rl.integrations.cross_encoder import RankRLCrossEncoder
from rank_rl.integrations.langchain import RankRLCompressor
from rank_rl.integrations.llama_index import RankRLPostprocessor
from rank_rl.integrations.pyterrier import RankRLTransformer
from rank_rl.integrations.rerankers import RankRLRanker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
QUERY = "who is the father of the director?"
TEXTS = ["the river runs", "the father of the director", "the lake is deep", "a small town"]

FRESH = """
import json, sys
from rank_rl import Reranker

folder, query, *texts = sys.argv[1:]
results = Reranker.from_pretrained(folder, device="cpu").rank(query, texts)
print(json.dumps([(r.text, r.score) for r in results]))
"""


def through_langchain(folder: str) -> list[tuple[str, float]]:
    documents = [Document(page_content=text) for text in TEXTS]
    found = RankRLCompressor(ranker=folder).compress_documents(documents, QUERY)
    return [(d.page_content, d.metadata["relevance_score"]) for d in found]


def through_llama_index(folder: str) -> list[tuple[str, float]]:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    found = RankRLPostprocessor(ranker=folder).postprocess_nodes(nodes, query_str=QUERY)
    return [(n.node.text, n.score) for n in found]


def through_pyterrier(folder: str) -> list[tuple[str, float]]:
    rows = [["q", QUERY, str(i), text] for i, text in enumerate(TEXTS)]
    frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text"])
    found = RankRLTransformer(folder)(frame)
    return list(zip(found.text, found.score, strict=True))


def through_predict(folder: str) -> list[tuple[str, float]]:
    scores = RankRLCrossEncoder(folder).predict([(QUERY, text) for text in TEXTS])
    return sorted(zip(TEXTS, scores, strict=True), key=lambda both: -both[1])


def through_rank(folder: str) -> list[tuple[str, float]]:
    found = RankRLCrossEncoder(folder).rank(QUERY, TEXTS, return_documents=True)
    return [(r["text"], r["score"]) for r in found]


def through_rerankers(folder: str) -> list[tuple[str, float]]:
    return [(r.text, r.score) for r in RankRLRanker(folder).rank(QUERY, TEXTS)]


@pytest.fixture(scope="module")
def fresh(checkpoint: Path) -> list[tuple[str, float]]:
    """What another process makes of the same folder."""
    folder = str(checkpoint / "outputs/quickstart/grpo/final")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, folder, QUERY, *TEXTS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "through",
    [
        through_langchain,
        through_llama_index,
        through_pyterrier,
        through_predict,
        through_rank,
        through_rerankers,
    ],
)
def test_the_same_ranking_through_every_library(checkpoint, fresh, through):
    found = through(str(checkpoint / "outputs/quickstart/grpo/final"))
    assert [text for text, _ in found] == [text for text, _ in fresh]
    assert [score for _, score in found] == pytest.approx([s for _, s in fresh], abs=1e-4)


def blocks() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(5))
def test_examples_of_the_page_run(checkpoint, monkeypatch, number):
    monkeypatch.chdir(checkpoint)
    code = blocks()
    assert len(code) == 5
    exec(compile(code[number], str(PAGE), "exec"), {})


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("pyterrier", "pyterrier", "pyterrier"),
        ("rerankers", "rerankers", "rerankers"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, module, library, extra):
    for name in list(sys.modules):
        if name == library or name.startswith(f"{library}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"rank_rl.integrations.{module}", raising=False)
    with pytest.raises(RecipeError, match=rf"not installed \(pip install 'rank-rl\[{extra}\]'\)"):
        importlib.import_module(f"rank_rl.integrations.{module}")
