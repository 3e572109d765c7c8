"""Read the one label that a text names in another way than asked: ``Passage 2``, ``**[2]**``.

For formats whose answer is a single label. Where several different labels stand, none is read.
"""

from __future__ import annotations

import re

AROUND = " \t\r\n*_\"'`.()"
_WORDS = "the|relevant|helpful|answer|passage|document|is"


def only_label(plain: str, one: str, called: str, *, prose: bool) -> str | None:
    """The only label of a text, unchecked: it may belong to no document.

    Args:
        plain: the answer in ASCII, or that line of a text which can be an answer.
        one: pattern of a label, see ``labels.id_pattern``.
        called: pattern of what the document asked for is called, ``best|most``.
        prose: whether a label in brackets counts anywhere, where it is the only one.
    """
    before = rf"(?:(?:{_WORDS}|{called})\b[ \t:*_]*){{0,7}}"
    label = rf"(?:\[\s*({one})\s*\]|({one}))"
    alone = re.fullmatch(before + label, plain.strip(AROUND), re.IGNORECASE)
    if alone:
        return alone[1] or alone[2]
    mentioned = set(re.findall(rf"\[\s*({one})\s*\]", plain))
    return mentioned.pop() if prose and len(mentioned) == 1 else None
