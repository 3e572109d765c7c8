"""sentence-transformers' ``CrossEncoder``, whose ``rank`` scores the documents of one query."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from protocol import Ranked, Task, serve
from sentence_transformers import CrossEncoder


class Library:
    """One call of ``predict`` over the pairs of all queries, in the library's own batches."""

    def __init__(self, folder: str, dtype: str) -> None:
        self.model = CrossEncoder(folder, device="cpu", model_kwargs={"dtype": dtype})

    def rank(self, tasks: Sequence[Task]) -> Callable[[], Ranked]:
        """Score all pairs, sort each query's documents."""
        pairs = [(task["query"], d["text"]) for task in tasks for d in task["documents"]]
        scores = iter(self.model.predict(pairs, show_progress_bar=False).tolist())
        rankings = []
        for task in tasks:
            scored = [(-next(scores), i, d["id"]) for i, d in enumerate(task["documents"])]
            rankings.append([docid for _, _, docid in sorted(scored)])

        def told() -> Ranked:
            rows = [list(ids) for ids in self.model.tokenizer(pairs)["input_ids"]]
            return Ranked(rankings=rankings, calls=len(pairs), rows=rows, written=len(pairs))

        return told


def open_system(settings: Mapping[str, Any], workload: Mapping[str, Any]) -> Library:
    """The library's model of a folder."""
    return Library(settings["folder"], settings["dtype"])


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(open_system, ("sentence-transformers", "torch", "transformers"))
