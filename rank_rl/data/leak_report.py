"""Test queries, and documents relevant to them, that stand in training data: found and counted.

Training data are streamed past an index of the test queries, one ``Sample`` at a time. Three kinds
of overlap, the clearest first: ``text`` (the same but for case, punctuation and spacing), ``near``
(most of its n-grams and rare words are in a training query) and ``inside`` (… in another training
text: a prompt, an answer, reasoning). Reading samples from files is left to ``leak_files``,
removing them to ``leaks``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rank_rl.data.overlap import Index, Match
from rank_rl.specs import LeakSpec

KINDS = ("text", "near", "inside")
Found = tuple[str, float, str]  # kind, share, and the training text or the place in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A training example or a test query: what of it is compared.

    Attributes:
        source: the collection or file it is from; ids mean the same within a source only.
        where: what tells it from others of its source: its query id, or file and line.
        qid: query id, "" where there is none (rows of chats).
        query: its text, "" where it cannot be told from the rest.
        texts: what else is trained on: prompts, answers, reasoning, annotations.
        documents: text by docid of those relevant to the query; "" where it is not known.
    """

    source: str
    where: str
    qid: str = ""
    query: str = ""
    texts: tuple[str, ...] = ()
    documents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A test query that stands in training data of one source, and the clearest case of it.

    ``share``: how much of the test query was found (0 to 1). ``where`` and ``text`` are the
    training example and its query, or the words of the place. ``samples`` counts the examples of
    this source that overlap with the query.
    """

    qid: str
    query: str
    test: str
    kind: str
    share: float
    source: str
    where: str
    text: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedDocument:
    """A document relevant to a test query that is also relevant to a training query.

    ``by``: ``id`` (the same id in the same source, or with an overlapping text) or ``text``
    (n-grams), with ``share`` of the test document found.
    """

    docid: str
    test: str
    by: str
    share: float
    source: str
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What training and test data share.

    Attributes:
        spec: how they were compared.
        queries: test queries compared, by source.
        samples: training examples compared, by source.
        overlaps: one for each test query and training source, in test order.
        shared_ids: (test source, query id, training source) of overlapping queries whose id is
            the same, too.
        reused_ids: the same where the texts do not overlap: another numbering, or another wording.
        relevant: documents relevant to test queries, by source.
        documents: those of them that are relevant in training, too; one for each training source.
        leaking: source and ``where`` of the training examples that overlap.
    """

    spec: LeakSpec
    queries: Mapping[str, int]
    samples: Mapping[str, int]
    overlaps: tuple[Overlap, ...]
    shared_ids: tuple[tuple[str, str, str], ...]
    reused_ids: tuple[tuple[str, str, str], ...]
    relevant: Mapping[str, int]
    documents: tuple[SharedDocument, ...]
    leaking: frozenset[tuple[str, str]]

    @property
    def overlapping(self) -> dict[tuple[str, str], Overlap]:
        """The clearest overlap of a test query, by its source and id."""
        best: dict[tuple[str, str], Overlap] = {}
        for one in self.overlaps:
            key = one.test, one.qid
            if key not in best or _clearer(one, best[key]):
                best[key] = one
        return best

    def as_dict(self, *, texts: bool = True) -> dict[str, Any]:
        """JSON form; ``texts`` adds those of each pair."""
        found = self.overlapping
        several = len(self.queries) > 1
        pairs = {}
        for (test, qid), one in found.items():
            pair = {"kind": one.kind, "with": one.where, "source": one.source, "share": one.share}
            pair |= {"samples": one.samples}
            pair |= {"query": one.query, "other": one.text} if texts else {}
            pairs[f"{test}: {qid}" if several else qid] = pair
        return {
            "ngram": self.spec.ngram,
            "document_ngram": self.spec.document_ngram,
            "share": self.spec.share,
            "queries": sum(self.queries.values()),
            "compared": dict(self.samples),
            "kinds": {kind: sum(o.kind == kind for o in found.values()) for kind in KINDS},
            "overlapping": pairs,
            "leaking_samples": len(self.leaking),
            "shared_ids": len({(test, qid) for test, qid, _ in self.shared_ids}),
            "reused_ids": len({(test, qid) for test, qid, _ in self.reused_ids}),
            "documents": self._documents(),
        }

    def _documents(self) -> dict[str, int]:
        shared = {(d.test, d.docid) for d in self.documents}
        by_id = {(d.test, d.docid) for d in self.documents if d.by == "id"}
        return {
            "relevant": sum(self.relevant.values()),
            "shared": len(shared),
            "by_id": len(by_id),
            "by_text": len(shared - by_id),
        }


def compare(train: Iterable[Sample], test: Sequence[Sample], spec: LeakSpec) -> Report:
    """Find the test queries that stand in training data.

    Args:
        train: training examples, read once and not kept.
        test: the test queries; what else these samples hold (texts) is not looked at.
        spec: lengths of n-grams and the share that must be found.
    """
    queries, documents = _Queries(test, spec), _Documents(test, spec)
    samples: dict[str, int] = {}
    for sample in train:
        samples[sample.source] = samples.get(sample.source, 0) + 1
        queries.add(sample)
        documents.add(sample)
    counted: dict[str, int] = {}
    for one in test:
        counted[one.source] = counted.get(one.source, 0) + 1
    return Report(
        spec=spec,
        queries=counted,
        samples=samples,
        overlaps=tuple(queries.overlaps()),
        shared_ids=tuple(queries.shared_ids),
        reused_ids=tuple(queries.reused_ids),
        relevant=documents.relevant,
        documents=tuple(documents.shared()),
        leaking=frozenset(queries.leaking),
    )


class _Queries:
    """Collects what of the test queries is found."""

    def __init__(self, test: Sequence[Sample], spec: LeakSpec) -> None:
        self._test = test
        self._index = Index([t.query for t in test], ngram=spec.ngram, share=spec.share)
        self._by_id: dict[str, list[int]] = {}
        for number, one in enumerate(test):
            if one.qid:
                self._by_id.setdefault(one.qid, []).append(number)
        self._best: dict[tuple[int, str], tuple[Found, str]] = {}
        self._samples: dict[tuple[int, str], int] = {}
        # Dicts as sets that keep their order: many samples may have the same query.
        self.shared_ids: dict[tuple[str, str, str], None] = {}
        self.reused_ids: dict[tuple[str, str, str], None] = {}
        self.leaking: set[tuple[str, str]] = set()
        self._last: tuple[str, dict[int, Found]] = ("", {})

    def add(self, sample: Sample) -> None:
        """Compare one training example."""
        found = dict(self._of_query(sample.query))
        self._note_ids(sample, found)
        for text in sample.texts:
            for number, match in self._index.find(text, inside=True).items():
                one = ("inside", match.share, match.place)
                if number not in found or _rank(one) > _rank(found[number]):
                    found[number] = one
        for number, one in found.items():
            key = number, sample.source
            self._samples[key] = self._samples.get(key, 0) + 1
            if key not in self._best or _rank(one) > _rank(self._best[key][0]):
                self._best[key] = one, sample.where
        if found:
            self.leaking.add((sample.source, sample.where))

    def overlaps(self) -> Iterator[Overlap]:
        """What was found, in test order."""
        order = sorted(self._best, key=lambda key: key[0])
        for number, source in order:
            (kind, share, text), where = self._best[number, source]
            test = self._test[number]
            yield Overlap(
                qid=test.qid or test.where,
                query=test.query,
                test=test.source,
                kind=kind,
                share=share,
                source=source,
                where=where,
                text=text,
                samples=self._samples[number, source],
            )

    def _of_query(self, query: str) -> dict[int, Found]:
        """Lessons of one query follow one another: the last query's matches are kept."""
        if query != self._last[0]:
            matches = self._index.find(query) if query else {}
            self._last = query, {n: _whole(match, query) for n, match in matches.items()}
        return self._last[1]

    def _note_ids(self, sample: Sample, found: Mapping[int, Found]) -> None:
        for number in self._by_id.get(sample.qid, ()) if sample.qid else ():
            ids = self.shared_ids if number in found else self.reused_ids
            ids[self._test[number].source, sample.qid, sample.source] = None


class _Documents:
    """Collects which relevant documents of test queries are relevant in training, too."""

    def __init__(self, test: Sequence[Sample], spec: LeakSpec) -> None:
        known: dict[tuple[str, str], str] = {}
        for one in test:
            for docid, text in one.documents.items():
                known[one.source, docid] = known.get((one.source, docid)) or text
        self._keys = list(known)
        self._texts = list(known.values())
        self._by_id: dict[str, list[int]] = {}
        self.relevant: dict[str, int] = {}
        for number, (source, docid) in enumerate(self._keys):
            self._by_id.setdefault(docid, []).append(number)
            self.relevant[source] = self.relevant.get(source, 0) + 1
        self._index = Index(self._texts, ngram=spec.document_ngram, share=spec.share)
        self._seen: set[tuple[str, str]] = set()
        self._found: dict[tuple[int, str], SharedDocument] = {}

    def add(self, sample: Sample) -> None:
        """Compare the relevant documents of one training example, each once a source."""
        for docid, text in sample.documents.items():
            if (sample.source, docid) not in self._seen:
                self._seen.add((sample.source, docid))
                self._compare(sample.source, docid, text)

    def shared(self) -> Iterator[SharedDocument]:
        """What was found, in test order."""
        for key in sorted(self._found, key=lambda key: key[0]):
            yield self._found[key]

    def _compare(self, source: str, docid: str, text: str) -> None:
        matches = self._index.find(text) if self._texts else {}
        shares = {number: match.share for number, match in matches.items()}
        for number in self._by_id.get(docid, ()):
            if self._keys[number][0] == source:
                shares[number] = 1.0
        for number, share in shares.items():
            test, known = self._keys[number]
            shared = SharedDocument(
                docid=known,
                test=test,
                by="id" if known == docid else "text",
                share=share,
                source=source,
                other=docid,
            )
            former = self._found.get((number, source))
            if former is None or (shared.by, -share) < (former.by, -former.share):
                self._found[number, source] = shared


def _whole(match: Match, query: str) -> Found:
    return ("text" if match.equal else "near", match.share, query)


def _rank(found: Found) -> tuple[int, float]:
    return -KINDS.index(found[0]), found[1]


def _clearer(one: Overlap, other: Overlap) -> bool:
    return _rank((one.kind, one.share, "")) > _rank((other.kind, other.share, ""))
