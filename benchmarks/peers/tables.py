"""The tables of ``benchmarks/rerank.py``: on the terminal, and in docs/speed.md.

Everything in them comes from the result file; ``page`` is what stands between the page's markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marked import put

BEGIN, END = "<!-- rerank_speed: begin -->", "<!-- rerank_speed: end -->"
HEAD = ("system", "queries/s", "rank_rl is faster by", "same rankings", "same answers",
        "prompts/query", "tokens/query", "distinct", "written", "of the floor")  # fmt: skip


def rows(part: Mapping[str, Any], ours: str = "rank_rl") -> Iterable[tuple[str, ...]]:
    """One row a system of one strategy, the fastest first; those that did not run come last."""
    ran = [s for s in part["systems"] if "did_not_run" not in s]
    for system in sorted(ran, key=lambda s: -s["queries_per_second"]):
        ratio = system.get("ratios", {}).get(ours)
        same = system.get("agreement", {}).get(ours, {})
        yield (
            system["system"],
            f"{system['queries_per_second']:.3g}",
            _times(ratio) if ratio else "",
            f"{same['same_rankings']}/{same['rankings']}" if same else "",
            f"{same['same_texts']}/{same['texts']}" if "texts" in same else "",
            f"{system['calls_per_query']:.1f}",
            f"{system['tokens_per_query']:.0f}",
            f"{system['distinct_per_query']:.0f}",
            f"{system['written_per_query']:.0f}",
            f"{system['share_of_floor']:.0%}",
        )
    for system in part["systems"]:
        if "did_not_run" in system:
            yield (system["system"], "did not run", *[""] * (len(HEAD) - 2))


def _times(ratio: Mapping[str, Any]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def reasons(part: Mapping[str, Any]) -> list[str]:
    """Why systems did not run."""
    absent = [s for s in part["systems"] if "did_not_run" in s]
    return [f"{s['system']} did not run: {s['did_not_run']}" for s in absent]


def title(part: Mapping[str, Any]) -> str:
    """What one part measured."""
    return (
        f"{part['strategy']}: {part['documents']} documents of up to {part['doc_tokens']} tokens, "
        f"{part['blocks']} blocks of {part['queries']} queries, {part['dtype']}"
    )


def show(part: Mapping[str, Any]) -> None:
    """Print one strategy."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title(part))
    for name in HEAD:
        left = name == HEAD[0]
        table.add_column(name, justify="left" if left else "right", min_width=26 if left else None)
    for row in rows(part):
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 150)  # a log is as wide
    console.print(table)
    for reason in reasons(part):
        console.print(reason, markup=False)


def page(result: Mapping[str, Any]) -> str:
    """The Markdown of all strategies, and of what they were measured on."""
    parts = [_markdown(part) for part in result["parts"]]
    return "\n\n".join(parts) if parts else "Not measured yet."


def _markdown(part: Mapping[str, Any]) -> str:
    rule = ["---", *["---:"] * (len(HEAD) - 1)]
    lines = [HEAD, rule, *rows(part)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    machine = part["machine"]
    versions = {
        f"{package} {found}"
        for system in part["systems"]
        for package, found in system.get("versions", {}).items()
        if found != "not installed"
    }
    said = (
        f"Model `{part['model']}`, collection `{part['collection']}`; {machine['processor']}, "
        f"{machine['threads']} threads, {part['gigaflops']:.0f} GFLOP/s in the model's matrices. "
        f"{', '.join(sorted(versions))}."
    )
    notes = "".join(f"\n- {reason}" for reason in reasons(part))
    return f"### {title(part)}\n\n{table}\n\n{said}" + (f"\n{notes}" if notes else "")


def render(result: Mapping[str, Any], path: Path) -> None:
    """Write the tables between the markers of a page."""
    put(path, (BEGIN, END), page(result))


def fastest(systems: Sequence[Mapping[str, Any]], ours: str = "rank_rl") -> str | None:
    """The fastest system that is not one of rank_rl's own."""
    peers = [s for s in systems if "did_not_run" not in s and not s["system"].startswith(ours)]
    if not peers:
        return None
    return str(max(peers, key=lambda s: s["queries_per_second"])["system"])
