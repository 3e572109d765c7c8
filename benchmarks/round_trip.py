"""One checkpoint ranked through every door: the same order through each, each in a new process.

The queries and candidates are the test queries of a bundled collection. ``from_pretrained`` is
asked in one process; then the same texts go through ``rank-rl serve``, ``rank-rl rerank`` and the
adapters for PyTerrier, LangChain and LlamaIndex, and the orders are compared, all documents of each
query.

    python benchmarks/round_trip.py outputs/quickstart/grpo/final --write results/round_trip.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import workloads

REFERENCE = "from_pretrained"
Queries = Sequence[Mapping[str, Any]]
Orders = list[list[str]]  # a query's document ids, the best first


def loaded(model: str, dtype: str) -> Any:
    """The checkpoint, for whatever takes a ``Reranker``."""
    from rank_rl import Reranker

    return Reranker.from_pretrained(model, dtype=dtype)


def in_python(model: str, dtype: str, queries: Queries) -> Orders:
    """``Reranker.from_pretrained`` and ``rank``."""
    ranker = loaded(model, dtype)
    found = [ranker.rank(q["query"], q["documents"], first_stage="given") for q in queries]
    return [[one.docid for one in results] for results in found]


def served(model: str, dtype: str, queries: Queries) -> Orders:
    """``POST /v1/rerank`` to ``rank-rl serve``."""
    import httpx2
    from serve_load import Running

    server = Running(model, ["--dtype", dtype])
    try:
        orders = []
        for q in queries:
            body = {**q, "first_stage": "given"}
            told = httpx2.post(server.url + "/v1/rerank", json=body, timeout=600).json()
            assert told["order"] == "model", told
            orders.append([q["documents"][row["index"]]["id"] for row in told["results"]])
        return orders
    finally:
        server.end()


def on_the_command_line(model: str, dtype: str, queries: Queries) -> Orders:
    """``rank-rl rerank`` of a file."""
    with tempfile.TemporaryDirectory() as folder:
        asked, output = Path(folder) / "queries.jsonl", Path(folder) / "ranked.jsonl"
        asked.write_text("".join(json.dumps(q) + "\n" for q in queries), encoding="utf-8")
        command = [sys.executable, "-m", "rank_rl", "rerank", "--model", model, "--dtype", dtype]
        how = ["--tasks", str(asked), "--output", str(output), "--first-stage", "given"]
        subprocess.run([*command, *how], check=True)
        rows = map(json.loads, output.read_text(encoding="utf-8").splitlines())
        found = {row["qid"]: [one["docid"] for one in row["ranking"]] for row in rows}
    return [found[str(number)] for number, _ in enumerate(queries, 1)]


def in_pyterrier(model: str, dtype: str, queries: Queries) -> Orders:
    """A PyTerrier pipeline over all queries."""
    import pandas as pd
    import pyterrier as pt

    from rank_rl.integrations.pyterrier import RankRLTransformer

    rows = [
        (f"q{n}", d["id"], d["text"], d["score"], rank)
        for n, q in enumerate(queries)
        for rank, d in enumerate(q["documents"])
    ]
    found = pd.DataFrame(rows, columns=["qid", "docno", "text", "score", "rank"])
    asked = [(f"q{n}", q["query"]) for n, q in enumerate(queries)]
    topics = pd.DataFrame(asked, columns=["qid", "query"])
    ranked = (pt.Transformer.from_df(found) >> RankRLTransformer(loaded(model, dtype)))(topics)
    by_rank = ranked.sort_values(["qid", "rank"])
    return [list(by_rank[by_rank.qid == f"q{n}"].docno) for n, _ in enumerate(queries)]


def in_langchain(model: str, dtype: str, queries: Queries) -> Orders:
    """A LangChain document compressor, query by query."""
    from langchain_core.documents import Document

    from rank_rl.integrations.langchain import RankRLCompressor

    compressor = RankRLCompressor(ranker=loaded(model, dtype), top_n=None, score_key="score")
    orders = []
    for q in queries:
        documents = [
            Document(page_content=d["text"], id=d["id"], metadata={"score": d["score"]})
            for d in q["documents"]
        ]
        found = compressor.compress_documents(documents, q["query"])
        orders.append([str(document.id) for document in found])
    return orders


def in_llama_index(model: str, dtype: str, queries: Queries) -> Orders:
    """A LlamaIndex node postprocessor, query by query."""
    from llama_index.core.schema import NodeWithScore, TextNode

    from rank_rl.integrations.llama_index import RankRLPostprocessor

    rerank = RankRLPostprocessor(ranker=loaded(model, dtype), top_n=None)
    orders = []
    for q in queries:
        nodes = [
            NodeWithScore(node=TextNode(text=d["text"], id_=d["id"]), score=d["score"])
            for d in q["documents"]
        ]
        found = rerank.postprocess_nodes(nodes, query_str=q["query"])
        orders.append([one.node.node_id for one in found])
    return orders


DOORS: dict[str, Callable[[str, str, Queries], Orders]] = {
    REFERENCE: in_python,
    "rank-rl serve": served,
    "rank-rl rerank": on_the_command_line,
    "PyTerrier": in_pyterrier,
    "LangChain": in_langchain,
    "LlamaIndex": in_llama_index,
}


def queries_of(path: str, most: int) -> list[dict[str, Any]]:
    """Test queries with their candidates, a title in front of its text."""
    return [
        {
            "query": task.query.text,
            "documents": [
                {"id": c.docid, "text": c.content, "score": c.score} for c in task.candidates
            ],
        }
        for task in workloads.collection("bundled", path)[:most]
    ]


def through(door: str, model: str, dtype: str, queries: Queries) -> Orders:
    """The orders of one door, which is opened in a process of its own."""
    asked = json.dumps({"door": door, "model": model, "dtype": dtype, "queries": queries})
    command = [sys.executable, __file__, "--door"]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    orders: Orders = json.loads(done.stdout.splitlines()[-1])
    return orders


def compared(reference: Orders, orders: Orders) -> dict[str, int]:
    """How many orders are the same, of how many; every one has to hold every document."""
    complete = sum(sorted(a) == sorted(b) for a, b in zip(reference, orders, strict=True))
    same = sum(a == b for a, b in zip(reference, orders, strict=True))
    return {"queries": len(reference), "complete": complete, "same_order": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="checkpoint folder")
    parser.add_argument("--collection", default="musique200", help="a bundled one")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--dtype", default="float32", help="as of Reranker.from_pretrained")
    parser.add_argument("--write", type=Path, help="JSON file of the result")
    parser.add_argument("--door", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.door:
        asked = json.load(sys.stdin)
        print(json.dumps(DOORS[asked.pop("door")](**asked)))
        return
    if not given.model:
        parser.error("MODEL is missing")
    queries = queries_of(given.collection, given.queries)
    reference = through(REFERENCE, given.model, given.dtype, queries)
    first = [[d["id"] for d in q["documents"]] for q in queries]
    result: dict[str, Any] = {
        "benchmark": "round_trip",
        "model": "/".join(Path(given.model).resolve().parts[-3:]),
        "dtype": given.dtype,
        "collection": given.collection,
        "documents": sum(map(len, reference)),
        "unlike_the_first_stage": sum(a != b for a, b in zip(first, reference, strict=True)),
        "doors": {},
    }
    for door in [name for name in DOORS if name != REFERENCE]:
        result["doors"][door] = compared(
            reference, through(door, given.model, given.dtype, queries)
        )
        print(f"{door}: {result['doors'][door]}", flush=True)
    if given.write is not None:
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
