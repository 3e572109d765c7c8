"""A short note behind a label: ``yes. It names him.`` The grammar that label-first formats share.

Strictly a full stop and a space separate both; a full stop alone is an empty note. Issues:
``no_note`` (nothing stands behind the label), ``separator`` (something else separates them).
"""

from __future__ import annotations

_BETWEEN = " \t\r\n.,:;-–—"


def read_note(rest: str) -> tuple[str, list[str]]:
    """The note, on one line, and what is wrong with it; ``rest`` is all that follows the label."""
    issues: list[str] = []
    if not rest.strip():
        issues.append("no_note")
    elif not (rest.startswith(". ") or rest.strip() == "."):
        issues.append("separator")
    return " ".join(rest.lstrip(_BETWEEN).split()), issues


def with_note(label: str, note: str) -> str:
    """A label and its note as ``read_note`` reads them; the note is put on one line."""
    return f"{label}. {' '.join(note.split())}".rstrip()
