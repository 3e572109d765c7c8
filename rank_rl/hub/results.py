"""Benchmark folders as a card shows them: the rows of a checkpoint, a table, and what follows.

Contract: a row is a checkpoint's own when the benchmark measured exactly its files, which the
fingerprint in the result tells; a benchmark without such a row is refused. No number is made here
but differences that the result holds. Old result files lack some keys, which are then left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.bench.layout import DOCUMENTS, RESULT
from rank_rl.errors import DataError
from rank_rl.hub.tree import read_json

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from rank_rl.hub.contract import PromptContract

LEVEL = 0.05
TASK = "text-ranking"
_NOTED = ("first_stage", "random", "perfect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row that measured the checkpoint; ``seed`` where it is one of several of that row."""

    name: str
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One collection's benchmark.

    Attributes:
        name: what its folder is called in the repository.
        folder: where it lies here.
        result: its ``result.json``.
        rows: the checkpoint's rows, the one that was asked as its contract says first.
    """

    name: str
    folder: Path
    result: Mapping[str, Any]
    rows: tuple[Row, ...] = field(default=())

    @property
    def collection(self) -> str:
        """The name of the collection."""
        found = self.result.get("collection") or self.result.get("data") or {}
        return str(found.get("name") or "unknown")

    @property
    def systems(self) -> dict[str, Mapping[str, Any]]:
        """Rows by name."""
        return {s["name"]: s for s in self.result["systems"]}


def measured(
    folders: Sequence[Path], contract: PromptContract, fingerprint: str
) -> tuple[Measured, ...]:
    """Read benchmarks and find a checkpoint's rows in them.

    Args:
        folders: output folders of ``rank-rl bench``; one of several collections counts as many.
        contract: of the checkpoint.
        fingerprint: of its files.

    Raises:
        DataError: no result, a malformed one, or one that did not measure these files.
    """
    found: list[Measured] = []
    for folder in folders:
        for inner in _results(folder):
            result = _read(inner / RESULT)
            own = Measured(name="", folder=inner, result=result)
            rows = tuple(_rows(own, contract, fingerprint))
            if not rows:
                models = {(s.get("model") or {}).get("name") for s in result["systems"]} - {None}
                raise DataError(
                    "no system of this benchmark is this checkpoint",
                    where=str(inner / RESULT),
                    expected=f"a row with files:{fingerprint}; measured were "
                    f"{', '.join(sorted(map(str, models))) or 'no models'}",
                    remedy="bench the checkpoint, or publish it without --bench",
                )
            name = _free(own.collection, [m.name for m in found])
            found.append(Measured(name=name, folder=inner, result=result, rows=rows))
    return tuple(found)


def eval_results(benches: Sequence[Measured]) -> list[EvalResult]:
    """What the Hub's metadata says of a checkpoint: its main row of every benchmark."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASK,
            task_name="Text Ranking",
            dataset_type=data_set(bench)[0] or _slug(bench.collection),
            dataset_name=cell(bench.collection),
            dataset_revision=data_set(bench)[1] or None,
            dataset_split="test",
            metric_type=metric,
            metric_name=shown_metric(metric),
            metric_value=round(value(bench, bench.rows[0], metric), 4),
        )
        for bench in benches
        for metric in bench.result["metrics"]
    ]


def data_set(bench: Measured) -> tuple[str, str]:
    """Hub id and commit of the data set that a collection was read from; empty where unknown."""
    found = (bench.result.get("data") or {}).get("dataset") or {}
    path, commit = str(found.get("path") or ""), str(found.get("commit") or "")
    return (path, commit) if commit and path.count("/") == 1 else ("", "")


def value(bench: Measured, row: Row, metric: str) -> float:
    """A metric's mean over the queries, of the checkpoint's own seed where the row has several."""
    system = bench.systems[row.name]
    if row.seed:
        return float(system["seeds"][row.seed][metric])
    return float(system["metrics"][metric]["mean"])


def shown_metric(name: str) -> str:
    """``ndcg@10`` as people write it."""
    return name.replace("ndcg", "nDCG").replace("mrr", "MRR").replace("map", "MAP")


def section(bench: Measured) -> list[str]:
    """Markdown lines of a benchmark: what was ranked, the table, and what it is made of."""
    result, first = bench.result, shown_metric(bench.result["metrics"][0])
    collection = result.get("collection") or {}
    stage = collection.get("first_stage") or (result.get("data") or {}).get("first_stage")
    left = result.get("queries_without_relevant") or 0
    lines = [f"### {cell(bench.collection)}", ""]
    lines += [
        f"{result['queries']} test queries"
        + (f" ({left} more have nothing relevant and do not count)" if left else "")
        + f", first stage: {cell(stage or 'unknown')}. In brackets: 95 % interval over queries. "
        f"Differences in {first} come with the p-value of a paired randomisation test after "
        "Holm's correction. **Bold**: this checkpoint.",
        "",
        *_table(bench),
        "",
    ]
    lines += _beside(bench)
    recipe = result.get("recipe") or {}
    lines += [
        f"Made by `rank-rl bench` (rank_rl {result.get('rank_rl', 'unknown')}, recipe "
        f"`{recipe.get('hash') or 'unknown'}`, seed {result.get('seed', 'unknown')}); values of "
        f"every query are in `bench/{bench.name}/{RESULT}`.",
        "",
    ]
    return lines


def verdicts(bench: Measured) -> Iterator[str]:
    """What the main row's comparisons say, one sentence a baseline, then what warns of it."""
    result, row, on = bench.result, bench.rows[0], f"On {cell(bench.collection)}"
    metric = result["metrics"][0]
    for c in result.get("comparisons") or []:
        if c["system"] == row.name and c["metric"] == metric:
            yield f"{on}, {_verdict(c, bench)}"
    system = bench.systems[row.name]
    if (rate := system.get("failure_rate")) is not None:
        unit = "label slots" if system.get("kind") == "slots" else "answers"
        yield f"{on}, {rate:.1%} of its {unit} could not be read."
    for warning in (system.get("diagnosis") or {}).get("warnings") or []:
        yield f"{on}: {cell(warning)}"
    if missing := system.get("missing_queries"):
        yield f"{on}, {missing} queries have no ranking and count as zero."
    leaks = (result.get("data") or {}).get("leaks") or {}
    if shared := leaks.get("shared_relevant_documents"):
        yield f"{on}, {shared} documents relevant in the test split are so in training too."


def _verdict(c: Mapping[str, Any], bench: Measured) -> str:
    metric, baseline = shown_metric(c["metric"]), cell(c["baseline"])
    by = f"{c['difference']:+.3f} ({c['low']:+.3f} to {c['high']:+.3f}), p {p_text(c['p_holm'])}"
    if c["p_holm"] >= LEVEL:
        least = (bench.result.get("minimal_difference") or {}).get(c["metric"]) or {}
        power = least.get(c["baseline"])
        seen = f"; these queries would show {power:.3f} or more" if power is not None else ""
        return f"not significantly different from *{baseline}* in {metric}: {by}{seen}."
    how = "better" if c["difference"] > 0 else "**worse**"
    return f"significantly {how} than *{baseline}* in {metric}: {by}."


def p_text(p: float) -> str:
    """A p-value as tables have it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(bench: Measured) -> list[str]:
    result = bench.result
    metrics: Sequence[str] = result["metrics"]
    tests = {
        (c["baseline"], c["system"]): c
        for c in result.get("comparisons") or []
        if c["metric"] == metrics[0]
    }
    baselines = list(dict.fromkeys(baseline for baseline, _ in tests))
    heads = ["system", *map(shown_metric, metrics)]
    heads += [f"against {baseline}" for baseline in baselines]
    heads += ["calls", "tokens in", "tokens out"]
    own = {row.name for row in bench.rows}
    lines = ["| " + " | ".join(map(cell, heads)) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for system in result["systems"]:
        name = cell(system["name"])
        cells = [f"**{name}**" if system["name"] in own else name]
        for metric in metrics:
            m = system["metrics"][metric]
            cells.append(f"{m['mean']:.3f} ({m['low']:.3f}–{m['high']:.3f})")
        for baseline in baselines:
            c = tests.get((baseline, system["name"]))
            cells.append(f"{c['difference']:+.3f}, p {p_text(c['p_holm'])}" if c else "")
        cells += _costs(system.get("costs") or {})
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _costs(costs: Mapping[str, float]) -> list[str]:
    if not costs:
        return ["", "", ""]
    known = [costs.get(name) for name in ("calls", "prompt_tokens", "completion_tokens")]
    return ["" if v is None else f"{v:.1f}" if i == 0 else f"{v:.0f}" for i, v in enumerate(known)]


def _beside(bench: Measured) -> list[str]:
    """What a reader of the table would miss, and whose numbers a row is."""
    result, kinds = bench.result, {s.get("kind") for s in bench.result["systems"]}
    lines = []
    for row in bench.rows:
        if row.seed:
            values = ", ".join(
                f"{shown_metric(m)} {value(bench, row, m):.3f}" for m in result["metrics"]
            )
            lines.append(
                f"- Row *{cell(row.name)}* is a mean over seeds; this checkpoint is that of seed "
                f"{row.seed}: {values}."
            )
    if "perfect" not in kinds and (ceiling := result.get("ceiling")):
        values = ", ".join(f"{shown_metric(m)} {v:.3f}" for m, v in ceiling.items())
        lines.append(f"- The perfect order of the same candidates has {values}.")
    absent = [kind.replace("_", " ") for kind in _NOTED[:2] if kind not in kinds]
    lines += [f"- No row for: {', '.join(absent)}."] if absent else []
    return [*lines, ""] if lines else []


def cell(text: Any) -> str:
    """Text that keeps to its cell of a table.

    Names come from recipes of anybody: on a card they are words, neither links nor pages.
    """
    return re.sub(r"[<>\[\]`\\]", "", " ".join(str(text).split())).replace("|", "/")


def _results(folder: Path) -> list[Path]:
    if (folder / RESULT).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{RESULT}"))
    if not found:
        raise DataError(
            f"no {RESULT}", where=str(folder), expected="an output folder of rank-rl bench"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    result = read_json(path)
    try:
        metrics = [str(m) for m in result["metrics"]]
        for system in result["systems"]:
            str(system["name"])
            for metric in metrics:
                float(system["metrics"][metric]["mean"])
        int(result["queries"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("not a benchmark result", where=str(path)) from error
    if not metrics:
        raise DataError("no metrics", where=str(path))
    return result


def _rows(bench: Measured, contract: PromptContract, fingerprint: str) -> Iterator[Row]:
    """The checkpoint's rows, those that ask as the contract says before others."""
    by_seed: dict[str, dict[str, str]] = {}
    for file in sorted((bench.folder / DOCUMENTS).glob("*.json")):
        record = read_json(file)
        revision = str((record.get("model") or {}).get("revision", ""))
        by_seed.setdefault(str(record.get("system")), {})[str(record.get("seed"))] = revision
    found: list[tuple[bool, Row]] = []
    for name, system in bench.systems.items():
        revisions = by_seed.get(name) or {"": str((system.get("model") or {}).get("revision", ""))}
        own = [seed for seed, revision in revisions.items() if _same(revision, fingerprint)]
        if own:
            alone = len(own) < len(revisions) and own[0] in (system.get("seeds") or {})
            row = Row(name=name, seed=own[0] if alone else "")
            found.append((_asked(system, contract), row))
    yield from (row for _, row in sorted(found, key=lambda pair: not pair[0]))


def _same(revision: str, fingerprint: str) -> bool:
    return revision.split(" on ")[0] == f"files:{fingerprint}"


def _asked(system: Mapping[str, Any], contract: PromptContract) -> bool:
    """Whether a row was asked as the contract says, and not joined with the first stage."""
    setting = system.get("setting") or {}
    wanted = {
        "format": contract.version,
        "mode": contract.mode,
        "strategy": contract.strategy.name,
        "readout": contract.readout,
    }
    return not system.get("fusion") and all(
        setting.get(key, wanted[key]) == wanted[key] for key in wanted
    )


def _free(name: str, taken: Sequence[str]) -> str:
    slug = _slug(name)
    names = itertools.chain([slug], (f"{slug}-{i}" for i in itertools.count(2)))
    return next(free for free in names if free not in taken)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "collection"
