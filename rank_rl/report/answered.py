"""What a model said about each query, out of its exchange file.

Contract: several exchanges about one query (windows, groups, pairs) become one ``Answered``: counts
and costs are summed, of two notes about a document the later one stays. Texts are kept up to a
length that no reader reads; nothing here knows about pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rank_rl.data.files import json_lines
from rank_rl.report.safe import shortened

LONGEST = 20_000  # characters of one text
MOST_ANSWERS = 8  # answers of one query as they were written


@dataclass(slots=True, kw_only=True)
class Answered:
    """All that one system said about one query; filled while its file is read.

    Attributes:
        statuses: how often an answer was ok, repaired or failed.
        issues: what was wrong with answers, and how often.
        reasoning: the reasoning about the list as a whole, one an exchange.
        notes: explicit reasoning by docid.
        comparisons: comparison reasoning by docid.
        scores: the score of each docid where the answer had scores.
        texts: answers as they were written, the first few.
        calls: questions asked, explanations not counted.
        prompt_tokens, completion_tokens, seconds: sums, explanations included.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    issues: dict[str, int] = field(default_factory=dict)
    reasoning: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    comparisons: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    query: str = ""
    docids: list[str] = field(default_factory=list)
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


def read(path: Path) -> dict[str, Answered]:
    """Answers by query id, in the order of the file.

    Raises:
        DataError: the file is missing or a line is no JSON object.
    """
    found: dict[str, Answered] = {}
    for _, line in json_lines(path):
        answered = found.setdefault(str(line.get("qid", "")), Answered())
        add_cost(answered, _mapping(line.get("completion")))
        if "explains" in line:
            add_explanation(answered, line)
        else:
            add_exchange(answered, line)
    return found


def add_cost(answered: Answered, completion: Mapping[str, Any]) -> None:
    """Count what one answer took."""
    answered.prompt_tokens += int(_number(completion.get("prompt_tokens")))
    answered.completion_tokens += int(_number(completion.get("completion_tokens")))
    answered.seconds += _number(completion.get("seconds"))


def add_explanation(answered: Answered, line: Mapping[str, Any]) -> None:
    """Take on what was written about a document."""
    if note := _text(line.get("note")):
        answered.notes[str(line["explains"])] = note
    _count(answered.issues, line.get("issues"))


def add_exchange(answered: Answered, line: Mapping[str, Any]) -> None:
    """Take on one question with its answer."""
    outcome, completion = _mapping(line.get("outcome")), _mapping(line.get("completion"))
    answered.calls += 1
    answered.query = answered.query or _text(line.get("query"))
    known = set(answered.docids)
    answered.docids += [str(d) for d in line.get("docids") or [] if str(d) not in known]
    _count(answered.statuses, [outcome["status"]] if outcome.get("status") else [])
    _count(answered.issues, outcome.get("issues"))
    for text in (completion.get("reasoning"), outcome.get("reasoning")):
        if (shown := _text(text)) and shown not in answered.reasoning:
            answered.reasoning.append(shown)
    for name in ("notes", "comparisons"):
        texts = {str(d): _text(t) for d, t in _mapping(outcome.get(name)).items()}
        getattr(answered, name).update({d: t for d, t in texts.items() if t})
    values = _mapping(_mapping(outcome.get("answer")).get("values"))
    answered.scores.update({str(d): float(v) for d, v in values.items() if _is_number(v)})
    if (written := _text(completion.get("text"))) and len(answered.texts) < MOST_ANSWERS:
        answered.texts.append(written)


def _count(counts: dict[str, int], names: Iterable[Any] | None) -> None:
    for name in names or ():
        counts[str(name)] = counts.get(str(name), 0) + 1


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return shortened(value, LONGEST) if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else 0.0
