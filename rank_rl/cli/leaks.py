"""``rank-rl leaks``: which test queries and relevant documents stand in training data.

Comparing is ``rank_rl.data.leak_report``, reading ``leak_files``; recipes are resolved here. Exit
status 0; with ``--strict`` 1 when a test query overlaps, for checks that run by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rank_rl.cli.show import heading, line, show_table

if TYPE_CHECKING:
    from rank_rl.data.leak_files import Part
    from rank_rl.data.leak_report import Overlap, Report, Sample
    from rank_rl.specs import DataSpec

EXIT_OVERLAP = 1
WIDTH = 200  # characters of a text that are shown
TITLES = {
    "text": "the same text",
    "near": "most of the query in a training query",
    "inside": "most of the query inside a prompt, an answer, reasoning or an annotation",
}


def leaks(
    train: Annotated[
        list[str],
        typer.Argument(
            metavar="TRAIN…",
            help="Training data: recipe, BEIR folder, tasks, lessons, rows of chats, queries "
            "(JSONL, TSV) or bundled:NAME; with :SPLIT one split.",
            show_default=False,
        ),
    ],
    test: Annotated[
        list[str],
        typer.Option(help="Test data, of the same kinds; repeatable.", show_default=False),
    ],
    ngram: Annotated[int, typer.Option(min=1, help="Words of a query's n-grams.")] = 3,
    document_ngram: Annotated[int, typer.Option(min=1, help="Words of a document's n-grams.")] = 13,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of a test text that must be found.")
    ] = 0.6,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Copy of TRAIN (one file) without what overlaps; FILE.txt: list of what does."
        ),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Pairs to show of each kind.")] = 5,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if a test query overlaps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find test queries, and documents relevant to them, in training data."""
    from rank_rl.data.leak_report import compare
    from rank_rl.specs import LeakSpec

    copied = _copied(train, write) if write else None
    spec = LeakSpec(ngram=ngram, document_ngram=document_ngram, share=share)
    held_out = [sample for name in test for sample in samples(name, "test")]
    report = compare((s for name in train for s in samples(name, "train")), held_out, spec)
    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False, indent=1))
    else:
        show_report(report, show)
    if write:
        said = _write(write, copied, report)
        if not as_json:
            line(said)
    if strict and report.overlaps:
        raise typer.Exit(EXIT_OVERLAP)


def samples(name: str, part: Part) -> Iterator[Sample]:
    """Samples of whatever a name stands for, recipes included.

    Raises:
        RankRLError: nothing of that name, or it cannot be read.
    """
    from rank_rl.data import leak_files

    if Path(name).suffix not in (".yaml", ".yml"):
        return leak_files.samples(name, part)
    return _of_recipe(Path(name), part)


def _of_recipe(path: Path, part: Part) -> Iterator[Sample]:
    """What a recipe trains on, with its lessons, or the test parts that it ranks."""
    from rank_rl import data
    from rank_rl import recipe as recipes
    from rank_rl.data import leak_files
    from rank_rl.data.leaks import learned

    spec = recipes.load(path).spec
    seed = spec.run.seed
    if part == "train":
        yield from learned(spec.data, data.load(spec.data, seed=seed))
        return
    ranked: list[DataSpec] = [*spec.bench.collections] if spec.bench else []
    for one in ranked or [spec.data]:
        collection = data.load(one, seed=seed)
        yield from leak_files.of_tasks(collection.test, collection.name)


def show_report(report: Report, most: int) -> None:
    """Print counts for each pair of training and test data, and some of what overlaps."""
    found = report.overlapping
    total = sum(report.queries.values())
    heading(
        f"{len(found)} of {total} test queries overlap with training data{_percent(found, total)}"
    )
    show_table(_rows(report))
    for kind, title in TITLES.items():
        same = [one for one in found.values() if one.kind == kind]
        if same and most:
            heading(f"{title}: {len(same)}")
            for one in sorted(same, key=lambda one: -one.share)[:most]:
                _show_pair(one)
    ids = {(test, qid) for test, qid, _ in report.reused_ids}
    if ids:
        line(f"\n{len(ids)} query ids are in both with other texts, which is not counted")
    documents = report.as_dict(texts=False)["documents"]
    line(
        f"\n{documents['shared']} of {documents['relevant']} documents relevant to test queries "
        f"are relevant in training too: {documents['by_id']} by id, {documents['by_text']} by text"
    )


def show_facts(facts: Mapping[str, Any], most: int = 3) -> None:
    """Print what ``data.leaks`` found for a recipe: ``overlap`` of a collection's leak report."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["kinds"].items() if count)
    removed = facts.get("removed")
    done = "they are kept (data.leaks.action: report)"
    if removed is not None:
        done = "removed are " + ", ".join(f"{n} of {part}" for part, n in removed.items())
    line(
        f"{facts['ngram']}-grams: {len(facts['overlapping'])} of {facts['queries']} test queries "
        f"overlap with {facts['leaking_samples']} of {sum(facts['compared'].values())} training "
        f"examples{f' ({kinds})' if kinds else ''}" + (f"; {done}" if kinds else "")
    )
    for example in facts["examples"][:most]:
        line(f"  {example['kind']}: {example['qid']}: {_cut(example['query'])}")
        line(f"    ~ {example['with']}: {_cut(example['other'])}")


def _rows(report: Report) -> list[dict[str, Any]]:
    rows = []
    for source, count in report.samples.items():
        for test, queries in report.queries.items():
            found = [o for o in report.overlaps if (o.source, o.test) == (source, test)]
            documents = [d for d in report.documents if (d.source, d.test) == (source, test)]
            kinds = {kind: sum(o.kind == kind for o in found) for kind in TITLES}
            ids = sum((t, s) == (test, source) for t, _, s in report.shared_ids)
            rows.append(
                {"training data": source, "examples": count, "test data": test, "queries": queries}
                | {"overlap": len(found), **kinds, "same id": ids, "documents": len(documents)}
            )
    return rows


def _show_pair(one: Overlap) -> None:
    times = f", {one.samples} examples" if one.samples > 1 else ""
    line(f"  {one.share:.2f}  test   {one.qid}: {_cut(one.query)}")
    line(f"        train  {one.where}{times}: {_cut(one.text)}")


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= WIDTH else plain[:WIDTH] + "…"


def _percent(found: Mapping[Any, Any], total: int) -> str:
    return f" ({100 * len(found) / total:.1f} %)" if total else ""


def _copied(train: Sequence[str], write: Path) -> Path | None:
    """The file that ``--write`` copies; None for a list.

    Raises:
        RecipeError: a copy of what is no single file, or over itself.
    """
    from rank_rl.data.leak_files import file_of
    from rank_rl.errors import RecipeError

    if write.suffix == ".txt":
        return None
    recipe = any(Path(name).suffix in (".yaml", ".yml") for name in train)
    path = file_of(train[0]) if len(train) == 1 and not recipe else None
    if path is None or path.resolve() == write.resolve():
        raise RecipeError(
            "only one file of training data can be copied, to another file",
            where=f"--write {write}",
            remedy="a name that ends in .txt gets a list of what overlaps",
        )
    return path


def _write(target: Path, copied: Path | None, report: Report) -> str:
    """Write the copy or the list; says what was written."""
    from rank_rl.data.files import lines, write_lines

    if copied is None:
        write_lines(target, (f"{source}\t{where}" for source, where in sorted(report.leaking)))
        return f"\n{len(report.leaking)} training examples that overlap: {target}"
    out = {where for _, where in report.leaking}
    kept = [text for where, text in lines(copied) if where not in out]
    write_lines(target, kept)
    return f"\n{len(kept)} lines without {len(out)} that overlap: {target}"
