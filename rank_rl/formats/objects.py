"""Read a JSON object of scores, ``{"[1]": 7, "[2]": 0}``, out of an answer.

Strictly, the answer is that object and nothing else, whole numbers only. Leniently, the last
object that can be decoded counts, then pairs of a label and a number wherever they stand. Where
keys quote their document, ``{"[1] stars make": 7}``, a wrong quotation is read as well. Repeated
keys, ``NaN``, ``1e400`` and numbers of any length are read without raising.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rank_rl.formats.labels import ascii_form, id_pattern

_STRICT = re.compile(
    r'\{\s*"\[\w+\][^"\\]*"\s*:\s*(?:0|[1-9][0-9]{0,8})'
    r'(?:\s*,\s*"\[\w+\][^"\\]*"\s*:\s*(?:0|[1-9][0-9]{0,8}))*\s*\}',
    re.ASCII,
)
_GIVEN = re.compile(r": (0|[1-9][0-9]{0,8})(?=[,}])")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_BLANK = " \t\r\n"
_ATTEMPTS = 20


class _Pairs(list[tuple[str, Any]]):
    """A decoded JSON object with its repeated keys."""


def _integer(text: str) -> float:
    # int() refuses more than 4300 digits; a float of them is an infinity, which gets clipped.
    return int(text) if len(text) < 16 else float(text)


def _parsed(text: str) -> float:
    return float(text) if "." in text else _integer(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_integer)


def read_scores(
    answer: str, keys: Mapping[str, str], maximum: int
) -> tuple[dict[str, float], list[str]]:
    """Return the score of every label that has one, clipped to 0 … ``maximum``, and the issues.

    Args:
        answer: what the model wrote.
        keys: by label, the key that stands for it, ``[1]`` or ``[1] some words``.
        maximum: the best score.

    Returns:
        scores: by label; the first one counts where a label repeats.
        issues: ``non_ascii``, ``bad_json``, ``text_before``, ``text_after``, ``unfinished``,
            ``unknown_label``, ``label_spelling``, ``quote``, ``duplicate``, ``non_integer``,
            ``out_of_range``, ``missing``, ``out_of_order``; empty when all rules were kept.
    """
    plain = ascii_form(answer).strip(_BLANK)
    issues = [] if plain == answer.strip(_BLANK) else ["non_ascii"]
    exact = _faultless(plain, keys, maximum)
    if exact is not None:
        return exact, issues
    return _general(plain, keys, maximum, issues)


def _faultless(plain: str, keys: Mapping[str, str], maximum: int) -> dict[str, float] | None:
    """The scores of an object written just as the ideal answer is, None for any other text."""
    template = _template(tuple(keys.values()))
    numbers = _GIVEN.findall(plain)
    if template is None or len(numbers) != len(keys) or plain != template % tuple(numbers):
        return None
    scores = [float(number) for number in numbers]
    return dict(zip(keys, scores, strict=True)) if max(scores) <= maximum else None


@lru_cache(maxsize=256)
def _template(keys: tuple[str, ...]) -> str | None:
    """The object of these keys with a ``%s`` for each score.

    None where there is no key, or one that strict JSON would have to escape: only the slow path
    judges those.
    """
    plain = [ascii_form(key) for key in keys]
    if not plain or any(_ESCAPED.search(key) for key in plain):
        return None
    pairs = (f'"{key}": '.replace("%", "%%") + "%s" for key in plain)
    return f"{{{', '.join(pairs)}}}"


def _general(
    plain: str, keys: Mapping[str, str], maximum: int, issues: list[str]
) -> tuple[dict[str, float], list[str]]:
    """The scores of any text, and ``issues`` with what is wrong with it."""
    pairs, found = _pairs(plain, keys)
    issues = [*issues, *found]
    scores: dict[str, float] = {}
    for key, value in pairs:
        label, fault = _label(key, keys)
        issues += [fault] if fault else []
        if label is None:
            continue
        number, whole = _number(value)
        issues += [] if whole else ["non_integer"]
        if number is None:
            continue
        if label in scores:
            issues.append("duplicate")
            continue
        issues += [] if 0 <= number <= maximum else ["out_of_range"]
        scores[label] = float(min(max(number, 0), maximum))
    if len(scores) < len(keys):
        issues.append("missing")
    if list(scores) != [label for label in keys if label in scores]:
        issues.append("out_of_order")
    if not issues and not _STRICT.fullmatch(plain):
        issues.append("bad_json")
    return scores, issues


def spans(answer: str, keys: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Where in an answer the number of each label's first score stands."""
    found: dict[str, tuple[int, int]] = {}
    for match in _pair_pattern(keys).finditer(ascii_form(answer)):
        label, _ = _label(match["key"], keys)
        if label is not None:
            found.setdefault(label, match.span("value"))
    return found


def _pairs(plain: str, keys: Mapping[str, str]) -> tuple[list[tuple[str, Any]], list[str]]:
    """Keys and values of the object that counts, and what is wrong around it."""
    if plain.startswith("{"):
        whole, end = _decode(plain, 0)
        if whole is not None and end == len(plain):
            return _unnested(whole)
    start, counted, end = -1, None, 0
    position = plain.find("{")
    for _ in range(_ATTEMPTS):
        if position < 0:
            break
        decoded, stop = _decode(plain, position)
        if decoded is not None:
            start, counted, end = position, decoded, stop
        position = plain.find("{", stop if decoded is not None else position + 1)
    if counted is not None:
        pairs, issues = _unnested(counted)
        issues += ["text_before"] if plain[:start].strip() else []
        return pairs, issues + (["text_after"] if plain[end:].strip() else [])
    issues = ["bad_json"]
    if "{" in plain and "}" not in plain:
        issues.append("unfinished")
    found = _pair_pattern(keys).finditer(plain)
    return [(m["key"], _parsed(m["value"])) for m in found], issues


def _decode(plain: str, start: int) -> tuple[_Pairs | None, int]:
    try:
        value, end = _DECODER.raw_decode(plain, start)
    except (ValueError, RecursionError):
        return None, start
    return (value if isinstance(value, _Pairs) else None), end


def _unnested(pairs: _Pairs) -> tuple[list[tuple[str, Any]], list[str]]:
    """``{"scores": {…}}`` as ``{…}``."""
    if len(pairs) == 1 and isinstance(pairs[0][1], _Pairs):
        return pairs[0][1], ["bad_json"]
    return pairs, []


def _pair_pattern(keys: Mapping[str, str]) -> re.Pattern[str]:
    label = id_pattern(list(keys))
    quotation = r"(?: [^\"\[\]{}:=\n]{0,400})?" if _quoting(keys) else ""
    return re.compile(
        rf"(?P<key>\[ ?(?:{label}) ?\]{quotation}|\"(?:{label})\")\"?\s*[:=]\s*\"?"
        r"(?P<value>[+-]?[0-9]+(?:\.[0-9]+)?)"
    )


def _quoting(keys: Mapping[str, str]) -> bool:
    return any(key != f"[{label}]" for label, key in keys.items())


def _label(key: str, keys: Mapping[str, str]) -> tuple[str | None, str]:
    """The label a key means, and the issue when it is not written exactly as it should."""
    head, bracket, rest = key.partition("]")
    if bracket and head[:1] == "[" and head[1:] in keys and (not rest or _quoting(keys)):
        label = head[1:]
        return label, "" if key == ascii_form(keys[label]) else "quote"
    bare = key.strip().strip("[]\"'").strip()
    return (bare, "label_spelling") if bare in keys else (None, "unknown_label")


def _number(value: Any) -> tuple[float | None, bool]:
    """A finite number or an infinity, and whether it was written as an integer."""
    if isinstance(value, str):
        text = value.strip()
        return (float(text), False) if _NUMBER.fullmatch(text) else (None, False)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None, False
    return value, isinstance(value, int)
