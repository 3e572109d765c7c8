"""A BEIR folder with candidates as the retrieved lists that Rankify publishes.

    python recipes/rankify/convert.py data/entailmentbank data/rankify

writes ``train.json``, ``dev.json`` and ``test.json``, one list of questions each, passages in
BM25's order. A judged passage with a grade above 0 "has the answer"; finer grades are lost, as
Rankify's lists have none. Training questions that are also test questions are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl import data
from rank_rl.records import Candidate, RankingTask
from rank_rl.specs import DataSpec


def question(task: RankingTask) -> dict[str, Any]:
    """One question with its list."""
    answer = task.query.metadata.get("answer")
    grades = task.grades or {}
    return {
        "query_id": task.query.qid,
        "question": task.query.text,
        "answers": [answer] if answer else [],
        "ctxs": [passage(c, grades) for c in task.candidates],
    }


def passage(candidate: Candidate, grades: Mapping[str, int]) -> dict[str, Any]:
    """One passage of a list; judged or not, it has the answer or has not."""
    return {
        "id": candidate.docid,
        "title": candidate.title,
        "text": candidate.text,
        "score": candidate.score,
        "has_answer": grades.get(candidate.docid, 0) > 0,
    }


def main() -> None:
    """Read the folder, write the lists."""
    parser = argparse.ArgumentParser(description="BEIR folder with candidates.tsv to Rankify lists")
    parser.add_argument("source", type=Path, help="folder with candidates.tsv")
    parser.add_argument("target", type=Path, help="folder to write into")
    parser.add_argument("--validation", default="dev", help="name of the validation split")
    given = parser.parse_args()
    spec = DataSpec.model_validate(
        {
            "source": "beir",
            "path": str(given.source),
            "validation_split": given.validation,
            "first_stage": {"pool": True},
        }
    )
    found = data.load(spec, seed=0)
    given.target.mkdir(parents=True, exist_ok=True)
    lists = {"train": found.train, given.validation: found.validation, "test": found.test}
    for name, tasks in lists.items():
        content = [question(task) for task in tasks]
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (given.target / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
