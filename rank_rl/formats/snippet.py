"""Query-biased snippets: the sentence nearest to the query comes first, so that a cut keeps it.

After Tombros & Sanderson, 1998, "Advantages of Query Biased Summaries in Information Retrieval".
"""

from __future__ import annotations

import re

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
_WORD = re.compile(r"\w+")
_STOP_WORDS = (
    "a an and are as at be been but by can could did do does for from had has have he her his how "
    "i if in into is it its me my no not of on or our she should so some such than that the their "
    "them then there these they this those to us was we were what when where which while who whom "
    "whose why will with would you your"
)
_STOP = frozenset(_STOP_WORDS.split())


def content_words(text: str) -> set[str]:
    """Distinct lower-case words without English function words."""
    return {word for word in _WORD.findall(text.lower()) if word not in _STOP}


def query_first(text: str, query: str) -> str:
    """Put the sentence that shares most content words with the query first.

    The sentences after it follow in order, then those before it. Of several equally near ones the
    first counts, so a text whose first sentence is nearest stays as it is.
    """
    sentences = [s for s in _SENTENCE_END.split(text.strip()) if s]
    wanted = content_words(query)
    if len(sentences) < 2 or not wanted:
        return text
    shared = [len(wanted & content_words(sentence)) for sentence in sentences]
    best = shared.index(max(shared))
    return " ".join(sentences[best:] + sentences[:best]) if best else text
