"""Leaderboards as LaTeX tables for papers (packages booktabs and, in the text, nothing else).

Contract: the best mean of a column is bold and the second underlined, among the systems that could
win (neither random nor perfect order); equal means share their place. Daggers mark what is
significantly better than a baseline, the same ones below the line what is worse. Every text is
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rank_rl.report import leaderboard, shape, shown
from rank_rl.report.macro import macro
from rank_rl.report.reading import Source
from rank_rl.report.safe import clean
from rank_rl.report.tables import Mark, Table

SIGNS = (r"\dagger", r"\ddagger", r"\S", r"\P", r"\ast", r"\circ", r"\star", r"\diamond")
OUT_OF_COMPETITION = ("perfect", "random")
_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "→": r"$\rightarrow$",
    "±": r"$\pm$", "–": "--", "…": r"\dots{}", "\ufffd": "?",
}  # fmt: skip
_SPECIALS = re.compile("|".join(map(re.escape, _SPECIAL)))


def latex(sources: Sequence[Source]) -> str:
    """The table of every result, and the mean over them where there are several."""
    tables = [leaderboard_table(source) for source in sources]
    mean, said = macro(sources)
    if mean is not None:
        tables.append(_mean_table(mean, said))
    return "\n\n".join(tables)


def leaderboard_table(source: Source) -> str:
    """One leaderboard: systems, metrics, and seconds and tokens a query where known."""
    systems, metrics = source.result["systems"], source.result["metrics"]
    ranked = {m: _places(source, m) for m in metrics}
    found, signs = leaderboard.marks(source), _signs(source)
    costs = [k for k in ("prompt_tokens", "completion_tokens", "seconds")
             if any(s["costs"].get(k) for s in systems)]  # fmt: skip
    titles = {"prompt_tokens": "in", "completion_tokens": "out", "seconds": "s"}
    rows = []
    for system in systems:
        name = system["name"]
        cells = [escaped(name)]
        for metric in metrics:
            value = shape.mean(system, metric)
            place = ranked[metric].get(name, 0)
            cells.append(_value(value, place, found.get((metric, name), ()), signs))
        cells += [shown.amount(system["costs"].get(k)) for k in costs]
        rows.append(cells)
    heads = ["System", *map(escaped, metrics), *(titles[k] for k in costs)]
    caption = _caption(source, signs, bool(costs))
    return _table(heads, rows, caption, f"tab:{_slug(source.label)}")


def escaped(text: str) -> str:
    """Text in which LaTeX reads nothing as a command."""
    one_line = " ".join(clean(text).split())
    return _SPECIALS.sub(lambda m: _SPECIAL[m[0]], one_line)


def _places(source: Source, metric: str) -> dict[str, int]:
    """1 for the best systems, 2 for the second best."""
    means = {
        s["name"]: round(value, 3)
        for s in source.result["systems"]
        if s["kind"] not in OUT_OF_COMPETITION
        and (value := shape.mean(s, metric)) is not None
    }  # fmt: skip
    best = sorted(set(means.values()), reverse=True)[:2]
    return {name: best.index(v) + 1 for name, v in means.items() if v in best}


def _signs(source: Source) -> dict[str, str]:
    """A sign for each baseline."""
    names = shape.baselines(source.result)
    return {n: SIGNS[i % len(SIGNS)] for i, n in enumerate(names)}


def _value(value: float | None, place: int, marks: Sequence[Mark], signs: Mapping[str, str]) -> str:
    if value is None:
        return "--"
    said = shown.score(value)
    said = rf"\textbf{{{said}}}" if place == 1 else rf"\underline{{{said}}}" if place == 2 else said
    better = "".join(signs[m.baseline] for m in marks if m.better)
    worse = "".join(signs[m.baseline] for m in marks if not m.better)
    if not better and not worse:
        return said
    return f"{said}${f'^{{{better}}}' if better else ''}{f'_{{{worse}}}' if worse else ''}$"


def _caption(source: Source, signs: Mapping[str, str], costs: bool) -> str:
    result = source.result
    said = f"{escaped(source.label)}: means over {result['queries']} queries. Best bold, second "
    said += "underlined (random and perfect order aside)."
    for name, sign in signs.items():
        said += f" $^{{{sign}}}$ significantly better than {escaped(name)}, $_{{{sign}}}$ worse."
    if signs:
        said += (
            " Paired randomisation test over queries, $p < 0.05$ after Holm's correction over all "
            "systems."
        )
    if costs:
        said += " in, out: tokens read and written a query; s: seconds a query."
    return said


def _mean_table(mean: Table, said: str) -> str:
    heads = [escaped(c.title) for c in mean.columns]
    rows = [[escaped(c.text) if i == 0 else c.text for i, c in enumerate(r)] for r in mean.rows]
    return _table(heads, rows, escaped(said), "tab:mean")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "result"
