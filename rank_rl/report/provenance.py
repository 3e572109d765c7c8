"""Where a result comes from: recipe, versions, data, models; as facts, tables and the raw facts.

Contract: everything that the result file says about its origin is here, nothing is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rank_rl.report import shown
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Table, names, text

Fact = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Facts, tables, and what has a shape of its own, as nested values."""

    facts: tuple[Fact, ...]
    tables: tuple[Table, ...]
    trees: tuple[tuple[str, Any], ...]


def headline(source: Source) -> list[Fact]:
    """The facts that a reader needs before any number."""
    result, collection = source.result, source.result["collection"]
    left = collection.get("left_out") or []
    without = result["queries_without_relevant"]
    queries = f"{result['queries']:,}"
    queries += f" ({without:,} without a relevant document not counted)" if without else ""
    queries += f" ({len(left):,} left out by the leak check)" if left else ""
    seeds = ", ".join(map(str, result["seeds"])) or shown.word(result.get("seed"))
    return _known(
        ("Collection", str(collection["name"])),
        ("Queries", queries),
        ("Candidates", f"up to {collection['depth']} a query" if collection.get("depth") else ""),
        ("First stage", str(collection["first_stage"])),
        ("Systems", str(len(result["systems"]))),
        ("Seeds", seeds),
    )


def rules(source: Source) -> list[str]:
    """How intervals and tests are made, in words."""
    result = source.result
    resamples = f"{result['resamples']:,} " if result["resamples"] else ""
    said = [f"Intervals are 95 % bootstrap intervals over queries ({resamples}resamples)."]
    if len(result["seeds"]) > 1:
        said.append(
            "Systems measured with several seeds have the mean over seeds on each query, and their "
            "intervals cover seeds and queries."
        )
    if result["comparisons"]:
        said.append(
            f"A mark means: the difference is significant at p < {shown.LEVEL} in a two-sided "
            "paired randomisation test over queries, after Holm's correction over all systems "
            "compared with the same baseline in the same metric."
        )
    else:
        said.append("No baseline was named, so nothing was tested against one.")
    return said


def provenance(source: Source) -> Provenance:
    """All that the result says about its origin."""
    result = source.result
    git, recipe = result["git"] or {}, result["recipe"]
    changed = " (with changes that are not committed)" if git.get("changed") else ""
    facts = _known(
        ("Benchmark", str(result["name"])),
        ("Recipe", str(recipe.get("path") or "")),
        ("Recipe hash", str(recipe.get("hash") or "")),
        ("rank_rl", str(result["rank_rl"])),
        ("Git commit", f"{git['commit']}{changed}" if git.get("commit") else ""),
        ("Seed", shown.word(result.get("seed"))),
        ("Resamples", shown.count(shown.number(result["resamples"]))),
        ("Result file", f"{source.path.parent.name}/{source.path.name}"),
        ("Result schema", shown.word(result.get("schema", "1 (old)"))),
    )
    trees = [
        ("Collection", result["collection"]),
        ("Data", {k: v for k, v in result["data"].items() if k != "files"}),
        ("Training data compared with the test queries", result["leaks"]),
    ]
    tables = [t for t in (_models(source), _versions(result), _files(result)) if t.rows]
    return Provenance(
        facts=tuple(facts),
        tables=tuple(tables),
        trees=tuple((name, tree) for name, tree in trees if tree),
    )


def _known(*facts: Fact) -> list[Fact]:
    return [(name, value) for name, value in facts if value]


def _models(source: Source) -> Table:
    rows = []
    for system in source.result["systems"]:
        model, setting = system["model"], system["setting"]
        if not model:
            continue
        said = ", ".join(f"{k} {v}" for k, v in setting.items() if v)
        fused = ", ".join(f"{k} {_flat(v)}" for k, v in (system["fusion"] or {}).items() if v)
        given = [model.get(key) or "" for key in ("name", "revision", "contract")]
        rows.append((text(system["name"]), *map(text, (*given, said, fused))))
    columns = names("system", "model", "revision", "contract", "asked as", "fused with")
    caption = f"Models and how they were asked, {source.label}"
    return Table(caption=caption, columns=columns, rows=tuple(rows)).filled()


def _versions(result: Mapping[str, Any]) -> Table:
    rows = tuple((text(k), text(v)) for k, v in result["versions"].items())
    return Table(caption="Versions", columns=names("package", "version"), rows=rows)


def _files(result: Mapping[str, Any]) -> Table:
    files = result["data"].get("files")
    listed = files.items() if isinstance(files, Mapping) else ()
    rows = tuple((text(k), Cell(text=_flat(v), value=_flat(v))) for k, v in listed)
    return Table(caption="Data files", columns=names("file", "SHA-256"), rows=rows)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    return shown.word(value)
