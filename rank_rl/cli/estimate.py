"""What ``rank-rl check`` says about tokens: budgets, cuts, and the cost of an evaluation.

Counted on a sample of queries with the model's own tokenizer; where it is not there yet, in words.
Label slots are read in packed passes, which show what the documents of a view share only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rank_rl.cli.show import heading, line

if TYPE_CHECKING:
    from rank_rl.formats import Format
    from rank_rl.models.tokens import ChatTokens
    from rank_rl.records import RankingTask, SlotPrompt, View
    from rank_rl.specs import RecipeSpec

    Counter: TypeAlias = "ChatTokens | Words"

SAMPLE = 12


class Words:
    """Counts words where there is no tokenizer yet; budgets are then only a guess."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: list[str] = []

    def encode(self, text: str) -> list[int]:
        """One id for each word."""
        for word in text.split():
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
        return [self._ids[word] for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        """The words, joined by spaces."""
        return " ".join(self._words[i] for i in ids)

    def count_prompt(self, prompt: Any) -> int:
        """Words of all messages and the prefill."""
        return sum(len(m["content"].split()) for m in prompt.messages) + len(prompt.prefill.split())

    def encode_slots(self, prompt: SlotPrompt) -> tuple[list[int], list[list[int]]]:
        """Words of the shared head, and of each document up to its slot."""
        shared = self.encode(f"{prompt.system} {prompt.head}")
        return shared, [self.encode(f"{body} {prompt.lead}") for body in prompt.bodies]


def token_counter(name: str) -> tuple[Counter, str]:
    """The model's tokenizer, or a count of words when it is not there; and which of them it is.

    Weights are not loaded, and of a Hub model only the tokenizer is fetched.
    """
    from rank_rl.errors import ModelError
    from rank_rl.models import loading, sources
    from rank_rl.models.tokens import ChatTokens

    here = name.startswith("pip:") or Path(name).expanduser().exists()
    if not here and name.count("/") != 1:  # a folder that a stage before this one will write
        return Words(), f"counted in words, because {name} is not there yet (tokens are more)"
    try:
        remote = sources.Source(name=name, path=Path(name), revision="")
        source = sources.locate(name) if here else remote
        return ChatTokens(loading.load_tokenizer(source)), f"counted with the tokenizer of {name}"
    except ModelError as error:
        line(f"no tokenizer: {error.line()}")
        return Words(), "counted in words (tokens are more)"


def show_budget(
    train: Sequence[View],
    test: Sequence[RankingTask],
    spec: RecipeSpec,
    stage: str | None,
    counter: tuple[Counter, str],
) -> None:
    """Show token budgets and cuts of training and evaluation, and what an evaluation costs."""
    from rank_rl import formats, strategies

    fmt = formats.make(spec.format)
    strategy = strategies.make(spec.eval.strategy)
    tokens, counted = counter
    asked = [next(strategy.plan(task))[0] for task in test[:SAMPLE]]
    heading(f"budget: at most {spec.format.doc_tokens} tokens a document, {counted}")
    # Stage sft makes one row of each document that has a slot, the others pack them.
    alone = stage == "sft" and hasattr(fmt, "slots")
    _show_views("training", train, fmt, tokens, alone=alone)
    mean = _show_views("evaluation", asked, fmt, tokens, alone=False)
    _show_evaluation(test, spec, mean, generated=not hasattr(fmt, "slots"))
    _show_explanations(test, spec, asked, tokens)


def _show_views(
    name: str, views: Sequence[View], fmt: Format, tokens: Counter, *, alone: bool
) -> float:
    """Show the mean prompt tokens of views within budget and what was cut; return the mean."""
    from rank_rl.formats.budget import CutReport, fit

    cuts, total = CutReport(), 0
    for view in views:
        fitted, cut = fit(view, tokens, fmt=fmt)
        cuts = cuts.merge(cut)
        total += prompt_tokens(fitted, fmt, tokens, alone=alone)
    mean = total / max(1, len(views))
    how = " (each document alone)" if alone else " (packed)" if hasattr(fmt, "slots") else ""
    line(
        f"{name}: {mean:.0f} prompt tokens a view{how} over {len(views)} queries; {cuts.summary()}"
    )
    return mean


def prompt_tokens(view: View, fmt: Format, tokens: Counter, *, alone: bool = False) -> int:
    """Tokens that a model reads for a view: one packed pass over label slots, else all prompts."""
    if alone or not hasattr(fmt, "slots"):
        return sum(tokens.count_prompt(prompt) for prompt in fmt.prompts(view))
    prefix, segments = tokens.encode_slots(fmt.slots(view))
    return len(prefix) + sum(map(len, segments))


def _show_evaluation(
    test: Sequence[RankingTask], spec: RecipeSpec, mean: float, *, generated: bool
) -> None:
    from rank_rl import strategies
    from rank_rl.strategies import drive

    count = drive.count(test, strategies.make(spec.eval.strategy))
    new = f" and at most {spec.eval.max_new_tokens * count.calls:,} new ones" if generated else ""
    heading(f"one evaluation of {len(test)} queries with {spec.eval.strategy.name}")
    line(
        f"{count.calls} calls showing {count.documents} documents, {count.depth} in a row "
        f"for a query; about {mean * count.calls:,.0f} prompt tokens{new}"
    )


def _show_explanations(
    test: Sequence[RankingTask], spec: RecipeSpec, asked: Sequence[View], tokens: Counter
) -> None:
    """What the systems of the bench that write explanations add to it."""
    from rank_rl import formats
    from rank_rl.formats.budget import fit

    for system in spec.bench.systems if spec.bench else ():
        if not system.explain:
            continue
        fmt = formats.make(system.format or spec.format)
        if fmt.mode != "reason":
            continue
        shown = [fit(view, tokens, fmt=fmt)[0] for view in asked]
        alone = sum(prompt_tokens(view, fmt, tokens, alone=True) for view in shown)
        each = alone / max(1, sum(len(view.docids) for view in shown))
        number = sum(min(system.explain, len(task.candidates)) for task in test)
        line(
            f"bench system {system.name!r}: {number} explanations more, about "
            f"{each * number:,.0f} prompt tokens and at most "
            f"{(system.max_new_tokens or spec.eval.max_new_tokens) * number:,} new ones"
        )
