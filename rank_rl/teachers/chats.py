"""Chat samples that other projects trained rerankers on: their prompts and answers taken apart.

A user turn shows documents as ``[1] text`` lines, or one behind ``<Document>:``, and a query behind
``<Query>:``, ``Query:``, ``Search Query:`` or in a sentence (``… relevance to query: X.``). An
answer is a chain, ``[4](3) = [3](3) > [6](0)``, or a judgement of one document, ``yes(3)``. What
cannot be read raises ``Unusable`` with the name of a cause: nothing is guessed where numbers in a
text could be mistaken for documents. Files, and lessons made of this, are left to ``imports``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rank_rl.data.files import text_field
from rank_rl.errors import DataError
from rank_rl.formats import tags
from rank_rl.records import Order, Scores

_USER = ("user", "human")
_ASSISTANT = ("assistant", "gpt", "model")
_SWITCH = re.compile(r"\s*(?<!\S)/(no_)?think\s*\Z")

_DOCUMENTS = re.compile(r"^[ \t]*(?:<documents>[ \t]*:?|documents:)[ \t]*", re.I | re.M)
_DOCUMENT = re.compile(r"^[ \t]*(?:<document>[ \t]*:?|document:)[ \t]*", re.I | re.M)
_NUMBERED = re.compile(r"[ \t]*\[(\d{1,4})\][ \t]*(.*)", re.S)
_QUERY = re.compile(r"^[ \t]*(?:(<query>)[ \t]*:?|(search )?query:)[ \t]*", re.I | re.M)
_IN_SENTENCE = re.compile(r"\bquery:[ \t]*(.+)", re.I)

_NUMBER = r"-?\d{1,6}(?:\.\d{1,6})?"
_ITEM = re.compile(rf"\[(\d{{1,4}})\](?:\s*\(\s*({_NUMBER})\s*\))?")
_CHAIN = re.compile(rf"{_ITEM.pattern}(?:\s*[<>=]\s*{_ITEM.pattern})*")
_JUDGEMENT = re.compile(rf"(?:(yes|no)(?:\s*\(\s*({_NUMBER})\s*\))?|({_NUMBER}))", re.I)


class Unusable(Exception):
    """A record that cannot become a lesson; caught and counted where the file is read."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(detail)
        self.cause, self.detail = cause, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """A chat: all user turns as one text, and the last answer taken apart."""

    user: str
    answer: str
    reasoning: str
    no_think: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a user turn shows: the query and the documents by label, in shown order."""

    query: str
    documents: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A ranking with ties: labels in groups, best first, and grades by label where it has any."""

    groups: tuple[tuple[str, ...], ...]
    grades: Mapping[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, best first, as often as they were written."""
        return tuple(itertools.chain.from_iterable(self.groups))


def text_of(value: object) -> str:
    """A JSON value as valid, stripped text; empty when it is no string."""
    try:
        return text_field({"text": value}, ("text",), "").strip()
    except DataError:
        return ""


def read_turns(record: Mapping[str, Any]) -> Turns:
    """Read ``messages`` (role, content) or ``conversations`` (from, value).

    Raises:
        Unusable: ``no_chat``, or ``no_answer`` for an answer that ends within its reasoning.
    """
    turns = record.get("messages") or record.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(t, dict) for t in turns):
        raise Unusable("no_chat")
    named = [(t.get("role", t.get("from")), t.get("content", t.get("value")), t) for t in turns]
    asked = [text_of(text) for role, text, _ in named if role in _USER]
    given = [
        (text_of(text), text_of(turn.get("reasoning_content")))
        for role, text, turn in named
        if role in _ASSISTANT
    ]
    if not asked or not given:
        raise Unusable("no_chat")
    answer, reasoning = given[-1]
    parts = tags.split(answer)
    if "truncated" in parts.issues:
        raise Unusable("no_answer", answer[-80:])
    user = "\n".join(asked)
    switch = _SWITCH.search(user)
    return Turns(
        user=user[: switch.start()] if switch else user,
        answer=parts.answer.strip(),
        reasoning=reasoning or parts.reasoning,
        no_think=bool(switch and switch[1]),
    )


def read_shown(text: str) -> Shown:
    """Read the query and the documents of a user turn.

    Raises:
        Unusable: ``no_passages``, ``no_query``, or ``ambiguous_documents`` where the numbers of
            the documents do not follow each other.
    """
    heading = _DOCUMENTS.search(text)
    single = None if heading else _DOCUMENT.search(text)
    if single:
        head, body = text[: single.start()], text[single.end() :]
    else:
        start = _first_numbered(text, heading.end() if heading else 0)
        head, body = text[: heading.start() if heading else start], text[start:]
    query, body = _query(head, body)
    documents = {"1": body.strip()} if single else _numbered(body)
    if not all(documents.values()):
        raise Unusable("no_passages", "an empty document")
    return Shown(query=query, documents=documents)


def read_chain(text: str) -> Chain | None:
    """Read ``[2] > [1] = [3]``, alone or as the last line; None when there is none.

    ``<`` turns the order round. A chain with both ``<`` and ``>`` is none, nor one in which only
    some documents are graded.
    """
    chain = _whole_chain(text)
    if _CHAIN.fullmatch(chain) is None:
        return None
    items = list(_ITEM.finditer(chain))
    signs = [chain[a.end() : b.start()].strip() for a, b in itertools.pairwise(items)]
    graded = [m for m in items if m[2] is not None]
    if {"<", ">"} <= set(signs) or len(graded) not in (0, len(items)):
        return None
    groups: list[list[str]] = []
    for sign, item in zip([">", *signs], items, strict=True):
        if sign == "=":
            groups[-1].append(_label(item[1]))
        else:
            groups.append([_label(item[1])])
    if "<" in signs:
        groups.reverse()
    grades = {_label(m[1]): float(m[2]) for m in graded}
    return Chain(groups=tuple(map(tuple, groups)), grades=grades)


def judged(text: str) -> float | None:
    """The value of ``yes``, ``no`` (1, 0), ``yes(3)`` or a number; None for another text."""
    match = _JUDGEMENT.fullmatch(text.strip().rstrip("."))
    if match is None:
        return None
    number = match[2] or match[3]
    return float(number) if number else float(match[1].lower() == "yes")


def ranked(chain: Chain, docids: Mapping[str, str]) -> Order | Scores:
    """A chain as an answer about the documents whose labels ``docids`` maps.

    Grades become scores as they are. Ties without grades become one level a group, the last group
    1; a chain without either is an order.

    Raises:
        Unusable: ``labels_unknown``, ``not_a_permutation``, or ``grades_contradict`` where a
            document stands above one with a higher grade.
    """
    check_labels(chain.labels, docids)
    if chain.grades:
        levels = [[chain.grades[label] for label in group] for group in chain.groups]
        if any(min(above) < max(below) for above, below in itertools.pairwise(levels)):
            raise Unusable("grades_contradict", str(dict(chain.grades)))
        return Scores(values={docids[k]: chain.grades[k] for k in docids})
    if all(len(group) == 1 for group in chain.groups):
        return Order(docids=tuple(docids[label] for label in chain.labels))
    count = len(chain.groups)
    level = {k: float(count - i) for i, group in enumerate(chain.groups) for k in group}
    return Scores(values={docids[k]: level[k] for k in docids})


def check_labels(labels: tuple[str, ...], known: Mapping[str, str]) -> None:
    """Refuse labels that are not those of ``known``, each once.

    Raises:
        Unusable: ``labels_unknown`` or ``not_a_permutation``.
    """
    if unknown := [label for label in labels if label not in known]:
        raise Unusable("labels_unknown", f"{unknown[0]} of {len(known)} documents")
    if len(labels) != len(known) or set(labels) != set(known):
        raise Unusable("not_a_permutation", " ".join(labels))


def _label(digits: str) -> str:
    return str(int(digits))


def _whole_chain(text: str) -> str:
    """The text, or its last line where that alone can be a chain."""
    whole = text.strip().rstrip(".").rstrip()
    if _CHAIN.fullmatch(whole):
        return whole
    return whole.rsplit("\n", 1)[-1].strip()


def _first_numbered(text: str, start: int) -> int:
    """Where the first document begins: a line ``[0]`` or ``[1]`` that is no example of a chain."""
    position = start
    for line in text[start:].split("\n"):
        match = _NUMBERED.match(line)
        if match and int(match[1]) in (0, 1) and not _CHAIN.fullmatch(line.strip()):
            return position
        position += len(line) + 1
    raise Unusable("no_passages")


def _numbered(body: str) -> dict[str, str]:
    documents: dict[str, list[str]] = {}
    expected = None
    for line in body.split("\n"):
        match = _NUMBERED.match(line)
        if match and (number := int(match[1])) != expected and expected is not None:
            raise Unusable("ambiguous_documents", f"[{number}] where [{expected}] was expected")
        if match:
            documents[_label(match[1])] = [match[2]]
            expected = int(match[1]) + 1
        elif documents:
            documents[next(reversed(documents))].append(line)
    return {label: "\n".join(parts).strip() for label, parts in documents.items()}


def _query(head: str, body: str) -> tuple[str, str]:
    """The query, and the body without what follows the documents."""
    before, after = _QUERY.search(head), [*_QUERY.finditer(body)]
    if before:
        return _named(before, head), body
    if after:
        return _named(after[-1], body), body[: after[-1].start()]
    sentence = _IN_SENTENCE.search(head)
    if not sentence:
        raise Unusable("no_query", head[:80])
    return _without_stop(sentence[1]), body


def _named(heading: re.Match[str], text: str) -> str:
    """The text behind a heading: up to the next heading, or the line where it has no brackets."""
    rest = text[heading.end() :]
    query = re.split(r"\n[ \t]*<", rest)[0] if heading[1] else rest.split("\n")[0]
    query = _without_stop(query) if heading[2] else query.strip()
    if not query:
        raise Unusable("no_query", text[:80])
    return query


def _without_stop(query: str) -> str:
    """A query without the full stop that RankGPT's sentences put behind it."""
    return query.strip().removesuffix(".").rstrip()
