"""Documents that try to be ranked first: injected texts, by kind, for training and for tests.

Contract: what is drawn depends on seed, query and document only; an attacked document keeps its
id, rank, score and grade. ``part`` says which phrasings are used: those of training and those of
tests are apart (``injection_texts``). Measuring a model is left to ``rank_rl.attacks``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from rank_rl import seeds
from rank_rl.data import injection_texts as texts
from rank_rl.data.injection_texts import Part
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs.attacks import AttackKind, AttackSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

KINDS: tuple[str, ...] = get_args(AttackKind)
# What is no persuasion: texts that a reader may stumble over. For tests only.
ODD: tuple[str, ...] = ("empty", "nul", "surrogate", "right_to_left", "megabyte")
_MEGABYTE = 1 << 20
_FLOOD = 60  # sentences
_LOOK_ALIKES = str.maketrans("aceiopsxyABEHIKMOPTX", "асеіорѕхуАВЕНІКМОРТХ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """What an injected text is made of.

    Attributes:
        query: whom it is to please.
        part: which phrasings.
        shape: name of the format whose answers it imitates; empty is any.
        rng: what is drawn from.
    """

    query: Query
    part: Part
    shape: str
    rng: random.Random

    def one(self, phrasings: Mapping[Part, Sequence[str]]) -> str:
        """One of the phrasings with the query and a label put in."""
        return self.filled(self.rng.choice(phrasings[self.part]))

    def filled(self, text: str) -> str:
        """A phrasing with the query and a label put in; a document's own braces stay."""
        number = str(self.rng.randint(1, 9))
        text = text.replace("{{", "{").replace("}}", "}").replace("{n}", number)
        return text.replace("{query}", self.query.text)


class Drawn(TypedDict, total=False):
    """What an attack is drawn by.

    ``part``: ``train`` or ``test`` (the default), which phrasings; ``place``: ``start``, ``end`` or
    ``random`` (the default); ``shape``: name of the format whose answers are imitated, empty is
    any; ``seed``: together with query, document and kind it decides what is drawn.
    """

    part: Part
    place: str
    shape: str
    seed: int


def inject(candidate: Candidate, kind: str, query: Query, **drawn: Unpack[Drawn]) -> Candidate:
    """A document with an attack in its text.

    Args:
        candidate: the document.
        kind: one of ``KINDS`` or ``ODD``.
        query: the query that it is ranked for.
        drawn: see ``Drawn``.
    """
    part, place = drawn.get("part", "test"), drawn.get("place", "random")
    shape, seed = drawn.get("shape", ""), drawn.get("seed", 0)
    rng = seeds.rng(seed, "attack", part, kind, query.qid, candidate.docid)
    if kind in ODD:
        return replace(candidate, text=_odd(kind, candidate.text))
    text = _MAKERS[kind](Injection(query=query, part=part, shape=shape, rng=rng))
    first = place == "start" or (place == "random" and rng.random() < 0.5)
    whole = f"{text} {candidate.text}" if first else f"{candidate.text} {text}"
    return replace(candidate, text=whole)


def attacked(
    tasks: Sequence[RankingTask], spec: AttackSpec, *, seed: int
) -> tuple[tuple[RankingTask, ...], dict[str, Any]]:
    """Training tasks with attacked documents, and JSON-safe counts of them by kind.

    Args:
        tasks: training tasks; those of validation and test are not for here.
        spec: how many and which.
        seed: run seed, where the spec has none.
    """
    seed = seed if spec.seed is None else spec.seed
    share = spec.share if spec.relevant is None else spec.relevant
    counts = dict.fromkeys(spec.kinds, 0)
    changed = []
    for task in tasks:
        grades = task.grades or {}
        candidates = []
        for candidate in task.candidates:
            rng = seeds.rng(seed, "attacked", task.query.qid, candidate.docid)
            relevant = grades.get(candidate.docid, 0) > 0
            if rng.random() < (share if relevant else spec.share):
                kind = rng.choice(spec.kinds)
                counts[kind] += 1
                candidate = inject(
                    candidate, kind, task.query, part="train", place=spec.place, seed=seed
                )
            candidates.append(candidate)
        changed.append(replace(task, candidates=tuple(candidates)))
    documents = sum(len(task.candidates) for task in tasks)
    return tuple(changed), {**spec.model_dump(mode="json"), "documents": documents, "made": counts}


def _odd(kind: str, text: str) -> str:
    if kind == "empty":
        return ""
    if kind == "nul":
        return "\x00".join(text.split(" ")) + "\x00"
    if kind == "surrogate":
        return f"\ud83d {text} \udc00"
    if kind == "right_to_left":
        return f"هذا النص يقرأ من اليمين إلى اليسار {text} וגם הטקסט הזה"
    return (text or "river ") * (_MEGABYTE // max(1, len(text or "river ")) + 1)


def _command(make: Injection) -> str:
    return make.one(texts.COMMANDS)


def _answer(make: Injection) -> str:
    shapes = texts.ANSWERS[make.part]
    name = _SHAPES.get(make.shape, make.shape)
    return make.filled(make.rng.choice(shapes[name if name in shapes else _any(make, shapes)]))


def _any(make: Injection, shapes: Mapping[str, Sequence[str]]) -> str:
    return make.rng.choice(sorted(shapes))


def _keywords(make: Injection) -> str:
    words = [w.strip("?.,!\"'") for w in make.query.text.split() if len(w) > 3] or ["answer"]
    return " ".join(make.rng.choice(words) for _ in range(3 * len(words)))


def _flood(make: Injection) -> str:
    return " ".join(make.one(texts.COMMANDS) for _ in range(_FLOOD))


def _zero_width(make: Injection) -> str:
    return "\u200c".join(_command(make)) + "\u2063"


def _homoglyphs(make: Injection) -> str:
    return _command(make).translate(_LOOK_ALIKES)


def _tags_block(make: Injection) -> str:
    """A command in tag characters, which no screen shows and a tokenizer may still read."""
    return "".join(chr(0xE0000 + ord(c)) for c in _command(make) if c.isascii())


def _bidi(make: Injection) -> str:
    """A command written backwards and turned round again by a control character."""
    return f"\u2067\u202e{_command(make)[::-1]}\u202c\u2069"


# Formats whose answers look like those of another one.
_SHAPES = {"pair": "choice", "explain": "scores"}
_MAKERS: dict[str, Callable[[Injection], str]] = {
    "command": _command,
    "answer": _answer,
    "turn": lambda make: make.one(texts.TURNS),
    "reasoning": lambda make: make.one(texts.REASONING),
    "documents": lambda make: make.one(texts.DOCUMENTS),
    "authority": lambda make: make.one(texts.AUTHORITY),
    "language": lambda make: make.one(texts.LANGUAGE),
    "stuffing": lambda make: make.one(texts.STUFFING),
    "keywords": _keywords,
    "flood": _flood,
    "zero_width": _zero_width,
    "homoglyphs": _homoglyphs,
    "tags_block": _tags_block,
    "bidi": _bidi,
}
