"""llm-rankers (Zhuang et al.): its setwise and listwise rankers, with its own prompts.

Some things are set from outside so that its classes run with this release of transformers and do
the same work: chat templates give plain ids again, weights are in the precision that was asked for,
and a listwise answer may be as long as an order of the window is (its own limit is transformers'
default of 20 tokens).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from llmrankers.listwise import ListwiseLlmRanker
from llmrankers.rankers import SearchResult
from llmrankers.setwise import SetwiseLlmRanker
from protocol import Ranked, Task, serve


class Library:
    """One of its rankers; it ranks one query after the other.

    Args:
        ranker: its object, loaded.
        most: most tokens of a listwise answer; None leaves the ranker's own.
        dtype: of the weights; on a CPU the ranker takes single precision.
    """

    def __init__(self, ranker: Any, most: int | None, dtype: str) -> None:
        self.ranker = ranker
        ranker.llm.to(getattr(torch, dtype))
        self.asked: list[tuple[list[int], list[int]]] = []
        generate = ranker.llm.generate

        @functools.wraps(generate)
        def noted(ids: Any, **settings: Any) -> Any:
            out = generate(ids, **settings)
            self.asked.append((ids[0].tolist(), out[0, ids.shape[1] :].tolist()))
            return out

        ranker.llm.generate = noted
        if most is not None:
            ranker.llm.generation_config.max_new_tokens = most
            template = ranker.tokenizer.apply_chat_template
            ranker.tokenizer.apply_chat_template = functools.partial(template, return_dict=False)

    def rank(self, tasks: Sequence[Task]) -> Callable[[], Ranked]:
        """Its ``rerank`` of every query."""
        self.asked.clear()
        rankings = []
        for task in tasks:
            shown = [
                SearchResult(docid=d["id"], score=-float(i), text=d["text"])
                for i, d in enumerate(task["documents"])
            ]
            rankings.append([r.docid for r in self.ranker.rerank(task["query"], shown)])
        asked = list(self.asked)
        return lambda: Ranked(
            rankings=rankings,
            calls=len(asked),
            rows=[prompt + new[:-1] for prompt, new in asked],
            written=sum(len(new) for _, new in asked),
            computed=sum(len(prompt) + len(new) - 1 for prompt, new in asked),
        )


def open_system(settings: Mapping[str, Any], workload: Mapping[str, Any]) -> Library:
    """Its ranker for a workload."""
    folder, params = settings["folder"], workload["strategy"].get("params", {})
    if workload["name"] == "setwise":
        method = {"heap": "heapsort", "bubble": "bubblesort"}[params.get("method", "heap")]
        ranker: Any = SetwiseLlmRanker(
            folder, folder, "cpu", num_child=params["children"], k=params["top_k"], method=method
        )
        return Library(ranker, None, settings["dtype"])
    window = params.get("window", workload["documents"])
    step = params.get("step", window)
    ranker = ListwiseLlmRanker(folder, folder, "cpu", window_size=window, step_size=step)
    return Library(ranker, workload["max_new_tokens"], settings["dtype"])


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(open_system, ("llm-rankers", "torch", "transformers"))
