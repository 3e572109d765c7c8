"""What is worked out once for a group changes no result: against a plain reference.

The reference reads every answer by the general parsers alone and computes each reward from its
definition, anew for every completion.
"""

from __future__ import annotations

import math
import random
import re

import pytest

import rank_rl.formats as formats
import rank_rl.rewards as rewards
from rank_rl.data.rows import group_rows
from rank_rl.formats import lists, objects, tags
from rank_rl.formats.labels import ascii_form
from rank_rl.records import (
    Candidate,
    Completion,
    Order,
    Outcome,
    Query,
    RankingTask,
    Scores,
    View,
    numbered,
)
from rank_rl.rewards import adversaries
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.rewards.gold import Gold
from rank_rl.specs import FormatSpec, RewardSpec

FORMATS = [
    ("permutation", "answer", {}),
    ("permutation", "reason", {"prefill": "<think>\n"}),
    ("permutation", "answer", {"top": 3}),
    ("scores", "answer", {}),
    ("scores", "reason", {}),
    ("scores", "answer", {"max": 3, "quote": 4}),
]
PIECES = [
    "[1]", "[2]", "[3]", "[12]", "[0]", "[-1]", "[A]", "[]", " > ", ">", ", ", " ", "\n", "\v",
    "<think>", "</think>", "<answer>", "</answer>", "＜answer>", "<ANSWER>", "< think >",
    '{"[1]": 7', '"[2]": 0', '{"[1]": 07}', "{", "}", ": 3", "1e9", "５", "٣", "［1］", "％", "é",
    "50% of it", "words", '"[1] d1 says": ',
]  # fmt: skip


def task_of(draw: random.Random, size: int) -> RankingTask:
    texts = [f"d{i} says {draw.randrange(99)}% of é {i}, no more" for i in range(size)]
    docs = [Candidate(docid=f"d{i}", text=text, rank=i + 1) for i, text in enumerate(texts)]
    draw.shuffle(docs)
    grades = {f"d{i}": draw.choice([0, 0, 1, 2, -1]) for i in range(size)}
    grades[f"d{draw.randrange(size)}"] = 3
    return RankingTask(query=Query(qid="q", text="?"), candidates=tuple(docs), grades=grades)


def texts_of(fmt, view: View, grades, draw: random.Random) -> list[str]:
    """Good, broken, mutated and random texts, some of them twice."""
    write = adversaries.text_writer(fmt)
    good = [
        write("x", view, {d: draw.randrange(4) for d in view.docids}).text or "" for _ in range(4)
    ]
    broken = [a.text or "" for a in adversaries.broken(fmt, view, grades)]
    mutated = []
    for text in good:
        at = draw.randrange(len(text))
        mutated.append(text[:at] + draw.choice(PIECES) + text[at + draw.randrange(3) :])
    noise = ["".join(draw.choices(PIECES, k=draw.randrange(1, 14))) for _ in range(6)]
    return [*good, *draw.sample(broken, 8), *mutated, *noise, good[0], noise[0]]


def reference_order(outcome: Outcome, view: View) -> list[list[str]]:
    """Documents best first, tied ones together."""
    first_stage = [c.docid for c in sorted(view.candidates, key=lambda c: c.rank)]
    if isinstance(outcome.answer, Order):
        named: list[str] = []
        for d in outcome.answer.docids:
            if d in first_stage and d not in named:
                named.append(d)
        return [[d] for d in [*named, *(d for d in first_stage if d not in named)]]
    assert isinstance(outcome.answer, Scores)
    value = {d: outcome.answer.values.get(d, -math.inf) for d in [c.docid for c in view.candidates]}
    return [[d for d in value if value[d] == v] for v in sorted(set(value.values()), reverse=True)]


def reference(outcome: Outcome, view: View, grades, k: int, recall_k: int) -> dict[str, float]:
    """nDCG, its gain and recall of an outcome, each from its definition."""
    if outcome.status != "ok" or outcome.answer is None:
        return {"ndcg": 0.0, "ndcg_gain": -1.0, "recall": 0.0}
    gain = {c.docid: max(0, grades.get(c.docid, 0)) for c in view.candidates}

    def dcg(gains: list[float]) -> float:
        return sum(g / math.log2(i + 2) for i, g in enumerate(gains[:k]))

    ideal = dcg(sorted(map(float, gain.values()), reverse=True))
    tiers = reference_order(outcome, view)
    expected = [sum(gain[d] for d in t) / len(t) for t in tiers for _ in t]
    found = [sum(gain[d] > 0 for d in t) / len(t) for t in tiers for _ in t]
    n = dcg(expected) / ideal
    shown = dcg([float(gain[c.docid]) for c in view.candidates]) / ideal
    change = (n - shown) / (1 - shown) if 1 - shown > 1e-9 else n - shown
    return {
        "ndcg": n,
        "ndcg_gain": max(-1.0, min(1.0, change)),
        "recall": sum(found[:recall_k]) / sum(g > 0 for g in gain.values()),
    }


@pytest.fixture
def general_parsers(monkeypatch):
    """Switches the short paths of the parsers off, so that the general ones read every text."""

    def switch() -> None:
        monkeypatch.setattr(tags, "_faultless", lambda whole: None)
        monkeypatch.setattr(lists, "_faultless", lambda plain: None)
        monkeypatch.setattr(objects, "_faultless", lambda plain, keys, maximum: None)

    return switch


@pytest.mark.parametrize(("name", "mode", "params"), FORMATS)
def test_judging_groups_equals_the_reference(name, mode, params, general_parsers):
    specs = [
        RewardSpec(name="ndcg"),
        RewardSpec(name="ndcg_gain"),
        RewardSpec(name="recall", params={"k": 3}),
        RewardSpec(name="format"),
    ]
    fmt = formats.make(FormatSpec(name=name, mode=mode, params=params))
    adapter = TrlRewards(rewards.make(specs), fmt)
    cases = []
    for seed in range(25):
        draw = random.Random(seed)
        task = task_of(draw, draw.choice([4, 8, 20]))
        view = numbered(task.query, task.candidates)
        (row,) = group_rows(task, [view], fmt)
        cases += [(t, view, task.grades, row) for t in texts_of(fmt, view, task.grades, draw)]
    columns = {key: [row[key] for *_, row in cases] for key in cases[0][3] if key != "prompt"}
    judged = adapter.judge([text for text, *_ in cases], None, columns)
    general_parsers()
    seen = set()
    for (text, view, grades, row), found in zip(cases, judged, strict=True):
        # A view of its own for every text: nothing was worked out before.
        fresh = numbered(view.query, view.candidates)
        outcome = formats.make(fmt.spec).parse(text, fresh, prefill=row["prefill"])
        assert found.outcome == outcome, text
        expected = reference(outcome, fresh, grades, 10, 3)
        for part, value in expected.items():
            assert found.scored.parts[part] == pytest.approx(value, abs=1e-12), (part, text)
        alone = rewards.make(specs)(outcome, fresh, dict(grades), Completion(text=text))
        assert found.scored == alone
        seen.add(outcome.status)
    assert seen == {"ok", "repaired", "failed"}
    assert len({id(j.group) for j in judged}) == 25


def test_equal_texts_of_a_group_are_judged_once_and_apart_by_length():
    fmt = formats.make(FormatSpec(name="permutation"))
    length = RewardSpec(name="length", params={"soft_max": 2, "hard_max": 4})
    adapter = TrlRewards(rewards.make([length]), fmt, eos_ids=[2])
    task = task_of(random.Random(1), 4)
    view = numbered(task.query, task.candidates)
    (row,) = group_rows(task, [view], fmt)
    text = fmt.ideal(view, task.grades)
    columns = {key: [row[key]] * 4 for key in row if key != "prompt"}
    judged = adapter.judge([text] * 4, [[1, 2], [1, 1, 2], [1, 2], [1, 1]], columns)
    assert judged[0] is judged[2]
    assert [j.scored.total for j in judged] == [1.0, 0.5, 1.0, 1.0]
    assert [j.truncated for j in judged] == [False, False, False, True]


def test_a_gold_for_another_view_is_not_used():
    draw = random.Random(3)
    task = task_of(draw, 6)
    first = numbered(task.query, task.candidates)
    second = numbered(task.query, task.candidates[::-1])
    gold = Gold(first, task.grades)
    assert Gold.of(first, gold) is gold
    assert Gold.of(second, gold).view is second
    answer = Outcome(status="ok", answer=Order(docids=first.docids))
    reward = rewards.one(RewardSpec(name="ndcg_gain"))
    blank = Completion(text="")
    assert reward(answer, first, gold, blank) == 0.0
    assert reward(answer, second, gold, blank) == reward(answer, second, task.grades, blank)
    assert reward(answer, second, gold, blank) != 0.0


def test_look_alikes_become_ascii_one_for_one():
    text = "［１］＞【٢】 é ５, 四 ✓ −3"
    plain = ascii_form(text)
    assert plain == "[1]>[2] é 5, 四 ✓ -3"
    assert len(plain) == len(text)
    assert not re.search(r"[^\x00-\x7f]", ascii_form("［１］＞"))
