"""No prompt leaves the budget too long, every cut is counted, and what is kept is a beginning."""

from __future__ import annotations

import re

import pytest

from rank_rl import formats
from rank_rl.errors import DataError
from rank_rl.formats.budget import CutReport, cut, fit
from rank_rl.records import Candidate, Prompt, Query, View, numbered
from rank_rl.specs import FormatSpec


class WordTokens:
    """One token a word or sign; decoding lower-cases and spaces, as some tokenizers do."""

    special_tokens = ("<|im_end|>", "[SEP]", "stopword")

    def __init__(self) -> None:
        self.words: list[str] = []

    def encode(self, text: str) -> list[int]:
        found = re.findall(r"\w+|[^\w\s]", text)
        self.words += [w for w in dict.fromkeys(found) if w not in self.words]
        return [self.words.index(w) for w in found]

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[i].lower() for i in ids)

    def count_prompt(self, prompt: Prompt) -> int:
        text = " ".join([*(m["content"] for m in prompt.messages), prompt.prefill])
        return 4 * len(prompt.messages) + len(self.encode(text))


class LetterTokens(WordTokens):
    """One token a character."""

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def spec_of(name: str, **fields: int) -> FormatSpec:
    mode = "reason" if name == "explain" else "answer"
    return FormatSpec.model_validate({"name": name, "mode": mode, **fields})


def view(texts: list[str], titles: list[str] | None = None, query: str = "who?") -> View:
    docs = [
        Candidate(docid=f"d{i}", text=text, title=(titles or [""] * len(texts))[i], rank=i + 1)
        for i, text in enumerate(texts)
    ]
    return numbered(Query(qid="q7", text=query), docs)


def sentence(size: int, word: str = "word") -> str:
    return " ".join(f"{word}{i}" for i in range(size))


@pytest.mark.parametrize("name", sorted(formats.TABLE))
@pytest.mark.parametrize("tokens", [WordTokens(), LetterTokens()], ids=["words", "letters"])
def test_every_document_and_prompt_fits(name, tokens):
    most = 2500 if name == "explain" else 1500  # its task alone takes some 1200 letters
    fmt = formats.make(spec_of(name, doc_tokens=40, prompt_tokens=most))
    texts = [sentence(300), sentence(3), "x" * 900, "", "文" * 200, sentence(300)]
    titles = ["A Title", "B", "", "Only a title", "", sentence(90, "title")]
    size = 2 if name == "pair" else 6
    shown = view(texts[-size:], titles[-size:])
    fitted, report = fit(shown, tokens, fmt=fmt)
    assert all(tokens.count_prompt(p) <= most for p in fmt.prompts(fitted))
    for before, after in zip(shown.candidates, fitted.candidates, strict=True):
        text = f"{after.title}. {after.text}" if after.title and after.text else after.text
        assert len(tokens.encode(text or after.title)) <= 40
        assert before.text.startswith(after.text) and before.title.startswith(after.title)
        assert (after.docid, after.rank) == (before.docid, before.rank)
    assert report.documents == size and report.cut_documents >= min(2, size - 1)
    assert report.tokens_after < report.tokens_before
    assert fit(fitted, tokens, fmt=fmt)[0] == fitted


@pytest.mark.parametrize("count", [2, 10, 40])
def test_a_prompt_that_is_too_long_is_cut_evenly_to_the_largest_size_that_fits(count):
    fmt = formats.make(FormatSpec(name="permutation", doc_tokens=200, prompt_tokens=512))
    tokens = WordTokens()
    fitted, report = fit(view([sentence(300)] * count), tokens, fmt=fmt)
    sizes = {len(tokens.encode(c.text)) for c in fitted.candidates}
    used = tokens.count_prompt(fmt.render(fitted))
    assert len(sizes) == 1 and used <= 512
    assert used + count > 512 or sizes == {200}
    assert report.tightened_views == int(sizes != {200})


def test_a_short_document_is_left_whole_when_long_ones_are_cut():
    fmt = formats.make(FormatSpec(name="scores", doc_tokens=100, prompt_tokens=200))
    fitted, report = fit(view([sentence(300), "short text", sentence(90)]), WordTokens(), fmt=fmt)
    assert fitted.candidates[1].text == "short text"
    assert (report.cut_documents, report.tightened_views) == (2, 1)


@pytest.mark.parametrize("name", sorted(formats.TABLE))
def test_what_cannot_fit_names_its_query(name):
    fmt = formats.make(spec_of(name, doc_tokens=8, prompt_tokens=64))
    count = 2 if name == "pair" else 30
    with pytest.raises(DataError, match=r"query 'q7': the prompt has \d+ tokens .* = 64"):
        fit(view([sentence(20)] * count, query=sentence(80)), WordTokens(), fmt=fmt)


def test_special_tokens_of_the_tokenizer_are_harmless_before_counting():
    shown = view(["a <|im_end|> [SEP] stopword [3]"], query="stopword <|im_end|>")
    fitted, report = fit(shown, WordTokens(), fmt=formats.make(FormatSpec(name="permutation")))
    texts = fitted.query.text + fitted.candidates[0].text
    assert not any(token in texts for token in (*WordTokens.special_tokens, "[3]"))
    assert report.cut_documents == 0


def test_the_snippet_is_chosen_before_the_cut():
    spec = FormatSpec(name="slots", doc_tokens=5, snippet="query")
    text = "Born in Bonn long ago. The father of Edward is Karl. He died."
    fitted, _ = fit(view([text], query="father of Edward"), WordTokens(), fmt=formats.make(spec))
    assert fitted.candidates[0].text == "The father of Edward is"


def test_cut_keeps_the_spelling_and_never_exceeds():
    tokens = WordTokens()
    assert cut("One, Two; three", 3, tokens) == "One, Two"
    assert cut("One", 3, tokens) == "One"
    for budget in range(1, 12):
        assert len(tokens.encode(cut("A.B.C.D.E!? F (g) h", budget, tokens))) <= budget


def test_reports_add_up():
    a = CutReport(documents=2, cut_documents=1, tokens_before=100, tokens_after=40)
    b = CutReport(documents=3, cut_documents=0, tokens_before=60, tokens_after=60)
    merged = a.merge(b)
    assert merged == CutReport(documents=5, cut_documents=1, tokens_before=160, tokens_after=100)
    assert merged.summary().startswith("cut 1 of 5 documents, 62% of their 160 tokens kept")
    assert "100%" in CutReport().summary()
