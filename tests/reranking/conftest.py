"""A checkpoint and a file of queries that rank in a moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label slots that write short notes."""
    from rank_rl import formats
    from rank_rl.hub.contract import PromptContract
    from rank_rl.specs import FormatSpec, StrategySpec

    folder = tmp_path_factory.mktemp("rerank") / "final"
    shutil.copytree(tiny_model_dir, folder)
    fmt = formats.make(FormatSpec(name="slots", mode="reason"))
    PromptContract.of(fmt, StrategySpec(name="by_score"), max_new_tokens=4).write(folder)
    return folder


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Ten queries with five documents each, of different length."""
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, 10)
    return path


def write_tasks(path: Path, queries: int) -> None:
    lines = []
    for q in range(queries):
        documents = [
            {"id": f"d{q}.{i}", "text": "the river runs " * (1 + (q + i) % 4) + f"town {i}"}
            for i in range(5)
        ]
        lines.append({"qid": f"q{q}", "query": f"where is lake {q}?", "documents": documents})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
