"""Near-duplicates and overlap of queries: Jaccard similarity of word 3-grams.

Where either of two texts is short, single words count beside 3-grams, or one changed word would
make them strangers. Texts that are equal without case, punctuation and spacing have similarity 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rank_rl.data.leak_files import query_pairs as read_queries
from rank_rl.data.splits import normalised

__all__ = ["Near", "read_queries", "remove_near"]

# Texts of fewer words are compared by single words too.
SHORT = 8
Pairs = list[tuple[str, str]]
Removed = list[tuple[str, str, float]]
Postings = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class _Features:
    """What of a text is compared."""

    grams: frozenset[str]
    words: frozenset[str]
    short: bool


@dataclass(slots=True)
class Near:
    """Kept texts, and which of them is nearest to another text.

    An inverted index: a question costs as much as there are kept texts that share a 3-gram with
    it, or a word where one of the two is short.
    """

    _ids: list[str] = field(default_factory=list)
    _kept: list[_Features] = field(default_factory=list)
    _exact: dict[str, int] = field(default_factory=dict)
    _grams: Postings = field(default_factory=dict)
    _words: Postings = field(default_factory=dict)
    _short_words: Postings = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        """Keep a text under an id; ids may repeat."""
        plain, number = normalised(text), len(self._ids)
        features = _features(plain)
        self._ids.append(name)
        self._kept.append(features)
        if plain:
            self._exact.setdefault(plain, number)
        _post(self._grams, features.grams, number)
        _post(self._words, features.words, number)
        if features.short:
            _post(self._short_words, features.words, number)

    def nearest(self, text: str) -> tuple[str, float]:
        """Id and similarity (0 to 1) of the nearest text; the first kept of equals, "" for none."""
        plain = normalised(text)
        if plain in self._exact:
            return self._ids[self._exact[plain]], 1.0
        own = _features(plain)
        grams = _shared(self._grams, own.grams)
        words = _shared(self._words if own.short else self._short_words, own.words)
        best, similarity = -1, 0.0
        for number in grams.keys() | words.keys():
            value = self._similarity(own, number, grams[number], words[number])
            # Sets have no order: of equals the first kept wins, whatever comes first here.
            if value > similarity or (value == similarity and number < best):
                best, similarity = number, value
        return (self._ids[best], similarity) if best >= 0 else ("", 0.0)

    def _similarity(self, own: _Features, number: int, grams: int, words: int) -> float:
        other = self._kept[number]
        shared, total = grams, len(own.grams) + len(other.grams)
        if own.short or other.short:
            shared, total = grams + words, total + len(own.words) + len(other.words)
        return shared / (total - shared)


def remove_near(
    pairs: Iterable[tuple[str, str]], threshold: float, near: Near | None = None
) -> tuple[Pairs, Removed]:
    """Keep (id, text) pairs that are less than ``threshold`` similar to all kept before.

    Args:
        pairs: ids and texts; earlier ones are kept in preference to later ones.
        threshold: a similarity from which on a text is removed, above 0, at most 1.
        near: texts kept from elsewhere; what is kept here is added to it.

    Returns:
        kept: the pairs kept, in the order given.
        removed: id, id of the kept text that it resembles, and similarity.
    """
    near = Near() if near is None else near
    kept: Pairs = []
    removed: Removed = []
    for name, text in pairs:
        other, similarity = near.nearest(text)
        if similarity >= threshold:
            removed.append((name, other, similarity))
        else:
            near.add(name, text)
            kept.append((name, text))
    return kept, removed


def _features(plain: str) -> _Features:
    parts = plain.split()
    return _Features(
        grams=frozenset(" ".join(parts[i : i + 3]) for i in range(len(parts) - 2)),
        words=frozenset(parts),
        short=len(parts) < SHORT,
    )


def _post(postings: Postings, features: Iterable[str], number: int) -> None:
    for feature in features:
        postings.setdefault(feature, []).append(number)


def _shared(postings: Mapping[str, Sequence[int]], features: Iterable[str]) -> Counter[int]:
    """How many of ``features`` each kept text has."""
    counts: Counter[int] = Counter()
    for feature in features:
        counts.update(postings.get(feature, ()))
    return counts
