"""Read one grade out of an answer: a whole number up to a maximum, or one of a few words.

Both scales read an answer that is the grade (``alone``) and one that begins with it (``leading``).
A grade counts when it is alone on its line, begins it, or stands behind a word such as ``Grade:``;
in prose it never does, and several that differ are no answer. Issues: ``grade_spelling`` (more
than the grade), ``non_integer``, ``out_of_range`` (a number that is clipped).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_BLANK = " \t\r\n"
_CLOSING = r"[*_\"'`)\]]*"
_DECOR = r"[ \t*_\"'`(\[]"
_CALLED = r"(?:(?:grade|score|rating|relevance)[\"'*_`]{0,4}[ \t]*(?:[:=]|\bis\b)|answer[*_]{0,2}:)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A grade that was read: its value, its characters in the answer, and what is wrong.

    ``stop`` is where what follows begins, behind anything that still belongs to the grade.
    """

    value: float
    start: int
    end: int
    stop: int
    issues: tuple[str, ...] = ()


class Scale(Protocol):
    """The grades of a format: their texts and what they are worth, worst first."""

    texts: tuple[str, ...]
    values: tuple[float, ...]

    def alone(self, plain: str, *, marked: bool) -> Found | None:
        """The grade of an answer that says nothing else.

        Args:
            plain: the answer in ASCII.
            marked: whether all of it is answer; else only its last line counts.
        """
        ...

    def leading(self, plain: str) -> Found | None:
        """The grade that an answer begins with; what follows it is free."""
        ...


class Numbers:
    """Whole numbers from 0 to ``most``."""

    _number = r"(?P<grade>[+-]?[0-9]+(?:\.[0-9]+)?)"
    _out_of = r"(?:[ \t]*(?:/|out of)[ \t]*(?P<most>[0-9]{1,9}))?"
    # "a grade: 0 to 3" names a scale, "1.5.2" and "2nd" are no numbers.
    _no_more = r"(?![.,]?\d|\w)(?![ \t]*(?:to|or|and|[-–])[ \t]*[0-9])"
    _told = r"[ \t]*(?:[:(]|[-–—][ \t])[^\n]*"
    _strict = re.compile(r"[ \t\r\n]*(?P<grade>0|[1-9][0-9]{0,8})[ \t\r\n]*")
    _alone = re.compile(
        rf"^{_DECOR}*{_number}{_out_of}(?:[*_\"'`)\].]*[ \t]*|{_told})$", re.MULTILINE
    )
    _named = re.compile(rf"\b{_CALLED}{_DECOR}{{0,8}}{_number}{_no_more}{_out_of}", re.IGNORECASE)
    _first = re.compile(
        rf"[ \t\r\n]*{_DECOR}{{0,8}}(?:{_CALLED}{_DECOR}{{0,8}})?"
        rf"{_number}{_no_more}{_out_of}{_CLOSING}",
        re.IGNORECASE,
    )
    _bare = re.compile(rf"[ \t\r\n]*(?P<grade>0|[1-9][0-9]{{0,8}}){_no_more}(?![ \t]*(?:/|out of))")

    def __init__(self, most: int) -> None:
        self.most = most
        self.texts = tuple(str(grade) for grade in range(most + 1))
        self.values = tuple(float(grade) for grade in range(most + 1))

    def alone(self, plain: str, *, marked: bool) -> Found | None:
        """See ``Scale``."""
        strict = self._strict.fullmatch(plain)
        if strict:
            return self._found(strict, ())
        begin = 0 if marked else plain.rstrip(_BLANK).rfind("\n") + 1
        found = [m for p in (self._alone, self._named) for m in p.finditer(plain, begin)]
        found = [m for m in found if self._fits(m)]
        same = len({float(m["grade"]) for m in found}) == 1
        return self._found(found[-1], ("grade_spelling",)) if same else None

    def leading(self, plain: str) -> Found | None:
        """See ``Scale``."""
        strict = self._bare.match(plain)
        if strict:
            return self._found(strict, ())
        match = self._first.match(plain)
        fits = match is not None and self._fits(match)
        return self._found(match, ("grade_spelling",)) if match and fits else None

    def _fits(self, match: re.Match[str]) -> bool:
        return match["most"] is None or int(match["most"]) == self.most

    def _found(self, match: re.Match[str], issues: tuple[str, ...]) -> Found:
        issues += ("non_integer",) if "." in match["grade"] else ()
        # A float of many digits is an infinity, which gets clipped; int() would refuse them.
        grade = float(match["grade"])
        issues += () if 0 <= grade <= self.most else ("out_of_range",)
        return Found(
            value=min(max(grade, 0.0), float(self.most)),
            start=match.start("grade"),
            end=match.end("grade"),
            stop=match.end(),
            issues=issues,
        )


class Words:
    """A few words, worst first, and what they are worth."""

    def __init__(self, texts: Sequence[str], values: Sequence[float]) -> None:
        self.texts, self.values = tuple(texts), tuple(map(float, values))
        # One pattern a word: which one matches tells the word whatever its case is.
        self._each = [re.compile(re.escape(text), re.IGNORECASE) for text in self.texts]
        some = "|".join(map(re.escape, sorted(self.texts, key=len, reverse=True)))
        one = rf"(?P<grade>{some})(?!\w|[.,]\d|[/-]\w)"
        # "yes, no" is not a yes with a reason.
        other = rf"(?![ \t,;:.]*(?:{some})[ \t*_\"'`)\].]*$)"
        told = rf"{_CLOSING}(?:[ \t]*[:;,.(]|[ \t]*[-–—][ \t]){other}[^\n]*"
        flags = re.IGNORECASE | re.MULTILINE
        end = rf"(?:[*_\"'`)\].]*[ \t]*$|{told})"
        self._strict = re.compile(rf"[ \t\r\n]*(?P<grade>{some})[ \t\r\n]*")
        self._alone = re.compile(rf"^{_DECOR}{{0,8}}{one}{end}", flags)
        self._named = re.compile(rf"\b{_CALLED}{_DECOR}{{0,8}}{one}", flags)
        self._first = re.compile(
            rf"[ \t\r\n]*{_DECOR}{{0,8}}(?:{_CALLED}{_DECOR}{{0,8}})?{one}{_CLOSING}"
            r"(?=[ \t]*(?:$|[\r\n:;,.(]|[-–—][ \t]))",
            re.IGNORECASE,
        )

    def alone(self, plain: str, *, marked: bool) -> Found | None:
        """See ``Scale``."""
        strict = self._strict.fullmatch(plain)
        if strict:
            return self._found(strict, ())
        begin = 0 if marked else plain.rstrip(_BLANK).rfind("\n") + 1
        found = [m for p in (self._alone, self._named) for m in p.finditer(plain, begin)]
        read = [self._found(m, ("grade_spelling",)) for m in found]
        return read[-1] if len({one.value for one in read}) == 1 else None

    def leading(self, plain: str) -> Found | None:
        """See ``Scale``."""
        match = self._first.match(plain)
        if match is None:
            return None
        exact = match["grade"] in self.texts and match[0].strip(_BLANK) == match["grade"]
        issues = () if exact else ("grade_spelling",)
        return self._found(match, issues)

    def _found(self, match: re.Match[str], issues: tuple[str, ...]) -> Found:
        index = next(i for i, word in enumerate(self._each) if word.fullmatch(match["grade"]))
        start, end = match.span("grade")
        value = self.values[index]
        return Found(value=value, start=start, end=end, stop=match.end(), issues=issues)
