"""rank_rl's ``Reranker``, as a user calls it: ``from_pretrained``, then ``rank_tasks``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from prompts import task_of
from protocol import Ranked, Task, serve

from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Exchange
from rank_rl.rerank import Reranker


class Ours:
    """A decoder with a format and a strategy, or a cross-encoder.

    Args:
        ranker: what ranks.
        rows: the token rows of an exchange, to count what had to be read.
    """

    def __init__(self, ranker: Reranker, rows: Callable[[Exchange], list[list[int]]]) -> None:
        self.ranker, self.rows = ranker, rows

    def rank(self, tasks: Sequence[Task]) -> Callable[[], Ranked]:
        """Rank a block of tasks in one call."""
        results = self.ranker.rank_tasks([task_of(task) for task in tasks])

        def told() -> Ranked:
            exchanges = [e for result in results for e in result.exchanges]
            rows = [row for exchange in exchanges for row in self.rows(exchange)]
            by_label = all(e.completion.slots for e in exchanges)
            written = sum(result.completion_tokens for result in results)
            return Ranked(
                rankings=[list(result.ranking.docids) for result in results],
                calls=len(rows),
                rows=rows,
                written=written if written and not by_label else len(rows),
                computed=sum(r.prompt_tokens + r.completion_tokens for r in results),
                texts=[e.completion.text for e in exchanges if not by_label],
            )

        return told


def open_system(settings: Mapping[str, Any], workload: Mapping[str, Any]) -> Ours:
    """The reranker of a workload; ``settings["overrides"]`` are handed to ``from_pretrained``."""
    folder = settings["folder"]
    overrides = {"dtype": settings["dtype"], **settings.get("overrides", {})}
    if workload["name"] == "cross_encoder":
        return _cross_encoder(folder, settings)
    ranker = Reranker.from_pretrained(
        folder,
        device="cpu",
        format=workload["format"],
        strategy=workload["strategy"],
        readout=workload["readout"],
        max_new_tokens=workload["max_new_tokens"],
        **overrides,
    )
    tokens = ChatTokens(ranker.loaded.tokenizer)

    def rows(exchange: Exchange) -> list[list[int]]:
        if hasattr(ranker.fmt, "slots"):
            return tokens.encode_prompts(list(ranker.fmt.prompts(exchange.view)))
        prompt = tokens.encode_prompt(exchange.prompt)
        text = "" if exchange.completion.slots else exchange.completion.text
        return [prompt + list(tokens.encode(text))[:-1]]

    return Ours(ranker, rows)


def _cross_encoder(folder: str, settings: Mapping[str, Any]) -> Ours:
    from transformers import AutoTokenizer

    if settings.get("own"):
        spec = {"name": "cross_encoder", "doc_tokens": 400, "prompt_tokens": 512}
        strategy = {"name": "by_score"}
        ranker = Reranker.from_pretrained(
            folder, device="cpu", dtype=settings["dtype"], format=spec, strategy=strategy
        )
    else:
        ranker = Reranker.from_cross_encoder(folder, device="cpu", dtype=settings["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def rows(exchange: Exchange) -> list[list[int]]:
        view = exchange.view
        pairs = [(view.query.text, candidate.text) for candidate in view.candidates]
        return [list(ids) for ids in tokenizer(pairs)["input_ids"]]

    return Ours(ranker, rows)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(open_system, ("rank-rl", "torch", "transformers"))
