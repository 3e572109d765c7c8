"""``rank-rl check``: what a recipe would do, without a GPU and without loading weights.

Every name is resolved and the data is read; printed are a prompt, its ideal answer, what answers
would earn, the splits and their leaks; token budgets and costs are left to ``estimate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rank_rl.cli import stand_in as stand_ins
from rank_rl.cli.estimate import SAMPLE, ranks, show_budget, show_step
from rank_rl.cli.leaks import show_facts
from rank_rl.cli.show import heading, line, show_table
from rank_rl.cli.stages import Overrides, RecipePath

if TYPE_CHECKING:
    from rank_rl.data import Collection
    from rank_rl.formats import Format
    from rank_rl.formats.budget import TokenCounter
    from rank_rl.recipe import Recipe
    from rank_rl.records import RankingTask, View
    from rank_rl.specs import RecipeSpec

TEXTS = 3  # documents of a view that are shown of what a scorer reads
GARBAGE = "The documents are all very interesting."


def check(
    recipe: RecipePath,
    set_: Overrides = None,
    stage: Annotated[
        str | None,
        typer.Option(help="Check the training section for this stage: score, sft or grpo."),
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Measure a layer here, to estimate a step's time and memory.")
    ] = True,
    stand_in: Annotated[
        bool,
        typer.Option("--stand-in", help="Replace data and model that are not on this machine."),
    ] = False,
) -> None:
    """Check a recipe and show a prompt, its ideal answer, rewards, budgets, cost and splits."""
    from rank_rl import data, formats
    from rank_rl import recipe as recipes
    from rank_rl.models.counting import token_counter

    loaded = recipes.load(recipe, set_ or [])
    spec = loaded.spec
    heading(f"{recipe} is a valid recipe, hash {loaded.hash}")
    stage = stage or stage_of(recipe) or _likely(spec)
    _training(loaded, stage)
    fmt = formats.make(spec.format)
    replaced = stand_ins.stand_in(spec) if stand_in else None
    for text in replaced.said if replaced else ():
        line(text)
    spec = replaced.spec if replaced else spec
    collection = data.load(spec.data, seed=spec.run.seed)
    _splits(collection)
    _asking(spec, stage, collection)
    estimated = stage if replaced is None or replaced.model_here else None
    if spec.data.lessons and stage in (None, "sft"):
        counter = replaced.counter if replaced else token_counter(spec.model.name)
        _lesson(collection, fmt, spec, counter[0])
        show_step(estimated, spec, collection, counter[0], measure=measure)
        return
    tasks = collection.train or collection.validation or collection.test
    views = _train_views(tasks, spec, fmt)
    if not views:
        line("no training view could be drawn: every draw lacks relevant or other documents")
        return
    scorer = formats.kind(fmt) == "scorer"
    counter = replaced.counter if replaced else token_counter(spec.model.name, chat=not scorer)
    if scorer:
        _texts(views[0], fmt, counter[0])
    else:
        _prompt(views[0], tasks, fmt, spec, counter[0])
    _paid(views, tasks, fmt, spec, stage)
    _lint(tasks, spec)
    asked = collection.test
    if ranks(spec, stage) and spec.rank:
        asked = getattr(collection, spec.rank.split)
    show_budget(views, asked or tasks, spec, stage, counter)
    show_step(estimated, spec, collection, counter[0], measure=measure)


def _training(loaded: Recipe, stage: str | None) -> None:
    """Check what needs no data, by what the stages themselves call."""
    from rank_rl import losses
    from rank_rl.errors import RecipeError
    from rank_rl.training import STAGES
    from rank_rl.training.arguments import check_training
    from rank_rl.training.upfront import check_reading, check_stage

    spec, training = loaded.spec, loaded.spec.training
    if spec.losses:
        losses.make(spec.losses)  # also those that the stage has no use for
    if stage in STAGES:
        check_training(stage, training, policy=spec.grpo.policy, where=loaded.path)
        check_stage(stage, spec)
        line(f"training: {len(training)} arguments fit the {stage} stage")
        return
    if stage not in (None, "bench", "rank", "teach"):
        raise RecipeError(f"no stage {stage!r}", where="--stage", expected=", ".join(STAGES))
    if _validates(spec, stage):
        check_reading(spec)
    if stage is None:
        line("training: not checked (name the stage with --stage)")


def _likely(spec: RecipeSpec) -> str | None:
    """The training stage that the sections of a recipe speak of, where they speak of one."""
    if spec.bench or spec.rank or spec.teach or not (spec.rewards or spec.losses):
        return None
    stage = "grpo" if spec.rewards else "score"
    line(f"stage {stage}, because there are {'rewards' if spec.rewards else 'losses'} (or --stage)")
    return stage


def _validates(spec: RecipeSpec, stage: str | None) -> bool:
    """Whether ``eval`` says how the recipe's own model is validated."""
    from rank_rl.training import STAGES

    return stage in STAGES or (stage is None and not spec.bench and not spec.rank)


def _asking(spec: RecipeSpec, stage: str | None, collection: Collection) -> None:
    """Check that strategies fit formats, of validation and of systems whose models are here."""
    from rank_rl.bench.setting import check_strategy, settled
    from rank_rl.training.upfront import check_reading, check_validation

    if _validates(spec, stage):
        check_validation(spec, collection, check_reading(spec))
    for system in spec.bench.systems if spec.bench and stage in (None, "bench") else ():
        how = settled(system, spec)
        if how is not None:
            check_strategy(system, how, spec, collection.test)


def stage_of(path: Path) -> str | None:
    """The stage for which the folder's pipeline.yaml uses this recipe, if it does.

    A recipe at a paper's scale (``grpo_paper.yaml``) has the stage of its small one
    (``grpo.yaml``), ``paper.yaml`` that of the pipeline's last training stage.
    """
    from rank_rl import recipe as recipes
    from rank_rl.training import STAGES

    if not (path.parent / "pipeline.yaml").is_file():
        return None
    stages = recipes.load_pipeline(path.parent)[0].stages
    if path.stem == "paper":
        return next((s.stage for s in reversed(stages) if s.stage in STAGES), None)
    name = path.stem.removesuffix("_paper")
    return next((s.stage for s in stages if s.recipe == f"{name}{path.suffix}"), None)


def _splits(collection: Collection) -> None:
    heading(f"data: {collection.name}")
    rows = []
    for name, facts in collection.provenance["splits"].items():
        row = {"split": name, "queries": facts["queries"], "candidates": facts["candidates"]}
        row["relevant"] = facts["relevant_per_query"]
        row |= {f"nDCG@10 {k.replace('_', ' ')}": v for k, v in facts["ndcg@10"].items()}
        rows.append(row)
    show_table(rows)
    leaks = collection.provenance["leaks"]
    line(
        f"training and test share {len(leaks['shared_qids'])} query ids and "
        f"{len(leaks['shared_texts'])} query texts ({leaks['removed_queries']} training queries "
        f"removed), and {leaks['shared_relevant_documents']} relevant documents (kept)"
    )
    if "overlap" in leaks:
        show_facts(leaks["overlap"])


def _lesson(collection: Collection, fmt: Format, spec: RecipeSpec, tokens: TokenCounter) -> None:
    """Count the lessons that stage sft would train on, and show the first as it would."""
    from rank_rl.data import lessons, rows
    from rank_rl.formats.budget import fit

    held_out = (*collection.validation, *collection.test)
    found = lessons.read(Path(str(spec.data.lessons)).expanduser())
    kept, report = lessons.usable(found, fmt, held_out, collection.leaking)
    heading(f"lessons: {spec.data.lessons}")
    leaking = f", {report['leaking']} overlap with test queries" if "leaking" in report else ""
    line(
        f"{len(kept)} of {report['read']} are trained on; {report['held_out']} are about queries "
        f"held out, {report['not_in_format']} do not fit format {fmt.spec.name}{leaking}"
    )
    for lesson in kept[:1]:
        view, _ = fit(lesson.view, tokens, fmt=fmt)
        reason = spec.data.reasoning != "none"
        row = rows.lesson_rows(lesson, view, fmt, reason=reason)[0]
        heading(f"one lesson ({fmt.version}, mode {fmt.mode}, query {view.query.qid})")
        for message in [*row["prompt"], *row["completion"]]:
            line(f"<{message['role']}>")
            line(message["content"])


def _train_views(tasks: Sequence[RankingTask], spec: RecipeSpec, fmt: Format) -> list[View]:
    from rank_rl.data.sampling import SampleReport
    from rank_rl.training import rollouts

    drawn, report = [], SampleReport()
    for task in tasks[:SAMPLE]:
        views, found = rollouts.draw(task, spec, fmt)
        drawn.append(views)
        report += found
    if spec.data.sampler.name == "rollout":
        name = (spec.data.sampler.strategy or spec.eval.strategy).name
        line(f"roll-outs of strategy {name} on {len(drawn)} queries: {report.line()}")
    return [view for views in drawn for view in views[:1]]


def _prompt(
    view: View,
    tasks: Sequence[RankingTask],
    fmt: Format,
    spec: RecipeSpec,
    tokens: TokenCounter,
) -> None:
    """Show one prompt with its ideal answer, and what four answers to it earn."""
    from rank_rl.data import annotations
    from rank_rl.formats.base import picks_worst
    from rank_rl.formats.budget import fit

    task = next(t for t in tasks if t.query.qid == view.query.qid)
    view, _ = fit(view, tokens, fmt=fmt)
    prompt = fmt.prompts(view)[0]
    heading(f"one prompt ({fmt.version}, mode {fmt.mode}, query {view.query.qid})")
    for message in prompt.messages:
        line(f"<{message['role']}>")
        line(message["content"])
    line(f"<assistant>{prompt.prefill}")
    style = spec.data.reasoning if fmt.mode == "reason" else "none"
    if hasattr(fmt, "slots") and style != "none":
        known = annotations.reasoning(task)
        reasoning = "\n".join(known.note(docid) for docid in view.docids)
    else:
        reasoning = annotations.told(task, view, style, worst=picks_worst(fmt))
    ideal = fmt.ideal(view, task.grades or {}, reasoning)
    heading("its ideal answer" + (", one line a document" if hasattr(fmt, "slots") else ""))
    line(ideal)
    _rewards(view, task, fmt, spec, ideal.removeprefix(prompt.prefill), prompt.prefill)


def _texts(view: View, fmt: Any, tokens: TokenCounter) -> None:
    """Show what a scorer reads of one view; it writes nothing, so there is no ideal answer."""
    from rank_rl.formats.budget import fit

    view, report = fit(view, tokens, fmt=fmt)
    query, documents = fmt.texts(view)
    heading(f"texts of one view ({fmt.version}, query {view.query.qid})")
    line(f"<query> {query}")
    for text in documents[:TEXTS]:
        line(f"<document> {text}")
    lengths = [tokens.count_prompt(prompt) for prompt in fmt.prompts(view)]
    line(
        f"{len(documents)} documents; {len(lengths)} sequences of {min(lengths)} to {max(lengths)} "
        f"tokens; {report.summary()}"
    )


def _rewards(
    view: View, task: RankingTask, fmt: Format, spec: RecipeSpec, ideal: str, prefill: str
) -> None:
    from rank_rl import rewards
    from rank_rl.records import Completion
    from rank_rl.strategies.oracle import copy, kind_of

    if not spec.rewards:
        heading("rewards: none in this recipe")
        return
    composite = rewards.make(spec.rewards)
    outcomes = {"ideal": fmt.parse(ideal, view, prefill=prefill)}
    kind = kind_of(outcomes["ideal"].answer)
    outcomes["first stage"] = copy(_sorted(view), kind)
    outcomes["reversed"] = copy(_sorted(view, reverse=True), kind)
    outcomes["garbage"] = fmt.parse(GARBAGE, view, prefill=prefill)
    texts = {"ideal": ideal, "garbage": GARBAGE}
    rows = []
    for name, outcome in outcomes.items():
        # Answers that are not written out have no length: a length reward pays them in full.
        completion = Completion(text=texts.get(name, ""))
        scored = composite(outcome, view, task.grades or {}, completion)
        issues = ", ".join(outcome.issues)
        rows.append(
            {"answer": name, "parsed": outcome.status, "total": scored.total, **scored.parts}
            | {"issues": issues}
        )
    low, high = composite.bounds
    heading(f"rewards (between {low:.2f} and {high:.2f})")
    show_table(rows)


def _paid(
    views: Sequence[View],
    tasks: Sequence[RankingTask],
    fmt: Format,
    spec: RecipeSpec,
    stage: str | None,
) -> None:
    """Refuse rewards that pay for nothing, as stage grpo does."""
    from rank_rl import rewards
    from rank_rl.training.grpo_checks import check_paid

    if stage == "grpo" and spec.grpo.policy == "text":
        grades = {task.query.qid: task.grades or {} for task in tasks}
        cases = [(view, view.grades(grades[view.query.qid])) for view in views]
        check_paid(rewards.make(spec.rewards), fmt, cases)


def _lint(tasks: Sequence[RankingTask], spec: RecipeSpec) -> None:
    """Say in one line whether the rewards keep their order against the adversaries."""
    from rank_rl.cli import lint

    if spec.rewards:
        report = lint.judge(spec, lint.cases_of(tasks, spec, lint.VIEWS))
        line(report.line() + ("" if report.clean else ": see rank-rl lint-rewards"))


def _sorted(view: View, *, reverse: bool = False) -> View:
    """The view with its documents in (reversed) first-stage order under their own labels."""
    from dataclasses import replace

    order = sorted(view.candidates, key=lambda c: c.rank, reverse=reverse)
    labels = tuple(view.label(c.docid) for c in order)
    return replace(view, candidates=tuple(order), labels=labels)
