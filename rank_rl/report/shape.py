"""Result files in one shape: what old ones lack is there, empty, or made from what they have.

Contract: every key that the report reads exists with a value of its type; what is not known stays
empty and is never guessed. Only what a file cannot do without is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rank_rl.errors import DataError

ASKED = ("slots", "text", "scorer", "endpoint", "cross_encoder")
KINDS = {
    "random": "random order",
    "first_stage": "first stage",
    "perfect": "perfect order",
    "run": "run file",
    "slots": "label slots",
    "text": "generated text",
    "scorer": "scorer",
    "endpoint": "endpoint",
    "cross_encoder": "cross-encoder",
}
_EXPECTED = "a result.json of rank-rl bench"
_TOP: dict[str, Any] = {
    "name": "",
    "recipe": {},
    "seeds": [],
    "rank_rl": "",
    "versions": {},
    "data": {},
    "collection": {},
    "currency": "USD",
    "resamples": 0,
    "queries_without_relevant": 0,
    "ceiling": {},
    "minimal_difference": {},
    "slices": {},
    "comparisons": [],
    "steps": [],
    "per_query": {},
}
_SYSTEM: dict[str, Any] = {
    "kind": "",
    "model": {},
    "setting": {},
    "statuses": {},
    "issues": {},
    "explanations": {},
    "costs": {},
    "seeds": {},
    "spread": {},
    "judged": {},
    "kept": {},
    "diagnosis": {},
    "missing_queries": 0,
}
# What rows must have to be shown: texts, then numbers.
_ROWS = {
    "comparisons": (("metric", "baseline", "system"), ("difference", "low", "high")),
    "steps": (("metric", "from", "to"), ("difference", "low", "high", "p")),
}
_MAYBE = ("fusion", "failure_rate", "latency", "price", "energy", "run", "exchanges")


def completed(raw: Any, where: str) -> dict[str, Any]:
    """A result with every key of the newest shape.

    Args:
        raw: what the file holds.
        where: its name, for messages.

    Raises:
        DataError: it is no result of a benchmark.
    """
    metrics = raw.get("metrics") if isinstance(raw, dict) else None
    systems = raw.get("systems") if isinstance(raw, dict) else None
    if not metrics or not systems or not isinstance(metrics, list) or not isinstance(systems, list):
        raise DataError("not a benchmark result", where=where, expected=_EXPECTED)
    result = {**raw, **_filled(raw, _TOP)}
    result["metrics"] = [str(m) for m in metrics]
    result["systems"] = [_system(s, where) for s in systems]
    for key in ("git", "leaks", "teacher"):
        result.setdefault(key, None)
    for key, names in _ROWS.items():
        result[key] = [row for row in result[key] if _has(row, names)]
    result["queries"] = _queries(result)
    result["collection"] = _collection(result)
    result["ceiling"] = result["ceiling"] or _ceiling(result["systems"])
    return result


def baselines(result: Mapping[str, Any]) -> dict[str, str]:
    """The letter that marks differences from each baseline, in the order of the comparisons."""
    names = dict.fromkeys(c["baseline"] for c in result["comparisons"])
    return {name: chr(ord("a") + i % 26) for i, name in enumerate(names)}


def mean(system: Mapping[str, Any], metric: str) -> float | None:
    """A system's mean of a metric, None where it was not measured."""
    found = system["metrics"].get(metric)
    return None if found is None else found["mean"]


def asked(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The systems that ask a model."""
    return [s for s in result["systems"] if s["kind"] in ASKED or s["model"]]


def first_stage(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of the first stage, where there is one."""
    return next((s for s in result["systems"] if s["kind"] == "first_stage"), None)


def _filled(raw: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``defaults``, where absent, null or of another type, with their value there."""
    filled = {}
    for key, default in defaults.items():
        value = raw.get(key)
        kind = (int, float) if isinstance(default, int) else type(default)
        filled[key] = value if isinstance(value, kind) else _copied(default)
    return filled


def _copied(default: Any) -> Any:
    return default.copy() if isinstance(default, dict | list) else default


def _system(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise DataError("a system without a name", where=where, expected=_EXPECTED)
    measured = raw.get("metrics")
    if not isinstance(measured, dict) or not all(map(_is_interval, measured.values())):
        raise DataError(
            f"system {raw['name']!r} has no metrics with mean, low and high",
            where=where,
            expected=_EXPECTED,
        )
    return {**raw, **_filled(raw, _SYSTEM), **{key: raw.get(key) for key in _MAYBE}}


def _is_interval(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), int | float) for key in ("mean", "low", "high")
    )


def _has(row: Any, names: tuple[tuple[str, ...], tuple[str, ...]]) -> bool:
    texts, numbers = names
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(key), str) for key in texts)
        and all(isinstance(row.get(key), int | float) for key in numbers)
    )


def _queries(result: Mapping[str, Any]) -> int:
    """How many queries count: as written, or as many as have values."""
    if isinstance(result.get("queries"), int):
        return int(result["queries"])
    for by_metric in result["per_query"].values():
        for values in by_metric.values():
            return len(values)
    return 0


def _collection(result: Mapping[str, Any]) -> dict[str, Any]:
    known, data = result["collection"], result["data"]
    fallback = {
        "name": data.get("name") or result["name"] or "collection",
        "queries": result["queries"],
        "first_stage": data.get("first_stage") or "",
    }
    return {**fallback, **{k: v for k, v in known.items() if v is not None}}


def _ceiling(systems: list[dict[str, Any]]) -> dict[str, float]:
    """What the perfect order has, which is the ceiling by definition."""
    perfect = next((s for s in systems if s["kind"] == "perfect"), None)
    return {m: v["mean"] for m, v in perfect["metrics"].items()} if perfect else {}
