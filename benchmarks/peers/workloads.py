"""What ``benchmarks/rerank.py`` ranks and how it is asked: strategies, and documents.

A workload goes to every system as it is. Documents are cut beforehand, title and text as one, so
that systems with prompts and budgets of their own are shown the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rank_rl import data, formats
from rank_rl.formats.budget import TokenCounter, fit
from rank_rl.records import RankingTask, numbered
from rank_rl.specs import DataSpec, FirstStageSpec, FormatSpec

ROOM = 16  # tokens that a budget leaves beyond the length documents were cut to
YES_NO = {"labels": ["no", "yes"]}
BY_ONE = {"name": "by_score", "params": {"size": 1}}

# Format, strategy and readout: ``score`` reads labels, one pass a prompt; ``decoded`` writes.
STRATEGIES: dict[str, dict[str, Any]] = {
    "slots": {"format": {"name": "slots"}, "strategy": {"name": "by_score"}, "readout": "score"},
    "pointwise": {
        "format": {"name": "pointwise", "wording": "words", "params": YES_NO},
        "strategy": BY_ONE,
        "readout": "score",
    },
    "setwise": {
        "format": {"name": "choice"},
        "strategy": {
            "name": "setwise",
            "params": {"method": "heap", "children": 3, "top_k": 10},
        },
        "readout": "score",
    },
    "listwise": {
        "format": {"name": "permutation"},
        "strategy": {"name": "single"},
        "readout": "decoded",
    },
    "sliding": {
        "format": {"name": "permutation"},
        "strategy": {"name": "sliding", "params": {"window": 10, "step": 5}},
        "readout": "decoded",
    },
    "groupwise": {
        "format": {"name": "scores"},
        "strategy": {"name": "by_score"},
        "readout": "decoded",
    },
    "cross_encoder": {"format": {}, "strategy": {}, "readout": "score"},
}
# Queries of a block: written answers are decoded together, a setwise query is a block by itself.
QUERIES = {
    "slots": 2,
    "pointwise": 2,
    "setwise": 1,
    "listwise": 4,
    "sliding": 4,
    "groupwise": 4,
    "cross_encoder": 8,
}


def collection(source: str, path: str) -> list[RankingTask]:
    """The test queries of a collection, candidates in BM25's order over each query's pool."""
    first = FirstStageSpec(name="bm25", pool=True)
    spec = DataSpec(source=source, path=path, first_stage=first)
    return list(data.load(spec, seed=7).test)


def shortened(
    tasks: Sequence[RankingTask], tokens: TokenCounter, doc_tokens: int, documents: int
) -> list[dict[str, Any]]:
    """Tasks of the workers' protocol: the first documents, each cut to so many tokens."""
    spec = FormatSpec(name="permutation", doc_tokens=doc_tokens, prompt_tokens=1 << 16)
    fmt = formats.make(spec)
    made = []
    for task in tasks:
        view = numbered(task.query, task.candidates[:documents])
        cut, _ = fit(view, tokens, fmt=fmt)
        shown = [{"id": c.docid, "text": c.content} for c in cut.candidates]
        made.append({"qid": task.query.qid, "query": cut.query.text, "documents": shown})
    return made


def workload(
    name: str, tokens: TokenCounter, tasks: Sequence[Mapping[str, Any]], doc_tokens: int
) -> dict[str, Any]:
    """A strategy with its budgets; answers may be as long as the longest complete one.

    Args:
        name: of ``STRATEGIES``.
        tokens: the model's tokenizer.
        tasks: what will be ranked, as ``shortened`` gives it.
        doc_tokens: what documents were cut to.
    """
    from prompts import task_of

    known = STRATEGIES[name]
    documents = max(len(task["documents"]) for task in tasks)
    made = {**known, "name": name, "documents": documents, "max_new_tokens": 1}
    if not known["format"]:
        return made
    budget = {"doc_tokens": doc_tokens + ROOM, "prompt_tokens": 8192}
    made["format"] = {**known["format"], **budget}
    if known["readout"] == "decoded":
        params = known["strategy"].get("params", {})
        most = min(documents, params.get("window", documents))
        fmt = formats.make(FormatSpec.model_validate(made["format"]))
        first = task_of(tasks[0])
        view = numbered(first.query, first.candidates[:most])
        # Grades 0 to 9 for scores, all of which take as many tokens; any order for permutations.
        grades = {docid: i % 2 for i, docid in enumerate(view.docids)}
        made["max_new_tokens"] = len(tokens.encode(fmt.ideal(view, grades, ""))) + 1
    return made
