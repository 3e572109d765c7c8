"""What ranking will cost, before it starts, and what it has cost: one count for all who ask.

Calls and depth come from running the strategy with a stand-in for the model (``drive.count``),
prompt tokens from prompts of a sample, rendered within their budget and counted by the tokenizer.
Of what the model writes, only the most that its answers may take is known; explanations are not
foreseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rank_rl.formats import kind
from rank_rl.formats.base import Format
from rank_rl.formats.budget import fit
from rank_rl.records import RankingTask, View
from rank_rl.strategies import Strategy, drive
from rank_rl.strategies.oracle import copy

TASKS, VIEWS = 12, 24  # of a sample of prompts
COUNTED = 50  # queries that a strategy is tried on where its cost depends on the answers


class Spent(Protocol):
    """What one query has cost."""

    @property
    def calls(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What ranking a number of queries takes.

    Attributes:
        queries: how many.
        calls: views asked, over all queries.
        depth: most rounds of a query that have to wait for one another.
        documents: documents shown, over all calls.
        prompt_tokens: tokens that the model reads, estimated from a sample.
        new_tokens: most tokens that its answers may take.
        exact: whether calls, depth and documents do not depend on the answers.
    """

    queries: int
    calls: int
    depth: int
    documents: int
    prompt_tokens: int
    new_tokens: int = 0
    exact: bool

    def line(self) -> str:
        """All of it in one line."""
        about = "" if self.exact else "about "
        new = f" and at most {self.new_tokens:,} new ones" if self.new_tokens else ""
        calls, documents = _number(self.calls, "call"), _number(self.documents, "document")
        return (
            f"{_number(self.queries, 'query', 'queries')}: {about}{calls} showing {documents}, "
            f"depth {about}{self.depth}, about {self.prompt_tokens:,} prompt tokens{new}"
        )


class Asks(Protocol):
    """What ranks: a ``Reranker``."""

    @property
    def strategy(self) -> Strategy: ...
    @property
    def fmt(self) -> Format: ...
    @property
    def readout(self) -> str: ...
    @property
    def asker(self) -> Any: ...
    @property
    def generator(self) -> Any: ...


def foreseen(reranker: Asks, tasks: Sequence[RankingTask]) -> Cost:
    """What ranking ``tasks`` with a reranker takes; see ``foresee``."""
    most = getattr(reranker.generator, "max_new_tokens", 0)
    length = answer_tokens(reranker.fmt, reranker.readout, most)
    tokens = reranker.asker.tokens
    return foresee(tasks, reranker.strategy, reranker.fmt, tokens, answer=length)


def answer_tokens(fmt: Format, readout: str, most: int) -> int:
    """Most tokens that an answer takes: none where it is read off probabilities."""
    return most if kind(fmt) == "text" and readout != "score" else 0


def foresee(
    tasks: Sequence[RankingTask], strategy: Strategy, fmt: Format, tokens: Any, *, answer: int = 0
) -> Cost:
    """Count what ranking ``tasks`` takes.

    Args:
        tasks: what is to be ranked.
        strategy: which views are asked.
        fmt: what a prompt shows.
        tokens: the tokenizer that counts (``ChatTokens``, or ``Words`` where there is none yet).
        answer: most tokens of an answer.

    Raises:
        RankRLError: a prompt of the sample cannot be rendered or is too long.
    """
    count = _count(tasks, strategy)
    views = sample_views(tasks, strategy)
    read = sum(prompt_tokens(fit(view, tokens, fmt=fmt)[0], fmt, tokens) for view in views)
    return Cost(
        queries=len(tasks),
        calls=count.calls,
        depth=count.depth,
        documents=count.documents,
        prompt_tokens=round(read / max(1, len(views)) * count.calls),
        new_tokens=answer * count.calls,
        exact=count.exact,
    )


def _count(tasks: Sequence[RankingTask], strategy: Strategy) -> drive.Count:
    """``drive.count`` without running the strategy for each of thousands of queries.

    Where costs do not depend on the answers, queries with as many candidates cost the same; else
    they are estimated from some of the queries.
    """
    if getattr(strategy, "fixed_cost", False):
        sizes = Counter(len(task.candidates) for task in tasks)
        first = {len(task.candidates): task for task in reversed(tasks)}
        counted = [(times, drive.count([first[n]], strategy)) for n, times in sizes.items()]
        exact = True
    else:
        some = tasks[:: max(1, len(tasks) // COUNTED)][:COUNTED]
        counted = [(1, drive.count([task], strategy)) for task in some]
        exact = False
    scale = len(tasks) / max(1, sum(times for times, _ in counted))
    return drive.Count(
        calls=round(scale * sum(times * c.calls for times, c in counted)),
        depth=max((c.depth for _, c in counted), default=0),
        documents=round(scale * sum(times * c.documents for times, c in counted)),
        exact=exact,
    )


def sample_views(tasks: Sequence[RankingTask], strategy: Strategy) -> list[View]:
    """Views that the strategy asks about the first tasks, from its first to its last rounds."""
    results = drive.run(tasks[:TASKS], strategy, lambda vs: [copy(v, "scores") for v in vs])
    views = [view for result in results for view, _ in result.outcomes]
    step = max(1, len(views) // VIEWS)
    return views[::step][:VIEWS]


def prompt_tokens(view: View, fmt: Format, tokens: Any, *, alone: bool = False) -> int:
    """Tokens that a model reads for a view: one packed pass over label slots, else all prompts."""
    if alone or not hasattr(fmt, "slots"):
        return sum(tokens.count_prompt(prompt) for prompt in fmt.prompts(view))
    prefix, segments = tokens.encode_slots(fmt.slots(view))
    return len(prefix) + sum(map(len, segments))


def spent_line(results: Sequence[Spent]) -> str:
    """What ranked queries have cost, in one line."""
    calls, depth = sum(r.calls for r in results), max((r.depth for r in results), default=0)
    read, written = sum(r.prompt_tokens for r in results), sum(r.completion_tokens for r in results)
    seconds = sum(r.seconds for r in results)
    queries = _number(len(results), "query", "queries")
    return (
        f"{queries} took {_number(calls, 'call')}, depth {depth}, {read:,} prompt tokens, "
        f"{written:,} new ones, {seconds:.1f} s"
    )


def _number(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
