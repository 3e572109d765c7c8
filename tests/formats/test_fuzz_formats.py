"""20,000 random and mutated completions: none raises, each gives a total order of its view."""

from __future__ import annotations

import random
import re

from format_variants import CASES as KINDS
from format_variants import SIZES as ALONE
from format_variants import VARIANTS, make

from rank_rl.formats.pointwise import PointwiseFormat
from rank_rl.formats.scores import ScoresFormat
from rank_rl.records import Candidate, Order, Outcome, Query, Scores, View, numbered

CASES = 20_000
FORMATS = {case: make(*case) for case in KINDS}
# Which of the views a format asks about, where that is not any of them.
SIZES = {name: count - 1 for name, count in ALONE.items()}
PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "＜answer＞", "<Think >", "[1]", "[2]", "[3]",
    "[0]", "[-1]", "[99]", "[１]", "【2】", "[٣]", "1", "2", "3 > 1", " > ", " = ", ", ", "\n", "{",
    "}", '"[1]": 7', '"[2]": -3', '"[3]": 1e400', '"[1]": NaN', '"2": true', '"[2]": 7.5', ": ",
    '{"[1]": ', "[", "]", "[[", "]]", '"', "\\u0031", "Relevant:", "Relevant: ", " yes", " no",
    " yes. ", "Yes", " maybe", ". ", "because", "I think 3 documents and then 1", "\ud800", "\x00",
    "Explicit:", "Comparison:", "Explicit: ", "\nComparison:\n", "\n[1] ", "\n[2] says why",
    "\n- [1]: ", "Grade: 2", "2/3", "1/10", "[2] > [1]", "[1] < [2]", "[1] = [2]", "\n2",
    "is better", "-1", "1.5", "yes", "no", "good", "bad. ", "fair", "Answer: ", "[1] = [3]", "yeſ",
    "²", "٣", "\u200b", "9" * 40, "İ", "ſ", "<|im_end|>", "[1, 2, 3]", "2. ", "**", "null", "-",
)  # fmt: skip


LONG = (
    "[",
    "[1",
    "[1]",
    "<think>",
    "<answer>",
    '{"[1]": ',
    "1 >",
    " ",
    '"',
    "1,",
    "2\n",
    "*",
    "grade: ",
    "[1] = ",
    "Explicit:\n",
    "Explicit:\n[1] ",
    "[1], ",
    "Explicit:\n[1] " + ":",
    ":",
    "[1] > ",
    "yes, ",
    "Answer: ",
    "no\n",
)


def view(count: int) -> View:
    docs = [Candidate(docid=f"d{i}", text=f"t{i}", rank=1 + (i * 7) % count) for i in range(count)]
    return numbered(Query(qid="q", text="who?"), docs)


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randint(0, len(text)), rng.random()
        if kind < 0.3:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif kind < 0.55:
            text = text[:at] + text[at + rng.randint(1, 6) :]
        elif kind < 0.7:
            text = text[:at]
        elif kind < 0.85:
            text = text[:at] + text[max(0, at - 12) :]
        else:
            text = text[:at] + chr(rng.choice((rng.randint(0, 255), rng.randint(0, 0x2FFF))))
    return text


def written(outcome: Outcome, shown: View, case: tuple[str, str], text: str) -> bool:
    """Whether a text is, but for white space, what an ``ok`` outcome says that was written."""
    variant, mode = case
    name, bare = VARIANTS[variant][0], "".join(text.split())
    if name in ("pair", "choice"):
        place = -1 if variant == "choice worst" else 0
        answer = f"[{shown.label(outcome.as_order(shown)[place])}]"
    elif name == "pointwise":
        fmt = FORMATS[case]
        texts = dict(zip(fmt.values, fmt.label_texts(shown), strict=True))
        answer = texts[outcome.answer.values[shown.docids[0]]]
        if mode == "reason" and "label first" in variant:
            return bare.startswith(f"{answer}.")
    elif variant == "permutation with ties" and isinstance(outcome.answer, Scores):
        values = outcome.answer.values
        assert set(values) == set(shown.docids) and len(set(values.values())) < len(values)
        said = bare.rpartition("<answer>")[2].removesuffix("</answer>")
        tiers = [{shown.docid(x) for x in re.findall(r"\w+", tier)} for tier in said.split(">")]
        ranked = sorted(set(values.values()), reverse=True)
        assert tiers == [{d for d in values if values[d] == value} for value in ranked]
        answer = said
    elif isinstance(outcome.answer, Order):
        answer = ">".join(f"[{shown.label(d)}]" for d in outcome.answer.docids)
        assert len(outcome.answer.docids) == len(shown.docids)
    else:
        assert isinstance(outcome.answer, Scores)
        values = [int(outcome.answer.values[d]) for d in shown.docids]
        pairs = zip(shown.labels, values, strict=True)
        answer = "{" + ",".join(f'"[{label}]":{value}' for label, value in pairs) + "}"
    if mode == "answer":
        return bare == answer
    return bare.startswith("<think>") and bare.endswith(f"</think><answer>{answer}</answer>")


def test_no_completion_raises_and_every_outcome_is_a_total_order():
    rng = random.Random(20240607)
    names = KINDS
    fmts = [FORMATS[case] for case in names]
    views = [view(count) for count in (1, 2, 3, 7, 12)]
    prefills = ("", "", "", "", "", "", "<think>\n", "[", '{"[', "Relevant:", "Relevant: yes")
    ideals = {
        (i, j): fmt.ideal(
            views[SIZES.get(names[i][0], j)], {"d0": 2, "d2": 1}, "[2] says why.\n[1] does not."
        )
        for i, fmt in enumerate(fmts)
        for j in range(len(views))
    }
    seen = dict.fromkeys(("ok", "repaired", "failed"), 0)
    for case in range(CASES):
        i = case % len(fmts)
        j = SIZES.get(names[i][0], rng.randrange(len(views)))
        if rng.random() < 0.6:
            text = mutate(ideals[i, j], rng)
        else:
            text = "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 12)))
        prefill = rng.choice(prefills)
        outcome = fmts[i].parse(text, views[j], prefill=prefill)
        order = outcome.as_order(views[j])
        assert sorted(order) == sorted(views[j].docids), text
        assert (outcome.answer is None) == (outcome.status == "failed"), text
        assert (outcome.status == "ok") == (not outcome.issues), text
        if outcome.status == "ok" and names[i][0] != "slots":
            assert written(outcome, views[j], names[i], prefill + text), text
        if isinstance(outcome.answer, Scores):
            assert all(abs(v) <= 10 for v in outcome.answer.values.values()), text
        if isinstance(fmts[i], ScoresFormat | PointwiseFormat):
            assert set(fmts[i].slot_spans(text, views[j])) <= set(views[j].labels)
        seen[outcome.status] += 1
    assert sum(seen.values()) == CASES
    assert min(seen.values()) > CASES / 100, seen


def test_long_hostile_texts_are_read_in_time():
    for name, mode in KINDS:
        shown, fmt = view(ALONE.get(name, 7)), FORMATS[name, mode]
        for piece in LONG:
            order = fmt.parse(piece * 6_000, shown).as_order(shown)
            assert sorted(order) == sorted(shown.docids)
