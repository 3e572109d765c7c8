"""``rank-rl publish``: a checkpoint, or what ``teach`` wrote, as a repository of the Hub.

The tree is made here in full before anything is sent, so that ``--dry-run`` prints exactly what
would go, without a network. The token is never an option: it comes from ``hf auth login`` or
HF_TOKEN.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rank_rl.cli.show import heading, line, show_table
from rank_rl.cli.stages import set_up_logging
from rank_rl.errors import RecipeError

if TYPE_CHECKING:
    from rank_rl.hub.publish import Target
    from rank_rl.hub.tree import Tree

KINDS = ("auto", "model", "dataset")


def publish(
    path: Annotated[
        Path,
        typer.Argument(help="Checkpoint, or output folder of rank-rl teach.", show_default=False),
    ],
    repo: Annotated[str, typer.Option("--repo", help="owner/name on the Hub.", show_default=False)],
    kind: Annotated[
        str, typer.Option("--type", help="auto (by what the folder holds), model or dataset.")
    ] = "auto",
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public",
            help="Of a new repository, private without either; one that exists stays as it is.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[str, typer.Option(help="Branch, made where there is none.")] = "",
    message: Annotated[str, typer.Option("--message", "-m", help="Of the commit.")] = "",
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge a LoRA adapter into its base.")
    ] = False,
    bench: Annotated[
        list[Path] | None,
        typer.Option(help="Output folder of rank-rl bench for card and files; repeatable."),
    ] = None,
    completions: Annotated[
        bool, typer.Option(help="Publish the questions and answers of benchmarks too.")
    ] = True,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Output folder of rank-rl teach, published as --dataset-repo first."),
    ] = None,
    dataset_repo: Annotated[
        str, typer.Option(help="owner/name of --dataset; without it, of data on the Hub already.")
    ] = "",
    licence: Annotated[
        str, typer.Option("--license", help="Identifier of the Hub, or a name of its own.")
    ] = "",
    licence_link: Annotated[
        str, typer.Option("--license-link", help="Where a licence with its own name is.")
    ] = "",
    base_model: Annotated[
        str, typer.Option(help="owner/name of the base on the Hub, where the run does not tell.")
    ] = "",
    language: Annotated[
        list[str] | None, typer.Option(help="Code of a language, such as en; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent; send nothing.")
    ] = False,
    into: Annotated[
        Path | None, typer.Option(help="With --dry-run: write the files into this new folder.")
    ] = None,
) -> None:
    """Publish a checkpoint with its card, or lessons, on the Hugging Face Hub."""
    from rank_rl.hub.dataset import DataOptions, data_tree
    from rank_rl.hub.model import ModelOptions, model_tree
    from rank_rl.hub.publish import Target, check_target

    set_up_logging()
    kind = _kind(path, kind)
    target = Target(repo=repo, kind=kind, private=private, revision=revision, message=message)
    check_target(target)
    if into is not None and not dry_run:
        raise RecipeError("only with --dry-run", where="--into")
    languages = tuple(language or ())
    said = {"licence": licence, "licence_link": licence_link, "languages": languages}
    with tempfile.TemporaryDirectory(prefix="rank-rl-publish-") as scratch:
        if kind == "dataset":
            _only_model(merge, bench, dataset, dataset_repo, base_model)
            options = DataOptions(folder=path, repo=repo, **said)  # type: ignore[arg-type]
            _go(data_tree(options, Path(scratch)), target, dry_run, into)
            return
        data_target = _data_target(dataset, dataset_repo, target)
        model = ModelOptions(
            checkpoint=path,
            repo=repo,
            revision=revision,
            merge=merge,
            benches=tuple(bench or ()),
            completions=completions,
            base_model=base_model,
            datasets=(dataset_repo,) if dataset_repo else (),
            **said,  # type: ignore[arg-type]
        )
        tree = model_tree(model, Path(scratch) / "model")
        if dataset is not None and data_target is not None:
            data = DataOptions(folder=dataset, repo=dataset_repo, languages=languages)
            _go(data_tree(data, Path(scratch) / "data"), data_target, dry_run, None)
        _go(tree, target, dry_run, into)


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


def _data_target(dataset: Path | None, name: str, target: Target) -> Target | None:
    from dataclasses import replace

    from rank_rl.hub.publish import check_target

    if dataset is not None and not name:
        raise RecipeError("missing", where="--dataset-repo", expected="with --dataset, owner/name")
    if not name:
        return None
    found = replace(target, repo=name, kind="dataset", revision="", message="")
    check_target(found)
    return found if dataset is not None else None


def _go(tree: Tree, target: Target, dry_run: bool, into: Path | None) -> None:
    """Print a tree, or send it and say what became of it."""
    from rank_rl.hub.publish import send
    from rank_rl.hub.tree import size_text

    for text in tree.said:
        typer.echo(f"note: {text}", err=True)
    if dry_run:
        heading(f"{target.shown} would hold {len(tree.items)} files; nothing was sent")
        show_table([{"file": item.path, "size": size_text(item.size)} for item in tree.items])
        line(f"{size_text(sum(item.size for item in tree.items))} in all")
        if tree.left_out:
            line(f"left out: {', '.join(tree.left_out)}")
        if into is not None:
            tree.write(into)
            line(f"written to {into}")
        return
    sent = send(tree, target)
    for text in sent.said:
        typer.echo(f"note: {text}", err=True)
    line(f"{sent.url} at commit {sent.commit[:12]}{' (new repository)' if sent.created else ''}")
    if not sent.files and not sent.deleted:
        line(f"nothing changed: all {sent.unchanged} files were there already")
        return
    deleted = f", {sent.deleted} deleted" if sent.deleted else ""
    line(f"{sent.files} files sent ({size_text(sent.size)}), {sent.unchanged} unchanged{deleted}")
