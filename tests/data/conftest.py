"""A small collection in BEIR layout, written file by file so that a test can spoil one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CORPUS = [
    {"_id": "d1", "title": "Rivers", "text": "The Rhine flows through Basel."},
    {"_id": "d2", "title": "", "text": "Basel is a city on the Rhine, in Switzerland."},
    {"_id": "d3", "title": "Lakes", "text": "Lake Constance is fed by the Rhine."},
    {"_id": "d4", "title": "Bread", "text": "Rye bread is baked with sourdough."},
]
QUERIES = [
    {"_id": "q1", "text": "Which city is on the Rhine?", "metadata": {"answer": "Basel"}},
    {"_id": "q2", "text": "Which lake does the Rhine feed?", "instruction": "Find facts."},
    {"_id": "q3", "text": "How is rye bread baked?"},
]
FILES = {
    "corpus.jsonl": "\n".join(json.dumps(r) for r in CORPUS) + "\n",
    "queries.jsonl": "\n".join(json.dumps(r) for r in QUERIES) + "\n",
    "qrels.train.tsv": "query-id\tcorpus-id\tscore\nq1\td2\t2\nq1\td1\t1\nq2\td3\t1\n",
    "qrels.test.tsv": "query-id\tcorpus-id\tscore\nq3\td4\t1\nq3\td1\t0\n",
    "candidates.tsv": "query-id\tcorpus-id\n"
    "q1\td4\nq1\td2\nq1\td1\nq2\td1\nq2\td3\nq3\td4\nq3\td1\nq3\td2\n",
}


@pytest.fixture
def beir_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write the collection; ``changes`` replace files by name, None leaves a file out."""

    def write(changes: dict[str, str | None] | None = None) -> Path:
        folder = tmp_path / "rivers"
        for name, text in {**FILES, **(changes or {})}.items():
            if text is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        return folder

    return write
