"""What ``rank-rl check`` says about tokens: budgets, cuts, and the cost of an evaluation.

Counted on a sample of queries with the model's own tokenizer; where it is not there yet, in words.
Label slots are read in packed passes, which show what the documents of a view share only once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rank_rl.cli.show import heading, line
from rank_rl.errors import RecipeError
from rank_rl.generation.cost import prompt_tokens, sample_views

if TYPE_CHECKING:
    from rank_rl.bench.setting import Setting
    from rank_rl.data import Collection
    from rank_rl.formats import Format
    from rank_rl.models.counting import Counter
    from rank_rl.models.tokens import ChatTokens
    from rank_rl.records import RankingTask, View
    from rank_rl.specs import FormatSpec, RecipeSpec, SystemSpec
    from rank_rl.training.forecast import Forecast

logger = logging.getLogger(__name__)
SAMPLE = 12


def show_budget(
    train: Sequence[View],
    test: Sequence[RankingTask],
    spec: RecipeSpec,
    stage: str | None,
    counter: tuple[Counter, str],
) -> None:
    """Show token budgets and cuts of training and evaluation, and what an evaluation costs.

    Args:
        train: views as the stage would be trained on.
        test: what is evaluated, or ranked by stage rank.
        spec: the recipe.
        stage: the stage, where it is known.
        counter: what counts tokens, and which that is.
    """
    from rank_rl import formats, strategies

    fmt = formats.make(spec.format)
    how = _asking(spec, stage)
    tokens, counted = counter
    asked = sample_views(test, strategies.make(how.strategy))
    heading(f"budget: at most {spec.format.doc_tokens} tokens a document, {counted}")
    # Stage sft makes one row of each document that has a slot, the others pack them.
    alone = stage == "sft" and hasattr(fmt, "slots")
    _show_views("training", train, fmt, tokens, alone=alone)
    _show_views("evaluation", asked, formats.make(how.format), tokens, alone=False)
    if ranks(spec, stage) and spec.rank:
        heading(f"ranking {spec.rank.split}: {len(test)} queries with {how.strategy.name}")
    else:
        heading(f"one evaluation of {len(test)} queries with {how.strategy.name}")
    _show_cost(test, how, spec.run.seed, tokens)
    _show_room(asked, test, spec, how, tokens)
    _show_explanations(test, spec, asked, tokens)


def ranks(spec: RecipeSpec, stage: str | None) -> bool:
    """Whether a recipe is checked for stage rank."""
    return spec.rank is not None and stage in (None, "rank")


def _asking(spec: RecipeSpec, stage: str | None) -> Setting:
    """How a validation asks, or stage rank."""
    from rank_rl.bench.rank import teacher
    from rank_rl.bench.setting import Setting, contract_here, setting_with

    if ranks(spec, stage):
        contract = contract_here(spec.model.name)
        if contract and _reads_texts(contract.format) != _reads_texts(spec.format):
            contract = None  # the tokens of the recipe's format are counted in another way
        chosen = contract.format if contract else spec.format
        return setting_with(teacher(spec, chosen, contract=contract is not None), spec, contract)
    return Setting(
        format=spec.format,
        strategy=spec.eval.strategy,
        readout=spec.eval.readout,
        reasoning=spec.eval.reasoning,
        max_new_tokens=spec.eval.max_new_tokens,
        contract="",
    )


def _reads_texts(spec: FormatSpec) -> bool:
    from rank_rl import formats

    return formats.kind(formats.make(spec)) == "scorer"


def _show_views(
    name: str, views: Sequence[View], fmt: Format, tokens: Counter, *, alone: bool
) -> None:
    """Show the mean prompt tokens of views within budget and what was cut."""
    from rank_rl.formats.budget import CutReport, fit

    cuts, total = CutReport(), 0
    for view in views:
        fitted, cut = fit(view, tokens, fmt=fmt)
        cuts = cuts.merge(cut)
        total += prompt_tokens(fitted, fmt, tokens, alone=alone)
    mean = total / max(1, len(views))
    how = " (each document alone)" if alone else " (packed)" if hasattr(fmt, "slots") else ""
    line(f"{name}: {mean:.0f} prompt tokens a view{how} over {len(views)} views; {cuts.summary()}")


def _show_cost(test: Sequence[RankingTask], how: Setting, seed: int, tokens: Counter) -> None:
    from rank_rl import formats, strategies
    from rank_rl.generation.cost import answer_tokens, foresee

    fmt = formats.make(how.format)
    strategy = strategies.make(how.strategy, seed=seed)
    most = answer_tokens(fmt, how.readout, how.max_new_tokens)
    line(foresee(test, strategy, fmt, tokens, answer=most).line())


def _show_room(
    asked: Sequence[View],
    test: Sequence[RankingTask],
    spec: RecipeSpec,
    how: Setting,
    tokens: Counter,
) -> None:
    """Warn where answers as the recipe teaches them would be cut."""
    from rank_rl import formats
    from rank_rl.formats.budget import fit
    from rank_rl.generation.cost import answer_tokens
    from rank_rl.training.workload import ideal_tokens

    fmt = formats.make(how.format)
    room = answer_tokens(fmt, how.readout, how.max_new_tokens)
    if not room or how.reasoning == "skip":
        return
    tasks = {task.query.qid: task for task in test}
    pairs = [(tasks[view.query.qid], fit(view, tokens, fmt=fmt)[0]) for view in asked]
    longest = max(ideal_tokens(spec, fmt, pairs, tokens), default=0)
    if longest > room:
        line(
            f"warning: an ideal answer takes {longest} tokens, of which {room} are generated "
            "(eval.max_new_tokens)"
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
        chosen, length, whose = _explaining(system, spec)
        fmt = formats.make(chosen)
        if fmt.mode != "reason" or not length:
            continue
        shown = [fit(view, tokens, fmt=fmt)[0] for view in asked]
        alone = sum(prompt_tokens(view, fmt, tokens, alone=True) for view in shown)
        each = alone / max(1, sum(len(view.docids) for view in shown))
        number = sum(min(system.explain, len(task.candidates)) for task in test)
        line(
            f"bench system {system.name!r}: {number} explanations more, about "
            f"{each * number:,.0f} prompt tokens and at most {length * number:,} new ones{whose}"
        )


def _explaining(system: SystemSpec, spec: RecipeSpec) -> tuple[FormatSpec, int, str]:
    """Format and most tokens of a system's explanations, and what the number depends on.

    It is 0 where reasoning is skipped. Of a checkpoint that is not there yet nothing is known.
    """
    from rank_rl.bench.setting import MAX_NEW_TOKENS, contract_here, setting_with

    contract = contract_here(system.model) if system.model else None
    if contract:
        how = setting_with(system, spec, contract)
        return how.format, how.max_new_tokens if how.reasoning == "write" else 0, ""
    fmt = system.format or spec.format
    own = spec.eval.reasoning if fmt == spec.format else "write"
    skipped = (system.reasoning or own) == "skip"
    length = system.max_new_tokens or MAX_NEW_TOKENS
    named = system.max_new_tokens is not None
    whose = "" if named else f" ({length} each, if its checkpoint says nothing else)"
    return fmt, 0 if skipped else length, whose


def sampled(
    tasks: Sequence[RankingTask], spec: RecipeSpec, fmt: Format, tokens: ChatTokens
) -> list[tuple[RankingTask, View]]:
    """The first training view, within budget, of the first tasks that give one."""
    from rank_rl.formats.budget import fit
    from rank_rl.training import rollouts

    pairs = []
    for task in tasks[:SAMPLE]:
        views, _ = rollouts.draw(task, spec, fmt)
        pairs += [(task, fit(view, tokens, fmt=fmt)[0]) for view in views[:1]]
    return pairs


def show_step(
    stage: str | None,
    spec: RecipeSpec,
    collection: Collection,
    tokens: Counter,
    *,
    measure: bool = True,
) -> None:
    """Show seconds and memory of a training step; one line where they cannot be told."""
    from rank_rl import formats
    from rank_rl.models.tokens import ChatTokens
    from rank_rl.training import STAGES

    if stage not in STAGES:
        return
    if formats.kind(formats.make(spec.format)) == "scorer":
        heading("one step: not estimated for scorers")
        return
    if not isinstance(tokens, ChatTokens):
        heading("one step: not estimated, because the model is not there yet")
        return
    try:
        _show_step(stage, spec, collection, tokens, measure=measure)
    except RecipeError:  # the stage refuses it too
        raise
    except Exception as error:  # an estimate must not stop a check
        logger.debug("no estimate", exc_info=True)
        first = (str(error).splitlines() or [""])[0]
        heading(f"one step: not estimated ({type(error).__name__}: {first})")


def _show_step(
    stage: str, spec: RecipeSpec, collection: Collection, tokens: ChatTokens, *, measure: bool
) -> None:
    from rank_rl import formats
    from rank_rl.training.forecast import forecast

    fmt = formats.make(spec.format)
    started = time.monotonic()
    pairs = sampled(collection.train, spec, fmt, tokens)
    clock = time.perf_counter if measure else None
    found = forecast(stage, spec, fmt, pairs, tokens, clock=clock)
    spent = time.monotonic() - started
    heading(f"one step of stage {stage}, estimated for one process ({found.device})")
    _show_tokens(found)
    _show_memory(found)
    if found.rates is None:
        line("seconds and activations: not measured")
        return
    for number, step in enumerate(found.steps):
        parts = found.seconds(number)
        shown = ", ".join(f"{name} {duration(v)}" for name, v in parts.items() if v)
        made = f", answers of {step.generation.new} tokens" if step.generation else ""
        line(f"about {duration(sum(parts.values()))}{made}: {shown}")
    _show_run(found, spec, collection, tokens)
    _show_knobs(found)
    line(f"measured on one layer with random weights in {spent:.0f} s; see docs/footprint.md")


def _show_tokens(found: Forecast) -> None:
    for step in found.steps:
        one, made = step.typical, step.generation
        form = "packed" if one.packed else "in padded rows"
        answers = f"; {made.rows} answers of {made.new} tokens" if made else ""
        line(
            f"{step.micro} x {one.tokens:,} tokens {form} (at most {step.largest.tokens:,} in the "
            f"sample), {one.read:,} of them projected onto the vocabulary{answers}"
        )


def _show_memory(found: Forecast) -> None:
    memory = found.memory()
    always = ", ".join(f"{name} {size(v)}" for name, v in memory.always.items() if v)
    moments = ", ".join(f"{name} {size(v)}" for name, v in memory.moments.items())
    least = "" if found.rates else "at least "
    line(f"{least}{size(memory.peak)} at the peak: {always}; and the largest of {moments}")


def _show_run(
    found: Forecast, spec: RecipeSpec, collection: Collection, tokens: ChatTokens
) -> None:
    """The whole run: steps and validations."""
    from rank_rl import formats, strategies
    from rank_rl.formats.budget import fit
    from rank_rl.strategies import drive
    from rank_rl.training.forecast import validation_seconds

    step = [sum(found.seconds(number).values()) for number in range(len(found.steps))]
    shown = " to ".join(dict.fromkeys(duration(s * found.updates) for s in step))
    run = f"{found.updates} steps {shown}" if found.updates else "steps as many as the data gives"
    tasks = collection.validation
    if not tasks:
        line(f"whole run: {run}, no validation")
        return
    fmt, strategy = formats.make(spec.format), strategies.make(spec.eval.strategy)
    views = [fit(view, tokens, fmt=fmt)[0] for view in sample_views(tasks, strategy)]
    prompt = sum(prompt_tokens(view, fmt, tokens) for view in views) / max(1, len(views))
    slots = hasattr(fmt, "slots")
    each = validation_seconds(
        found,
        calls=drive.count(tasks, strategy).calls,
        prompt=prompt,
        new=None if slots else spec.eval.max_new_tokens,
    )
    every = spec.eval.every
    between = (found.updates - 1) // every if every and found.updates else 0
    times = spec.eval.on_start + between + 1
    most = "" if slots else "at most "
    counted = "1 validation" if times == 1 else f"{times} validations"
    line(f"whole run: {run}; {counted} of {len(tasks)} queries, {most}"
         f"{duration(each)} each")  # fmt: skip


def _show_knobs(found: Forecast) -> None:
    """What would make a step smaller or quicker, the largest part first."""
    from rank_rl.training.footprint import with_checkpointing

    memory, parts = found.memory(), found.seconds()
    largest = max(parts, key=parts.__getitem__)
    if memory.moment == "activations" and not found.how.checkpointing:
        saving = with_checkpointing(found.how)
        line(
            f"less memory: training.gradient_checkpointing: true (about "
            f"{size(found.memory(saving).peak)} and "
            f"{duration(sum(found.seconds(-1, saving).values()))} a step), or a smaller "
            "training.per_device_train_batch_size with more gradient_accumulation_steps"
        )
    elif memory.moment == "gradients" and found.known.trained == found.known.elements:
        line("less memory: model.lora, which needs no gradients and moments of all weights")
    if largest == "generation":
        line("quicker: shorter answers (training.max_completion_length), fewer a prompt "
             "(training.num_generations)")  # fmt: skip
    elif largest == "training":
        line("quicker: fewer tokens a document (format.doc_tokens), fewer documents "
             "(data.sampler.size)")  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds as a reader wants them."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(number: float) -> str:
    """Bytes as a reader wants them."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"
