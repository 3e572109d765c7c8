"""How much of a known text stands in another one: shared word n-grams, and shared rare words.

Known texts are indexed and others streamed past them, so that hundreds of thousands of training
texts take minutes and little memory. A text that repeats n-grams without the rare words of a known
one ("what is the name of the …") has only its wording in common and is no match. What the texts
are is left to ``leaks``.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

# Scripts written without spaces, where every character is a unit: Thai, Lao, Burmese, Khmer, kana,
# Chinese characters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_CHARACTER = re.compile(rf"[{_UNSPACED}]")
# Two characters of such a script say about as much as a word.
CHARACTERS = 2
# Words of fewer occur in long texts by chance: these must stand there whole.
SHORT = 8
# How much longer than itself the place may be where a text is looked for in another one.
SPAN = 1.5
_FURTHER = ("also", "cannot", "could", "may", "might", "must", "shall", "us", "whose", "would")
_MOST_PROFILES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Where another text repeats a known one.

    ``share``, from 0 to 1, is the lesser of the shares of its n-grams and of the weight of its
    words; ``place`` are the words of the other text there. ``equal``: without case, punctuation,
    width and spacing they are the same text.
    """

    share: float
    place: str
    equal: bool = False


@dataclass(frozen=True, slots=True)
class _Profile:
    """What is compared of a known text: n-grams (as hashes) and weights of words."""

    size: int  # units of an n-gram
    length: int  # units
    grams: frozenset[int]
    weights: Mapping[str, float]
    total: float
    heavy: frozenset[str]  # words of which a match has one at least

    def share(self, words: Collection[str]) -> float:
        """Share of the weight of its words that ``words`` have."""
        return sum(weight for word, weight in self.weights.items() if word in words) / self.total


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a text with the most n-grams of a known one."""

    grams: int
    share: float
    place: str


def units(text: str) -> list[str]:
    """Words of a text, or characters where it is written without spaces.

    Without case, punctuation and width.
    """
    return _UNIT.findall(unicodedata.normalize("NFKC", text).casefold())


class Index:
    """Known texts, and which of them stand in another text.

    A known text of k n-grams of which ``share`` must be found is looked up by only so many that
    one of them has to be among those found: the ones with the rarest words. A wording that
    thousands of queries have in common therefore costs nothing.

    Args:
        texts: the known texts; a match names one by its number here.
        ngram: words of an n-gram; twice as many characters in scripts without spaces. A text of
            fewer is only compared as a whole.
        share: of its n-grams, and of the weight of its words, that must be found. A word weighs
            ln(1 + n / n_w) squared where n_w of the n known texts have it; function words of
            English weigh nothing, and a text of nothing else is only compared as a whole.
    """

    def __init__(self, texts: Sequence[str], *, ngram: int, share: float) -> None:
        self._texts, self._ngram, self._share = texts, ngram, share
        self._frequency: Counter[str] = Counter()
        for text in texts:
            self._frequency.update(set(units(text)))
        self._equal: defaultdict[int, list[int]] = defaultdict(list)
        self._rare: defaultdict[int, dict[int, list[int]]] = defaultdict(dict)
        self._profiles: dict[int, _Profile] = {}
        for number, text in enumerate(texts):
            self._add(number, units(text))

    def find(self, text: str, *, inside: bool = False) -> dict[int, Match]:
        """Matches by number of the known text.

        Args:
            text: any text; of a long one, the place with the most shared n-grams counts that is
                at most half as long again as the known text.
            inside: the text is longer than what is looked for, such as a prompt: known texts of
                fewer than 8 words (16 characters) must stand in it whole.
        """
        parts = units(text)
        if not parts:
            return {}
        same = self._equal.get(hash(tuple(parts)), ())
        found = {n: Match(share=1.0, place=" ".join(parts), equal=True) for n in same}
        words = frozenset(parts)
        for size, rare in self._rare.items():
            grams = _grams(parts, size)
            distinct = frozenset(grams)
            candidates = {n for gram in rare.keys() & distinct for n in rare[gram]}
            for number in sorted(candidates - found.keys()):
                known = self._profile(number)
                if known.heavy.isdisjoint(words):
                    continue  # most candidates have a wording in common and end here
                needed = self._needed(known, inside=inside)
                # What the whole text lacks, no place in it has.
                if len(known.grams & distinct) < needed or known.share(words) < self._share:
                    continue
                match = _placed(known, parts, grams)
                if match.grams >= needed and match.share >= self._share:
                    found[number] = Match(share=round(match.share, 4), place=match.place)
        return found

    def _add(self, number: int, parts: list[str]) -> None:
        if not parts:
            return
        self._equal[hash(tuple(parts))].append(number)
        size = self._size(parts)
        if len(parts) < size or not any(map(self._weight, set(parts))):
            return
        sums = [0.0]
        for part in parts:
            sums.append(sums[-1] + self._weight(part))
        grams: dict[int, float] = {}
        for i, gram in enumerate(_grams(parts, size)):
            grams.setdefault(gram, sums[i + size] - sums[i])
        rarest = sorted(grams, key=lambda gram: -grams[gram])
        for gram in rarest[: len(grams) - self._least(len(grams)) + 1]:
            self._rare[size].setdefault(gram, []).append(number)

    def _profile(self, number: int) -> _Profile:
        """Made when it is first asked for: most known texts never are."""
        if number not in self._profiles:
            if len(self._profiles) >= _MOST_PROFILES:
                self._profiles.clear()
            parts = units(self._texts[number])
            size = self._size(parts)
            weights = {part: weight for part in parts if (weight := self._weight(part))}
            self._profiles[number] = _Profile(
                size=size,
                length=len(parts),
                grams=frozenset(_grams(parts, size)),
                weights=weights,
                total=sum(weights.values()),
                heavy=_heavy(weights, self._share),
            )
        return self._profiles[number]

    def _size(self, parts: Sequence[str]) -> int:
        characters = sum(_CHARACTER.match(part) is not None for part in parts)
        return self._ngram * (CHARACTERS if 2 * characters > len(parts) else 1)

    def _needed(self, known: _Profile, *, inside: bool) -> int:
        short = known.length < SHORT * known.size // self._ngram
        return len(known.grams) if inside and short else self._least(len(known.grams))

    def _least(self, count: int) -> int:
        # 0.6 * 5 is 3.0000000000000004 in another order of rounding: a shade is taken off.
        return max(1, math.ceil(self._share * count - 1e-9))

    def _weight(self, word: str) -> float:
        if word in _function_words():
            return 0.0
        return math.log(1 + len(self._texts) / self._frequency[word]) ** 2


def _grams(parts: Sequence[str], size: int) -> list[int]:
    """Hashes of the n-grams in order; they differ between processes."""
    return list(map(hash, zip(*(parts[i:] for i in range(size)), strict=False)))


def _heavy(weights: Mapping[str, float], share: float) -> frozenset[str]:
    """The heaviest words, so many that the others together weigh less than ``share``."""
    rest, chosen = sum(weights.values()), []
    least = share * rest
    for word in sorted(weights, key=lambda word: -weights[word]):
        if rest < least - 1e-9:
            break
        rest -= weights[word]
        chosen.append(word)
    return frozenset(chosen)


def _placed(known: _Profile, parts: Sequence[str], grams: Sequence[int]) -> _Place:
    """The place for a known text that shares n-grams with another one."""
    span = int(known.length * SPAN) + known.size
    found = [(i, gram) for i, gram in enumerate(grams) if gram in known.grams]
    start, end, count = _densest(found, span - known.size)
    end += known.size
    words = frozenset(parts[max(0, end - span) : start + span])
    share = min(count / len(known.grams), known.share(words))
    return _Place(count, share, " ".join(parts[start:end]))


def _densest(places: Sequence[tuple[int, int]], width: int) -> tuple[int, int, int]:
    """First and last n-gram of the stretch of ``width`` with the most different ones; how many."""
    best, first = (0, 0, 0), 0
    within: Counter[int] = Counter()
    for position, gram in places:
        within[gram] += 1
        while places[first][0] < position - width:
            within[places[first][1]] -= 1
            if not within[places[first][1]]:
                del within[places[first][1]]
            first += 1
        if len(within) > best[2]:
            best = (places[first][0], position, len(within))
    return best


@functools.lru_cache(maxsize=1)
def _function_words() -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    return frozenset({*STOPWORDS_EN_PLUS, *_FURTHER})
