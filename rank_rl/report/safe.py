"""Text of documents and models made safe to put into a page: nothing of it can become markup.

Contract: what goes into HTML is escaped by Jinja2 and has no character that HTML refuses; what is
embedded as JSON cannot end its element. Nothing is lost but control characters and halves of
surrogate pairs, which become U+FFFD.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ESCAPED = re.compile(r"\\\\|\\u00(?:0[0-8bcef]|1[0-9a-f])")
# What could end a script element or a line of JavaScript.
_ENDING = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def clean(text: str) -> str:
    """Text without the characters that HTML refuses; each of them is U+FFFD."""
    return _REFUSED.sub("\ufffd", text)


def embedded(value: Any) -> Markup:
    """A JSON value as the content of a ``script`` element of type ``application/json``.

    Texts in it are cleaned; numbers that are not finite, which browsers refuse, are null.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
    # JSON writes control characters as escapes; a backslash before one may be escaped itself.
    text = clean(_ESCAPED.sub(lambda m: m[0] if m[0] == r"\\" else "\ufffd", text))
    for character, escape in _ENDING.items():
        text = text.replace(character, escape)
    return Markup(text)


def finite(value: Any) -> Any:
    """A JSON value whose numbers are finite or null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def shortened(text: str, limit: int | None) -> str:
    """The first ``limit`` characters, with an ellipsis where something was cut."""
    if limit is None or len(text) <= limit:
        return text
    return text[:limit].rstrip() + "…"
