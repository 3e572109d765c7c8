"""What ``rank-rl check`` says about tokens: budgets, cuts, and the cost of an evaluation.

Counted on a sample of queries with the model's own tokenizer; where it is not there yet, in words.
Label slots are read in packed passes, which show what the documents of a view share only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rank_rl.cli.show import heading, line

if TYPE_CHECKING:
    from rank_rl.formats import Format
    from rank_rl.models.counting import Counter
    from rank_rl.records import RankingTask, View
    from rank_rl.specs import RecipeSpec

SAMPLE = 12


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
