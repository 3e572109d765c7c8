"""Tables out of result files: rows for printing, and Markdown for the README.

``python -m rank_rl.bench.tables README.md`` rewrites every block between
``<!-- table:results/NAME.json -->`` and ``<!-- /table -->`` from that file, so that no number in
the documentation is typed by hand. Paths are relative to the Markdown file. Between
``<!-- methods -->`` and ``<!-- /methods -->`` goes the table of ``methods``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rank_rl.bench import methods
from rank_rl.data.files import write_lines
from rank_rl.errors import DataError, RankRLError

_BLOCK = re.compile(
    r"(?P<open><!-- table:(?P<path>[^ >]+) -->\n)(?P<body>.*?)(?P<close><!-- /table -->)", re.DOTALL
)
_METHODS = re.compile(r"(<!-- methods -->\n).*?(<!-- /methods -->)", re.DOTALL)
Row = dict[str, Any]
LEVEL = 0.05
UNMEASURED = "Not measured yet."
# What one answer of a kind is, of which a share could not be read.
_PARSED = {"slots": "of slots", "text": "of answers", "endpoint": "of answers"}


def rows(result: Mapping[str, Any]) -> list[Row]:
    """One row a system: metrics with interval and marks, p-values, readout, failures, cost.

    The p-values of the first metric have columns of their own; ``legend`` explains the marks.
    """
    metrics: Sequence[str] = result["metrics"]
    letters, marks = _letters(result), _marks(result)
    pvalues = {
        (c["baseline"], c["system"]): c["p_holm"]
        for c in result["comparisons"]
        if c["metric"] == metrics[0]
    }
    table = []
    for system in result["systems"]:
        row: Row = {"system": system["name"]}
        for metric in metrics:
            found = system["metrics"][metric]
            mark = marks.get((metric, system["name"]), "")
            value = f"{found['mean']:.3f} ({found['low']:.3f}-{found['high']:.3f}) {mark}"
            row[f"{metric} (95 % CI)"] = value.strip()
        for baseline, letter in letters.items():
            row[f"p vs {baseline} ({letter})"] = _p(pvalues.get((baseline, system["name"])))
        table.append({**row, **_costs(system)})
    return table


def legend(result: Mapping[str, Any]) -> list[str]:
    """What the marks and p-values of the table mean, one line a baseline."""
    return [
        f"{letter}: {baseline}; +{letter} better, -{letter} worse (paired randomisation test, "
        f"p < {LEVEL} after Holm's correction, whose p for {result['metrics'][0]} has a column)"
        f"{_findable(result, baseline)}"
        for baseline, letter in _letters(result).items()
    ]


def _findable(result: Mapping[str, Any], baseline: str) -> str:
    """The smallest difference that these queries find; nothing in results that do not say it."""
    metric = result["metrics"][0]
    least = result.get("minimal_difference", {}).get(metric, {}).get(baseline)
    if least is None:
        return ""
    return f"; a true difference of {least:.3f} in {metric} is found with 80 % power"


def average(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Macro averages: mean over collections of each mean, for the rows that all of them have.

    Only metrics that all collections have count; without one there is no row.
    """
    metrics = [m for m in results[0]["metrics"] if all(m in r["metrics"] for r in results)]
    by_name = [{s["name"]: s for s in r["systems"]} for r in results]
    names = [n for n in by_name[0] if all(n in found for found in by_name)]
    return [
        {
            "system": name,
            **{
                m: sum(found[name]["metrics"][m]["mean"] for found in by_name) / len(by_name)
                for m in metrics
            },
        }
        for name in names
        if metrics
    ]


def _letters(result: Mapping[str, Any]) -> dict[str, str]:
    """A letter for every baseline."""
    names = dict.fromkeys(c["baseline"] for c in result["comparisons"])
    return {name: chr(ord("a") + i) for i, name in enumerate(names)}


def _marks(result: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(metric, system) → ``+a-b``: significantly better than baseline a, worse than b."""
    letters = _letters(result)
    marks: dict[tuple[str, str], str] = {}
    for c in result["comparisons"]:
        if c["p_holm"] < LEVEL:
            sign = "+" if c["difference"] > 0 else "-"
            place = c["metric"], c["system"]
            marks[place] = marks.get(place, "") + sign + letters[c["baseline"]]
    return marks


def step_lines(result: Mapping[str, Any]) -> list[str]:
    """What each step changed in the first metric, one line a step."""
    return [
        f"{s['from']} → {s['to']}: {s['metric']} {s['difference']:+.3f} "
        f"({s['low']:+.3f} to {s['high']:+.3f}, p {_p(s['p'])})"
        for s in result["steps"]
        if s["metric"] == result["metrics"][0]
    ]


def markdown(table: Sequence[Row]) -> str:
    """Rows as a Markdown table; columns that are empty in every row are left out."""
    columns = [k for k in (table[0] if table else {}) if any(row[k] for row in table)]
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|" + "|".join("---" if c == "system" else "---:" for c in columns) + "|")
    lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in table]
    return "\n".join(lines)


def block(result: Mapping[str, Any]) -> str:
    """A whole README block: table, legend, steps, and the line that says where it comes from."""
    lines = [markdown(rows(result)), ""]
    listed = [*legend(result), *step_lines(result)]
    lines += [f"- {line}" for line in listed] + ([""] if listed else [])
    recipe = result["recipe"]
    lines.append(
        f"{result['queries']} test queries of {result['data']['name']}, seed {result['seed']}, "
        f"recipe `{recipe['path']}` ({recipe['hash']}), rank_rl {result['rank_rl']}."
    )
    return "\n".join(lines) + "\n"


def regenerate(path: Path) -> int:
    """Rewrite the table blocks of a Markdown file; returns how many there are.

    A block that never held a table says so until its result file is there.

    Raises:
        DataError: the file or a result file is missing or malformed.
        RecipeError: a recipe of the table of methods is wrong.
        StorageError: the file cannot be written.
    """
    text = _read(path)
    count = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        source = path.parent / match["path"]
        if not source.exists() and match["body"].strip() in ("", UNMEASURED):
            return f"{match['open']}{UNMEASURED}\n{match['close']}"
        try:
            body = block(json.loads(_read(source)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("not a benchmark result", where=str(source)) from error
        return f"{match['open']}{body}{match['close']}"

    def listed(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"{match[1]}{methods.block(path)}{match[2]}"

    new = _METHODS.sub(listed, _BLOCK.sub(replaced, text))
    if new != text:
        write_lines(path, new.removesuffix("\n").split("\n"))
    return count


def _costs(system: Mapping[str, Any]) -> Row:
    costs = system["costs"]
    failures, notes = system["failure_rate"], system["explanations"]
    unit = _PARSED.get(system["kind"], "")
    bad = notes["malformed"] / notes["written"] if notes.get("written") else None
    return {
        "readout": system["setting"].get("readout", ""),
        "parse failures": "" if failures is None else f"{failures:.1%} {unit}",
        "malformed explanations": "" if bad is None else f"{bad:.1%}",
        "tokens in / query": f"{costs['prompt_tokens']:.0f}" if costs else "",
        "tokens out / query": f"{costs['completion_tokens']:.0f}" if costs else "",
        "calls / query": f"{costs['calls']:.1f}" if costs else "",
        "depth": f"{costs['depth']:.1f}" if "depth" in costs else "",
        "s / query": f"{costs['seconds']:.2f}" if costs else "",
    }


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path)) from error


def main(arguments: Sequence[str]) -> int:
    """Regenerate the tables of every file named; the exit status."""
    if not arguments:
        sys.stderr.write("usage: python -m rank_rl.bench.tables FILE.md …\n")
        return 2
    try:
        for name in arguments:
            sys.stdout.write(f"{name}: {regenerate(Path(name))} tables\n")
    except RankRLError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
