"""rank_rl's own prompts and strategies, answered by another engine.

What is asked is rank_rl's, token by token, so that systems differ in nothing but how the model is
run: label questions become one forward pass a prompt, all others one generation a prompt. Written
for engines that take rows of token ids; needs rank_rl on the path, not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from protocol import Ranked, Task

from rank_rl import formats, strategies
from rank_rl.formats.budget import fit
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Candidate, Outcome, Prompt, Query, RankingTask, Scores, View
from rank_rl.specs import FormatSpec, StrategySpec
from rank_rl.strategies import drive

Rows = list[list[int]]


class Engine(Protocol):
    """Runs a model on rows of token ids."""

    computed: int

    def labels(self, rows: Rows, choices: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability, up to a constant of the row, of each token that may come next."""
        ...

    def texts(self, rows: Rows, most: int) -> Rows:
        """Greedy answers of at most ``most`` tokens, without the token that ends them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt, what its answer may begin with, and the tokens that tell those apart."""

    stem: list[int]
    choices: list[int]


class Asker:
    """Ranks tasks by asking an engine what rank_rl asks.

    Args:
        tokenizer: the model's.
        workload: as ``workloads`` makes them.
        engine: what answers.
        size: views asked together; 1 asks one after the other.
    """

    def __init__(
        self, tokenizer: Any, workload: Mapping[str, Any], engine: Engine, size: int
    ) -> None:
        self.tokens, self.engine, self.size = ChatTokens(tokenizer), engine, size
        self.fmt = formats.make(FormatSpec.model_validate(workload["format"]))
        self.strategy = strategies.make(StrategySpec.model_validate(workload["strategy"]))
        self.most = int(workload["max_new_tokens"])
        self.by_label = workload["readout"] == "score"
        self.end = tokenizer.eos_token_id

    def rank(self, tasks: Sequence[Task]) -> Callable[[], Ranked]:
        """Rank tasks in one run of the strategy."""
        ranked = Ranked()
        self.engine.computed = 0

        def answer(views: list[View]) -> list[Outcome]:
            shown = [fit(view, self.tokens, fmt=self.fmt)[0] for view in views]
            ask = self._labels if self.by_label else self._texts
            return ask(shown, ranked)

        made = [task_of(task) for task in tasks]
        results = drive.run(made, self.strategy, answer, batch_size=self.size)
        ranked.rankings = [list(result.ranking.docids) for result in results]
        ranked.computed = self.engine.computed
        return lambda: ranked

    def _labels(self, views: Sequence[View], ranked: Ranked) -> list[Outcome]:
        asked = [self._questions(view) for view in views]
        flat = [question for questions in asked for question in questions]
        found = iter(self.engine.labels([q.stem for q in flat], [q.choices for q in flat]))
        ranked.rows += [q.stem for q in flat]
        ranked.calls += len(flat)
        ranked.written += len(flat)
        return [
            self._outcome(view, [next(found) for _ in questions])
            for view, questions in zip(views, asked, strict=True)
        ]

    def _questions(self, view: View) -> list[Question]:
        """One question a document, or one of the whole view."""
        if hasattr(self.fmt, "slots"):
            labels = list(self.fmt.labels)
            prompts = self.fmt.prompts(view)
            return [self._question(prompt, prompt.prefill, labels) for prompt in prompts]
        prompt, fmt = self.fmt.render(view), self.fmt
        return [self._question(prompt, fmt.lead(view), fmt.choices(view))]

    def _question(self, prompt: Prompt, lead: str, choices: Sequence[str]) -> Question:
        rows = self.tokens.encode_prompts([replace(prompt, prefill=lead + c) for c in choices])
        most = min(map(len, rows)) - 1
        same = next((i for i in range(most) if len({row[i] for row in rows}) > 1), most)
        return Question(stem=rows[0][:same], choices=[row[same] for row in rows])

    def _outcome(self, view: View, found: Sequence[Sequence[float]]) -> Outcome:
        """Scores by document: each document's labels, worst first, or one label a document."""
        own = len(found) == len(view.docids)  # a pick among one document says nothing either way
        values = [row[-1] - row[0] for row in found] if own else list(found[0])
        return Outcome(
            status="ok", answer=Scores(values=dict(zip(view.docids, values, strict=True)))
        )

    def _texts(self, views: Sequence[View], ranked: Ranked) -> list[Outcome]:
        prompts = [self.fmt.render(view) for view in views]
        rows = self.tokens.encode_prompts(prompts)
        answers = self.engine.texts(rows, self.most)
        texts = [self.tokens.decode(ids) for ids in answers]
        ranked.rows += [row + ids for row, ids in zip(rows, answers, strict=True)]
        ranked.calls += len(rows)
        ranked.written += sum(map(len, answers))
        ranked.texts += texts
        return [
            self.fmt.parse(text, view, prefill=prompt.prefill)
            for text, view, prompt in zip(texts, views, prompts, strict=True)
        ]


def task_of(task: Task) -> RankingTask:
    """A task of the protocol as rank_rl's record."""
    candidates = tuple(
        Candidate(docid=document["id"], text=document["text"], rank=i + 1)
        for i, document in enumerate(task["documents"])
    )
    return RankingTask(query=Query(qid=task["qid"], text=task["query"]), candidates=candidates)
