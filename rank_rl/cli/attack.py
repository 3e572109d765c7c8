"""``rank-rl attack``: how far documents rise by what they say to their ranker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from rank_rl.cli import asked
from rank_rl.cli.show import heading, line, show_table
from rank_rl.errors import RecipeError

if TYPE_CHECKING:
    from rank_rl.attacks.cases import Plan, Target
    from rank_rl.attacks.defences import Defence
    from rank_rl.attacks.measure import Finding
    from rank_rl.data.injection_texts import Part
    from rank_rl.hub.contract import PromptContract
    from rank_rl.records import RankingTask
    from rank_rl.rerank import Reranker
    from rank_rl.specs import StrategySpec

CHOICES = {
    "--target": ("other", "last", "relevant"),
    "--place": ("start", "end", "random"),
    "--part": ("test", "train"),
}


def attack(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, Hub id or pip:<package>.")],
    data: Annotated[
        str, typer.Option(help="Tasks (.jsonl), a recipe (.yaml: its test split), or bundled.")
    ] = "musique200",
    output: Annotated[
        Path, typer.Option(help="JSON file with everything; tables as CSV lie beside it.")
    ] = Path("attack.json"),
    queries: Annotated[int, typer.Option(min=1, help="Most queries, drawn by the seed.")] = 20,
    depth: Annotated[int, typer.Option(min=2, help="Candidates of each query.")] = 20,
    kinds: Annotated[str, typer.Option(help="Kinds or groups: injections, odd, all.")] = "all",
    defences: Annotated[
        str, typer.Option(help="none, clean, quote, sandwich, two_orders, constrained, labels.")
    ] = "none",
    target: Annotated[
        str, typer.Option(help="Which document: other (not relevant), last (of these), relevant.")
    ] = "other",
    place: Annotated[str, typer.Option(help="Where in it: start, end or random.")] = "random",
    part: Annotated[str, typer.Option(help="Phrasings: test, or train (those of recipes).")] = (
        "test"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Draws queries, documents, phrasings.")] = 0,
    format_: asked.FormatOption = None,
    readout: asked.ReadoutOption = "auto",
    reasoning: asked.ReasoningOption = None,
    strategy: asked.StrategyOption = None,
    strategy_params: asked.ParamsOption = None,
    max_new_tokens: asked.MaxNewTokens = None,
    device: asked.Device = "auto",
    revision: asked.Revision = None,
) -> None:
    """Attack documents by what they say, and measure how far a model lets them rise."""
    from rank_rl.attacks.cases import Plan, kinds_named
    from rank_rl.attacks.defences import make

    for option, given in (("--target", target), ("--place", place), ("--part", part)):
        if given not in CHOICES[option]:
            known = ", ".join(CHOICES[option])
            raise RecipeError(f"{given!r}", where=option, expected=f"one of {known}")
    named = asked.strategy_named(strategy, strategy_params)
    options = asked.asking_options(readout, reasoning, named)
    options |= {"format": asked.format_named(format_), "device": device, "revision": revision}
    options |= {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    contract = _contract(model, revision) if options["format"] is None else None
    own = named or _strategy(options["format"], contract)
    tried = [make(name, own) for name in _names(defences)]
    tasks = read_tasks(data, queries=queries, depth=depth, seed=seed)
    spec = contract.format if contract is not None else options["format"]
    plan = Plan(
        kinds=kinds_named(_names(kinds)),
        target=cast("Target", target),
        place=place,
        part=cast("Part", part),
        shape=spec.name,
        seed=seed,
    )
    facts: dict[str, Any] = {"model": model, "data": data, "readout": readout}
    facts |= {"format": spec.model_dump(mode="json"), "strategy": own.model_dump(mode="json")}
    facts |= {"contract": contract and contract.hash, "trained_on": _trained(contract)}
    _run(tasks, plan, tried, _rankers(model, options), output, facts)


def _names(text: str) -> tuple[str, ...]:
    """Names from a list with commas or spaces."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def read_tasks(name: str, *, queries: int, depth: int, seed: int) -> list[RankingTask]:
    """Lists to attack: some queries of a file of tasks, of a recipe's test split, or bundled ones.

    Raises:
        DataError: they cannot be read.
        RecipeError: no such recipe.
    """
    from dataclasses import replace

    from rank_rl import data, recipe, seeds
    from rank_rl.data import tasks as task_files
    from rank_rl.specs import DataSpec, FirstStageSpec

    path = Path(name)
    if path.suffix == ".jsonl":
        found: Sequence[RankingTask] = task_files.read_tasks(path)
    elif path.suffix in (".yaml", ".yml"):
        loaded = recipe.load(path).spec
        found = data.load(loaded.data, seed=loaded.run.seed).test
    else:
        spec = DataSpec(source="bundled", path=name, first_stage=FirstStageSpec(pool=True))
        found = data.load(spec, seed=seed).test
    drawn = sorted(found, key=lambda task: seeds.derive(seed, "attacked query", task.query.qid))
    kept = {task.query.qid for task in drawn[:queries]}
    return [
        replace(task, candidates=task.candidates[:depth])
        for task in found
        if task.query.qid in kept
    ]


def _contract(model: str, revision: str | None) -> PromptContract:
    from rank_rl.hub.contract import PromptContract
    from rank_rl.models.sources import locate

    source = locate(model, revision)
    return PromptContract.read(source.adapter or source.path)


def _strategy(spec: Any, contract: PromptContract | None) -> StrategySpec:
    """How the model ranks where no strategy is named."""
    from rank_rl import formats
    from rank_rl.specs import StrategySpec

    if contract is not None:
        return contract.strategy
    written = formats.kind(formats.make(spec)) == "text"
    return StrategySpec(name="single" if written else "by_score")


def _trained(contract: PromptContract | None) -> list[str]:
    """Kinds that the checkpoint's stage trained against, as its contract says."""
    told = (contract.extra if contract else {}).get("attacks")
    kinds = told.get("kinds") if isinstance(told, dict) else None
    return [kind for kind in kinds if isinstance(kind, str)] if isinstance(kinds, list) else []


def _rankers(model: str, options: dict[str, Any]) -> Callable[[Defence], Reranker]:
    """What ranks behind a defence; one model serves all that only change texts."""
    from rank_rl.rerank import Reranker

    kept: list[Reranker] = []

    def ranker_of(defence: Defence) -> Reranker:
        if defence.settings:
            kept.clear()  # one model at a time
            try:
                return Reranker.from_pretrained(model, **{**options, **defence.settings})
            except TypeError as error:
                raise RecipeError(
                    f"cannot be set for this model: {error}", where=f"--defences {defence.name}"
                ) from error
        if not kept:
            kept.append(Reranker.from_pretrained(model, **options))
        return kept[0]

    return ranker_of


def _run(
    tasks: Sequence[RankingTask],
    plan: Plan,
    defences: Sequence[Defence],
    ranker_of: Callable[[Defence], Reranker],
    output: Path,
    facts: dict[str, Any],
) -> None:
    """Measure, show and write; what was measured is on the disk before the next kind begins."""
    from rank_rl.attacks.measure import measure

    found: list[Finding] = []
    told = {defence.name: defence.about for defence in defences}
    facts = {**facts, "defences": told}
    complete = False
    try:
        with _progress() as tell:
            for finding in measure(tasks, plan, defences, ranker_of, tell):
                if found and (finding.defence, finding.kind) != (found[-1].defence, found[-1].kind):
                    _write(found, plan, output, {**facts, "complete": False})
                found.append(finding)
        complete = True
    finally:
        if found:
            rows, paths = _write(found, plan, output, {**facts, "complete": complete})
            _show(rows, told, complete=complete)
            line(f"written: {', '.join(map(str, paths))}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What tells what is being ranked: a line that moves on a terminal, lines in a log."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: typer.echo(text, err=True)
        return
    with console.status("loading") as status:
        yield status.update


def _write(
    found: Sequence[Finding], plan: Plan, output: Path, facts: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Write what was found until now; the rows of the table and the files."""
    from dataclasses import asdict

    from rank_rl.attacks.measure import table
    from rank_rl.attacks.results import versions, write

    rows = table(found, trained=facts["trained_on"], seed=plan.seed)
    cases = [finding.record() for finding in found]
    whole = {**facts, "plan": asdict(plan), "versions": versions()}
    return rows, write(output, whole, rows, cases)


def _show(rows: Sequence[dict[str, Any]], told: dict[str, str], *, complete: bool) -> None:
    heading("Places that attacked documents have risen, and what else the attack has changed")
    show_table(rows)
    for name, about in told.items():
        line(f"{name}: {about}")
    line(
        "risen: mean with its 95 % interval by queries; rest: change of nDCG@10 of the other "
        "documents; unread: share of answers that could not be read"
    )
    if not complete:
        line("not complete: what was measured until here")
