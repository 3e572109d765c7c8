"""rank_llm (Castorini): its listwise ranker for open models, which runs on vLLM, own prompts.

Set from outside: the precision and the length of the context, which it leaves to vLLM's
defaults for a GPU, and an empty module in the place of its T5 reranker, whose imports
transformers 5 no longer has and which listwise ranking does not use.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protocol import Ranked, Task, serve

CONTEXT = 4096
_KEPT: dict[str, Any] = {}


class _Absent(types.ModuleType):
    """A module whose every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _ranker(folder: str, dtype: str) -> Any:
    """Its ranker; vLLM starts once and serves every window."""
    if folder not in _KEPT:
        import vllm

        made = vllm.LLM

        def precise(**settings: Any) -> Any:
            settings.pop("download_dir", None)
            return made(**settings, dtype=dtype, max_model_len=CONTEXT)

        vllm.LLM = precise
        name = "rank_llm.rerank.listwise.rank_fid"
        sys.modules[name] = _Absent(name)
        from rank_llm.rerank.listwise.rank_listwise_os_llm import RankListwiseOSLLM

        _KEPT[folder] = RankListwiseOSLLM(model=folder, context_size=CONTEXT, device="cpu")
    return _KEPT[folder]


class Library:
    """Its ranker with one window; a block of queries is one batch."""

    def __init__(self, ranker: Any, window: int, step: int) -> None:
        self.ranker, self.window, self.step = ranker, window, step

    def rank(self, tasks: Sequence[Task]) -> Callable[[], Ranked]:
        """Its ``rerank_batch``."""
        from rank_llm.data import Candidate, Query, Request

        ranker = self.ranker
        ranker._window_size, ranker._stride = self.window, self.step
        ranker._output_token_estimate = None
        requests = [
            Request(
                query=Query(text=task["query"], qid=task["qid"]),
                candidates=[
                    Candidate(docid=d["id"], score=-float(i), doc={"text": d["text"]})
                    for i, d in enumerate(task["documents"])
                ],
            )
            for task in tasks
        ]
        most = len(tasks[0]["documents"])
        results = ranker.rerank_batch(
            requests, rank_start=0, rank_end=most, populate_invocations_history=True
        )
        return lambda: self._told(results)

    def _told(self, results: Sequence[Any]) -> Ranked:
        asked = [entry for result in results for entry in result.invocations_history]
        tokenizer = self.ranker._tokenizer
        prompts = [tokenizer.encode(entry.prompt, add_special_tokens=False) for entry in asked]
        answers = [tokenizer.encode(e.response, add_special_tokens=False) for e in asked]
        return Ranked(
            rankings=[[c.docid for c in result.candidates] for result in results],
            calls=len(asked),
            rows=[p + a[:-1] for p, a in zip(prompts, answers, strict=True)],
            written=sum(entry.output_token_count for entry in asked),
        )


def open_system(settings: Mapping[str, Any], workload: Mapping[str, Any]) -> Library:
    """Its ranker with the windows of a workload."""
    params = workload["strategy"].get("params", {})
    window = params.get("window", workload["documents"])
    ranker = _ranker(settings["folder"], settings["dtype"])
    return Library(ranker, window, params.get("step", window))


if __name__ == "__main__":
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    serve(open_system, ("rank-llm", "vllm", "torch", "transformers"))
