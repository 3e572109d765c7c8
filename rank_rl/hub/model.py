"""The tree of a model repository: weights, tokenizer, contract, recipes, logs, benchmarks, card.

Contract: everything comes from the checkpoint's folder, the stages behind it and the benchmarks
that are named; weights are safetensors only. The same sources give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rank_rl import formats
from rank_rl.bench import layout
from rank_rl.errors import ModelError, RecipeError
from rank_rl.hub import lineage as lineages
from rank_rl.hub import results, training
from rank_rl.hub.card import Card
from rank_rl.hub.completions import to_parquet
from rank_rl.hub.contract import FILE, PromptContract
from rank_rl.hub.example import example
from rank_rl.hub.licence import Licence, licence, of_base
from rank_rl.hub.lineage import Lineage, Stage
from rank_rl.hub.merge import merge
from rank_rl.hub.results import Measured
from rank_rl.hub.scrub import keys_in, portable
from rank_rl.hub.tree import CARD, Gathering, Tree, as_json, checkpoint_files, read, read_json
from rank_rl.hub.usage import Published
from rank_rl.models.sources import ADAPTER_CONFIG, Source, fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What is to be published, and what nobody but the user knows.

    Attributes:
        checkpoint: folder of weights with a prompt contract.
        repo, revision: where it goes; the card's code names both.
        merge: merge an adapter into its base.
        benches: output folders of ``rank-rl bench``.
        completions: publish questions and answers, and the report page that quotes them.
        licence, licence_link: of the weights; empty takes what the base model says.
        base_model: Hub id of the base, where the run's files do not tell it.
        languages: codes such as ``en``.
        datasets: Hub ids of training data that is published too.
    """

    checkpoint: Path
    repo: str
    revision: str = ""
    merge: bool = False
    benches: tuple[Path, ...] = ()
    completions: bool = True
    licence: str = ""
    licence_link: str = ""
    base_model: str = ""
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a checkpoint before anything is gathered.

    Attributes:
        lineage: its stages; contracts are those of the files here.
        contract: as it is published: without places of this machine.
        base: Hub id of the base model; empty where unknown.
        form: ``whole``, ``merged`` or ``adapter``.
        licence, base_licence: of the weights, and what the base model says of its own.
    """

    lineage: Lineage
    contract: PromptContract
    base: str
    form: str
    licence: Licence
    base_licence: Licence


def model_tree(options: ModelOptions, scratch: Path) -> Tree:
    """Gather everything that a model repository is to hold.

    Args:
        options: what to publish.
        scratch: an empty folder for merged weights; it has to stay until the tree was sent.

    Raises:
        RecipeError: options that contradict one another.
        ModelError: no contract, no weights, pickled weights, or an adapter without a base.
        DataError: a benchmark of other files, or a file that holds a key.
    """
    check_options(options)
    known = _known(options)
    own = known.lineage.last.contract
    benches = results.measured(options.benches, own, fingerprint(options.checkpoint))
    gathering = Gathering()
    _weights(gathering, options, known, scratch / "merged")
    gathering.made(FILE, as_json(known.contract.record()))
    _stages(gathering, known.lineage)
    for bench in benches:
        _bench(gathering, bench, completions=options.completions)
    gathering.made(CARD, _card(options, known, benches).text().encode("utf-8"))
    gathering.said += _said(options, known)
    return gathering.tree().finished()


def _known(options: ModelOptions) -> Known:
    lineage = lineages.trace(options.checkpoint)
    contract = lineage.last.contract
    base = options.base_model or lineage.hub_base
    base_licence = of_base(base or lineage.base, _base_folder(lineage, base))
    own = licence(options.licence, options.licence_link, source="whoever published it")
    return Known(
        lineage=lineage,
        contract=replace(
            contract,
            base_model=portable(contract.base_model),
            extra=portable(dict(contract.extra)),
        ),
        base=base,
        form=_form(options, base),
        licence=own if options.licence else base_licence,
        base_licence=base_licence,
    )


def _form(options: ModelOptions, base: str) -> str:
    """Whole weights, merged ones, or an adapter whose base others can load."""
    if not lineages.is_adapter(options.checkpoint):
        return "whole"
    if options.merge:
        return "merged"
    if not base:
        named = read_json(options.checkpoint / ADAPTER_CONFIG).get("base_model_name_or_path")
        raise ModelError(
            f"its base {portable(str(named))!r} is not known to be on the Hub",
            where=f"adapter {options.checkpoint}",
            expected="a base that others can load",
            remedy="--merge publishes whole weights; --base-model owner/name names the base",
        )
    return "adapter"


def _weights(gathering: Gathering, options: ModelOptions, known: Known, merged: Path) -> None:
    checkpoint = options.checkpoint
    if known.form == "merged":
        merge(checkpoint, merged, scorer=_scores(known.contract))
        checkpoint_files(gathering, merged, where=checkpoint)
        return
    checkpoint_files(gathering, checkpoint)
    if known.form == "whole":
        return
    named = {"base_model_name_or_path": known.base}
    if known.contract.base_model == known.base:
        named["revision"] = known.contract.base_revision
    config = {**read_json(checkpoint / ADAPTER_CONFIG), **named}
    gathering.items = [i for i in gathering.items if i.path != ADAPTER_CONFIG]
    gathering.made(ADAPTER_CONFIG, as_json(portable(config)))


def _scores(contract: PromptContract) -> bool:
    return formats.kind(formats.make(contract.format)) == "scorer"


def _stages(gathering: Gathering, lineage: Lineage) -> None:
    """Recipes, logs and provenance of every stage that is known."""
    records = []
    for number, stage in enumerate(reversed(lineage.stages), 1):
        last = number == len(lineage.stages)
        folder = "" if last else f"training/{number}-{stage.name}/"
        if file := stage.file(lineages.RECIPE):
            gathering.yaml(file, f"{folder}recipe.yaml")
        if file := stage.file(lineages.LOG):
            gathering.json_lines(file, f"{folder}{lineages.LOG}")
        records.append(_provenance(stage, folder))
    record = {
        "base_model": portable(lineage.base),
        "base_revision": lineage.base_revision,
        "unknown_before": portable(lineage.broken),
        "stages": records,
    }
    gathering.made(lineages.PROVENANCE, as_json(record))


def _provenance(stage: Stage, folder: str) -> dict[str, Any]:
    summary = dict(stage.summary())
    return {
        "stage": stage.name,
        "folder": folder,
        "contract": stage.contract.hash,
        "base_model": portable(stage.contract.base_model),
        "base_revision": stage.contract.base_revision,
        "data": stage.contract.data,
        **portable({k: v for k, v in stage.provenance.items() if k != "stage"}),
        "summary": portable(summary),
    }


def _bench(gathering: Gathering, bench: Measured, *, completions: bool) -> None:
    """Result, runs, completions and report of one collection."""
    folder = f"bench/{bench.name}"
    gathering.json(bench.folder / results.RESULT, f"{folder}/{results.RESULT}")
    for file in sorted((bench.folder / "runs").glob("*.trec")):
        gathering.copied(file, f"{folder}/runs/{file.name}")
    if not completions:
        return
    for file in sorted((bench.folder / "exchanges").glob("*.jsonl")):
        text = read(file)
        path = f"{folder}/completions/{file.stem}.parquet"
        gathering.made(path, to_parquet(text, str(file)), text="")
        # Lines are named as they stand in the file that people can correct.
        gathering.keys += keys_in(text, str(file))
    if (page := bench.folder / layout.REPORT).is_file():
        gathering.page(page, f"{folder}/report.html")


def _card(options: ModelOptions, known: Known, benches: Sequence[Measured]) -> Card:
    seen = [training.data_of(stage, benches).data_set for stage in known.lineage.stages]
    return Card(
        published=_published(options, known),
        lineage=known.lineage,
        licence=known.licence,
        base_licence=known.base_licence,
        benches=tuple(benches),
        base_model=known.base,
        datasets=tuple(dict.fromkeys([*filter(None, seen), *options.datasets])),
        languages=options.languages,
        form=known.form,
    )


def _published(options: ModelOptions, known: Known) -> Published:
    from rank_rl.models.loading import load_tokenizer

    folder = options.checkpoint
    tokenizer = load_tokenizer(_source(folder), chat=not _scores(known.contract))
    config, adapter = read_json(folder / "config.json"), read_json(folder / ADAPTER_CONFIG)
    return Published(
        name=options.repo,
        revision=options.revision,
        contract=known.contract,
        example=example(known.contract, tokenizer),
        tokenizer=tokenizer,
        architecture=next(iter(config.get("architectures") or []), ""),
        base=known.base if known.form == "adapter" else "",
        rank=int(adapter.get("r") or 0),
        own_head=(folder / "scorer.safetensors").is_file(),
    )


def _source(folder: Path) -> Source:
    """Where the tokenizer is: in the folder, or with an adapter's base."""
    from rank_rl.models.sources import locate

    if (folder / "tokenizer_config.json").is_file():
        return Source(name=str(folder), path=folder, revision="")
    return locate(str(folder))


def _base_folder(lineage: Lineage, base: str) -> Path | None:
    """Where the base model's files lie on this machine; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    if base and base == lineage.hub_base:
        file = try_to_load_from_cache(base, CARD, revision=lineage.base_revision)
        return Path(file).parent if isinstance(file, str) else None
    if base or lineage.broken:
        return None
    found = (p for p in lineages.places(lineage.stages[-1], lineage.base) if p.is_dir())
    return next(found, None)


def _said(options: ModelOptions, known: Known) -> list[str]:
    """What is missing, and what would put it there."""
    said, lineage = [], known.lineage
    if lineage.broken:
        said.append(f"stages before {lineage.stages[-1].name} are unknown: {lineage.broken}")
    if not known.base:
        said.append("the base model's name on the Hub is unknown: --base-model owner/name")
    if not options.licence:
        source = known.licence.source
        where = f"as {source} says" if source else "nobody said"
        said.append(f"licence: {known.licence.id} ({where}); --license names another")
    if not options.languages:
        said.append("languages are unknown: --language en")
    if not options.benches:
        said.append("no results on the card: --bench FOLDER adds them")
    if any(not stage.provenance for stage in lineage.stages):
        said.append("the recipe or log of a stage is not beside its checkpoint and is left out")
    return said


def check_options(options: ModelOptions) -> None:
    """Refuse options that say nothing or contradict one another.

    Raises:
        RecipeError: naming the option.
    """
    whole = options.checkpoint.is_dir() and not lineages.is_adapter(options.checkpoint)
    if options.merge and whole:
        raise RecipeError(
            "nothing to merge",
            where="--merge",
            expected="an adapter (adapter_config.json)",
            remedy="a checkpoint's folder final holds merged weights already",
        )
    if options.base_model and options.base_model.count("/") != 1:
        raise RecipeError(
            f"value {options.base_model!r}", where="--base-model", expected="owner/name on the Hub"
        )
    if options.licence_link and not options.licence:
        raise RecipeError("no licence to link", where="--license-link", expected="with --license")
