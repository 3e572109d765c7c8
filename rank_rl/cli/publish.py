"""``rank-rl publish``: a checkpoint, or what ``teach`` wrote, as a repository of the Hub.

The tree is made here in full before anything is sent, so that ``--dry-run`` prints exactly what
would go, without a network. The token is never an option: it comes from ``hf auth login`` or
HF_TOKEN.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rank_rl.cli.show import heading, line, show_table
from rank_rl.cli.stages import set_up_logging
from rank_rl.errors import RecipeError

if TYPE_CHECKING:
    from rank_rl.hub.dataset import DataOptions
    from rank_rl.hub.model import ModelOptions
    from rank_rl.hub.publish import Target
    from rank_rl.hub.tree import Tree

KINDS = ("auto", "model", "dataset")

Folder = Annotated[
    Path,
    typer.Argument(help="Checkpoint, or output folder of rank-rl teach.", show_default=False),
]
Repo = Annotated[str, typer.Option("--repo", help="owner/name on the Hub.", show_default=False)]
Kind = Annotated[
    str, typer.Option("--type", help="auto (by what the folder holds), model or dataset.")
]
Private = Annotated[
    bool | None,
    typer.Option(
        "--private/--public",
        help="Of a new repository: private without either. One that exists stays as it is.",
        show_default=False,
    ),
]
Revision = Annotated[str, typer.Option(help="Branch, made where there is none.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Of the commit.")]
Merge = Annotated[bool, typer.Option("--merge", help="Merge a LoRA adapter into its base.")]
Benches = Annotated[
    list[Path] | None,
    typer.Option(help="Output folder of rank-rl bench, for card and files; repeatable."),
]
Completions = Annotated[
    bool, typer.Option(help="Publish the questions and answers of benchmarks too.")
]
Dataset = Annotated[
    Path | None,
    typer.Option(help="Output folder of rank-rl teach, published as --dataset-repo first."),
]
DatasetRepo = Annotated[
    str, typer.Option(help="owner/name of --dataset; without it, of data on the Hub already.")
]
Licence = Annotated[
    str, typer.Option("--license", help="Identifier of the Hub, or a name of its own.")
]
Link = Annotated[
    str, typer.Option("--license-link", help="Where a licence with a name of its own is.")
]
BaseModel = Annotated[
    str, typer.Option(help="owner/name of the base on the Hub, where the run does not tell.")
]
Languages = Annotated[
    list[str] | None, typer.Option(help="Code of a language, such as en; repeatable.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be sent; send nothing.")]
Into = Annotated[
    Path | None, typer.Option(help="With --dry-run: write the files into this new folder.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """Whether trees are sent, or shown and written somewhere."""

    dry_run: bool
    into: Path | None


def publish(
    path: Folder,
    repo: Repo,
    kind: Kind = "auto",
    private: Private = None,
    revision: Revision = "",
    message: Message = "",
    merge: Merge = False,
    bench: Benches = None,
    completions: Completions = True,
    dataset: Dataset = None,
    dataset_repo: DatasetRepo = "",
    licence: Licence = "",
    licence_link: Link = "",
    base_model: BaseModel = "",
    language: Languages = None,
    dry_run: DryRun = False,
    into: Into = None,
) -> None:
    """Publish a checkpoint with its card, or lessons, on the Hugging Face Hub."""
    from rank_rl.hub.dataset import DataOptions
    from rank_rl.hub.model import ModelOptions
    from rank_rl.hub.publish import Target, check_target

    set_up_logging()
    kind = _kind(path, kind)
    target = Target(repo=repo, kind=kind, private=private, revision=revision, message=message)
    check_target(target)
    if into is not None and not dry_run:
        raise RecipeError("only with --dry-run", where="--into")
    going, languages = Going(dry_run=dry_run, into=into), tuple(language or ())
    data = DataOptions(folder=path, repo=repo, languages=languages)
    if kind == "dataset":
        _only_model(merge, bench, dataset, dataset_repo, base_model)
        _publish_data(replace(data, licence=licence, licence_link=licence_link), target, going)
        return
    model = ModelOptions(
        checkpoint=path,
        repo=repo,
        revision=revision,
        merge=merge,
        benches=tuple(bench or ()),
        completions=completions,
        licence=licence,
        licence_link=licence_link,
        base_model=base_model,
        languages=languages,
        datasets=(dataset_repo,) if dataset_repo else (),
    )
    lessons = _lessons(replace(data, folder=dataset or path, repo=dataset_repo), dataset, target)
    _publish_model(model, target, lessons, going)


def _publish_data(options: DataOptions, target: Target, going: Going) -> None:
    from rank_rl.hub.dataset import data_tree

    with tempfile.TemporaryDirectory(prefix="rank-rl-publish-") as scratch:
        _go(data_tree(options, Path(scratch)), target, going)


def _publish_model(
    options: ModelOptions,
    target: Target,
    lessons: tuple[DataOptions, Target] | None,
    going: Going,
) -> None:
    """Publish a model, and lessons before it: the card names them."""
    from rank_rl.hub.model import model_tree

    with tempfile.TemporaryDirectory(prefix="rank-rl-publish-") as scratch:
        tree = model_tree(options, Path(scratch))
        if lessons is not None:
            _publish_data(*lessons, replace(going, into=None))
        _go(tree, target, going)


def _kind(path: Path, kind: str) -> str:
    """What a folder is published as.

    Raises:
        RecipeError: no such kind, or the folder is of the other one.
    """
    from rank_rl.hub.dataset import is_lessons

    if kind not in KINDS:
        raise RecipeError(f"value {kind!r}", where="--type", expected=f"one of {', '.join(KINDS)}")
    found = "dataset" if is_lessons(path) else "model"
    if kind not in ("auto", found) and (found == "dataset" or (path / "config.json").is_file()):
        what = "an output of rank-rl teach" if found == "dataset" else "a checkpoint"
        raise RecipeError(f"{path} is {what}", where=f"--type {kind}", expected=f"--type {found}")
    return found if kind == "auto" else kind


def _only_model(*options: object) -> None:
    if any(options):
        raise RecipeError(
            "--merge, --bench, --base-model and --dataset belong to a checkpoint", where="publish"
        )


def _lessons(
    options: DataOptions, folder: Path | None, target: Target
) -> tuple[DataOptions, Target] | None:
    """What goes before the model, and where to; None where nothing does."""
    from rank_rl.hub.publish import check_target

    if folder is not None and not options.repo:
        raise RecipeError("missing", where="--dataset-repo", expected="with --dataset, owner/name")
    if not options.repo:
        return None
    found = replace(target, repo=options.repo, kind="dataset", revision="", message="")
    check_target(found)
    return None if folder is None else (options, found)


def _go(tree: Tree, target: Target, going: Going) -> None:
    """Print a tree, or send it and say what became of it."""
    from huggingface_hub.utils import logging as hub_logging

    from rank_rl.hub.publish import send
    from rank_rl.hub.tree import size_text

    for text in tree.said:
        typer.echo(f"note: {text}", err=True)
    if going.dry_run:
        _show(tree, target, going.into)
        return
    hub_logging.disable_propagation()  # its warnings would be printed twice
    sent = send(tree, target)
    for text in sent.said:
        typer.echo(f"note: {text}", err=True)
    line(f"{sent.url} at commit {sent.commit[:12]}{' (new repository)' if sent.created else ''}")
    if not sent.files and not sent.deleted:
        line(f"nothing changed: all {sent.unchanged} files were there already")
        return
    deleted = f", {sent.deleted} deleted" if sent.deleted else ""
    line(f"{sent.files} files sent ({size_text(sent.size)}), {sent.unchanged} unchanged{deleted}")


def _show(tree: Tree, target: Target, into: Path | None) -> None:
    from rank_rl.hub.tree import size_text

    heading(f"{target.shown} would hold {len(tree.items)} files; nothing was sent")
    show_table([{"file": item.path, "size": size_text(item.size)} for item in tree.items])
    line(f"{size_text(sum(item.size for item in tree.items))} in all")
    if tree.left_out:
        line(f"left out: {', '.join(tree.left_out)}")
    if into is not None:
        tree.write(into)
        line(f"written to {into}")
