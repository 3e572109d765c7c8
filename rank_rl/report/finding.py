"""The one sentence to begin with: the best system that asks a model, against its input order."""

from __future__ import annotations

from rank_rl.report import explorer, shape
from rank_rl.report import shown as numbers
from rank_rl.report.reading import Source


def finding(source: Source) -> str:
    """The first thing to know: the best system that asks a model, against its input order."""
    name, metric = explorer.best(source), source.metric
    found = source.system(name)["metrics"].get(metric)
    if found is None or not source.system(name)["model"]:
        return ""
    said = (
        f"Highest {metric} of the systems that ask a model: {name}, {numbers.score(found['mean'])} "
        f"({numbers.between(found['low'], found['high'])})"
    )
    first = shape.first_stage(source.result)
    start = shape.mean(first, metric) if first else None
    if first is None or start is None:
        return f"{said}."
    said += f"; the first stage has {numbers.score(start)}"
    tested = [
        c
        for c in source.result["comparisons"]
        if (c["metric"], c["baseline"], c["system"]) == (metric, first["name"], name)
    ]
    if tested:
        c = tested[0]
        said += (
            f", a difference of {numbers.signed(c['difference'])} "
            f"({numbers.from_to(c['low'], c['high'])}, Holm's p "
            f"{numbers.probability(c.get('p_holm'))})"
        )
    return f"{said}."
