"""The order malformed < worse < copy < better: what keeps it passes, what breaks it is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import rank_rl.formats as formats
import rank_rl.recipe as recipes
import rank_rl.rewards as rewards
from rank_rl import metrics
from rank_rl.cli.lint import judge
from rank_rl.records import Candidate, Order, Outcome, Query, Scores, numbered
from rank_rl.rewards import adversaries
from rank_rl.rewards.lint import Report, compared, lint, profile
from rank_rl.specs import FormatSpec, RecipeSpec, RewardSpec

FORMATS = [
    ("permutation", "answer", {}),
    ("permutation", "answer", {"prefill": "["}),
    ("permutation", "answer", {"top": 2}),
    ("permutation", "answer", {"ties": True}),
    ("permutation", "reason", {"ties": True}),
    ("permutation", "reason", {}),
    ("permutation", "reason", {"prefill": "<think>\n"}),
    ("explain", "reason", {}),
    ("scores", "answer", {}),
    ("scores", "answer", {"max": 1, "quote": 5}),
    ("scores", "answer", {"grade_max": 3}),
    ("scores", "reason", {}),
    ("choice", "answer", {}),
    ("choice", "answer", {"prefill": "["}),
    ("choice", "answer", {"pick": "worst"}),
    ("choice", "reason", {}),
    ("choice", "reason", {"pick": "worst", "labels": "after"}),
    ("pair", "answer", {}),
    ("pair", "reason", {"ties": True}),
]
HERE = __name__


@dataclass(frozen=True, kw_only=True)
class Hits:
    """A careless reward: counts every relevant label that the text names, repeats as well."""

    name: str = "hits"
    bounds: tuple[float, float] = (0.0, 100.0)

    def __call__(self, outcome, view, grades, completion):
        relevant = [view.label(d) for d in view.docids if grades.get(d, 0) > 0]
        return float(sum(completion.text.count(label) for label in relevant))


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Another: nDCG without removing repeats, so that the best id twice earns above 1."""

    name: str = "repeats"
    bounds: tuple[float, float] = (0.0, 2.0)

    def __call__(self, outcome, view, grades, completion):
        said = completion.text.replace("[", " ").replace("]", " ").split()
        best = [view.docid(x) for x in said if view.docid(x)]
        return float(sum(grades.get(d, 0) > 0 for d in best[:10])) / 2


@dataclass(frozen=True, kw_only=True)
class Digits:
    """A third: nDCG of the numbers in a text, whatever stands between them."""

    name: str = "digits"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, outcome, view, grades, completion):
        docids = [view.docid(x) for x in re.findall("[0-9]+", completion.text)]
        return metrics.ndcg([d for d in docids if d], view.grades(grades))


@dataclass(frozen=True, kw_only=True)
class Upside:
    """A reward with the sign wrong: pays relevant documents near the bottom."""

    name: str = "upside"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, outcome, view, grades, completion):
        if outcome.status != "ok":
            return 0.0
        order = outcome.as_order(view)
        ranks = [i for i, d in enumerate(order) if grades.get(d, 0) > 0]
        return sum(ranks) / len(ranks) / len(order)


def fmt_of(name="permutation", mode="answer", params=None) -> formats.Format:
    return formats.make(FormatSpec(name=name, mode=mode, params=params or {}))


def linted(*specs: RewardSpec, fmt=None, size: int = 8) -> Report:
    return lint(rewards.make(specs), adversaries.cases(size), fmt or fmt_of())


def of(name: str, weight: float = 1.0, **given) -> RewardSpec:
    return RewardSpec(name=name, weight=weight, **given)


@pytest.mark.parametrize(("name", "mode", "params"), FORMATS)
@pytest.mark.parametrize("size", [2, 3, 20])
def test_good_answers_parse_as_ok_and_broken_ones_do_not(name, mode, params, size):
    if name == "pair" and size > 2:
        return
    fmt = fmt_of(name, mode, params)
    for view, grades in adversaries.cases(size):
        for answered in adversaries.valid(view, grades, adversaries.text_writer(fmt)):
            assert answered.outcome.status == "ok", (answered.name, answered.text)
        texts = adversaries.broken(fmt, view, grades)
        assert len(texts) >= 12
        for answered in texts:
            assert answered.outcome.status != "ok", (answered.name, answered.text)


@pytest.mark.parametrize(("name", "mode", "params"), FORMATS)
@pytest.mark.parametrize("ranking", ["ndcg", "ndcg_gain", "rbo"])
def test_any_ranking_reward_with_format_is_clean(name, mode, params, ranking):
    size = 2 if name == "pair" else 12
    recall = of("recall", 0.2, params={"k": 3})
    report = linted(
        of(ranking), recall, of("format", 0.2), fmt=fmt_of(name, mode, params), size=size
    )
    assert [b.line() for b in report.breaks] == []
    # Where the format cannot tell two documents apart, nothing may lie between copy and ideal.
    assert {"malformed", "worse", "copy", "ideal"} <= {p.level for p in report.paid}


@pytest.mark.parametrize("ranking", ["ndcg", "ndcg_gain", "recall"])
def test_without_format_a_malformed_answer_earns_no_less_than_the_worst(ranking):
    params = {"k": 3} if ranking == "recall" else {}
    report = linted(of(ranking, params=params), size=12)
    broken = [b for b in report.breaks if b.rule == "malformed < worse"]
    names = {b.lower.answered.name for b in broken}
    expected = {"empty", "prose", "id 0", "text after", "best id repeated", "truncated answer"}
    assert expected <= names
    assert "Give reward format a weight above 0" in broken[0].line()


def test_the_weight_that_a_remedy_names_is_just_enough():
    hits = of(f"{HERE}:Hits", 0.1)
    weak = linted(of("ndcg"), hits, of("format", 0.01))
    worst = max((b for b in weak.breaks if b.rule == "malformed < worse"), key=lambda b: b.excess)
    least = float(worst.remedy.split("weight above ")[1].split(",")[0].rstrip("."))
    assert least > 0.01
    strong = linted(of("ndcg"), hits, of("format", 1.1 * least + 0.01))
    assert not [b for b in strong.breaks if b.rule == "malformed < worse"]


def test_a_gate_repairs_what_a_weak_format_does_not():
    hits = {"name": f"{HERE}:Hits", "weight": 0.1}
    report = linted(of("ndcg"), RewardSpec(**hits), of("format", 0.05))
    assert "gate 'hits' by it (gate: format)" in report.breaks[0].remedy
    gated = linted(of("ndcg"), RewardSpec(**hits, gate="format"), of("format", 0.05))
    assert not [b for b in gated.breaks if b.rule == "malformed < worse"]


def test_a_format_reward_too_weak_for_what_malformed_answers_are_paid():
    """ndcg that pays for what could be repaired, as public code does, needs a strong format."""
    lenient = of(f"{HERE}:Lenient")
    report = linted(lenient, of("format", 0.1))
    named = {b.lower.answered.name for b in report.breaks if b.rule == "malformed < worse"}
    assert {"text after", "best id again", "id 0 added"} <= named
    assert linted(lenient, of("format", 2.0)).clean
    assert linted(of(f"{HERE}:Lenient", gate="format"), of("format", 0.1)).clean


@dataclass(frozen=True, kw_only=True)
class Lenient:
    """nDCG of whatever could be read, repaired or not."""

    name: str = "lenient"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, outcome, view, grades, completion):
        if outcome.answer is None:
            return 0.0
        repaired = Outcome(status="ok", answer=outcome.answer)
        return rewards.one(of("ndcg"))(repaired, view, grades, completion)


def test_repeats_and_digits_in_prose_that_pay_are_found():
    report = linted(of(f"{HERE}:Repeats"), of("format", 0.1))
    named = {b.lower.answered.name: b for b in report.breaks if b.rule == "malformed < worse"}
    assert {"only the best id, often", "best id repeated", "best id again"} <= named.keys()
    best = named["only the best id, often"]
    assert best.lower.total > 2  # above what an honest nDCG could pay
    assert best.excess > 1
    assert f"on query {best.lower.view.query.qid}" in best.line()
    digits = linted(of(f"{HERE}:Digits"), of("format", 0.1))
    assert "prose" in {b.lower.answered.name for b in digits.breaks}
    assert linted(of(f"{HERE}:Digits", gate="format"), of("format", 0.1)).clean


def test_a_reward_with_the_wrong_sign_breaks_every_step_and_is_named():
    report = linted(of("ndcg", 0.1), of(f"{HERE}:Upside"), of("format", 0.1))
    rules = {b.rule for b in report.breaks}
    assert {"worse < copy", "copy < better", "better <= ideal", "copy <= ideal"} <= rules
    remedies = {b.remedy for b in report.breaks if b.rule == "worse < copy"}
    assert all("'upside'" in remedy for remedy in remedies)


def test_rewards_that_see_no_order_are_found():
    report = linted(of("format"))
    assert {b.rule for b in report.breaks} == {"worse < copy", "copy < better"}
    assert "add ndcg or ndcg_gain" in report.breaks[0].remedy


def test_legitimate_ties_are_no_breaks():
    report = linted(of("recall", params={"k": 3}), of("format", 0.2), size=8)
    assert report.clean
    assert any("earn as much as the copy" in w for w in report.warnings)
    length = of("length", 0.5, params={"soft_max": 4})
    assert linted(of("ndcg"), of("format", 0.2), length).clean


def test_answers_that_say_nothing_are_held_against_malformed_ones_and_the_ideal_alone():
    sound = (of("ndcg"), of("score_distribution", 0.3), of("format", 0.5))
    report = linted(*sound, fmt=fmt_of("scores"), size=12)
    assert [b.line() for b in report.breaks] == []
    names = ("all scores tied", "all scores 0")
    assert {p.level for p in report.paid if p.answered.name in names} == {"mixed"}
    unsound = linted(of("ndcg"), of(f"{HERE}:Tied", 2.0), of("format"), fmt=fmt_of("scores"))
    assert {(b.rule, b.named) for b in unsound.breaks} == {("mixed <= ideal", n) for n in names}
    unpaid = linted(of("ndcg"), fmt=fmt_of("scores"), size=12)
    nothing = [p for p in unpaid.paid if p.answered.name in names]
    assert nothing and all(p.total > 0 for p in nothing)


@dataclass(frozen=True, kw_only=True)
class Tied:
    """Pays scores that say nothing, and malformed answers nothing."""

    name: str = "tied"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, outcome, view, grades, completion):
        scores = outcome.status == "ok" and isinstance(outcome.answer, Scores)
        return float(scores and len(set(outcome.answer.values.values())) == 1)


@dataclass(frozen=True, kw_only=True)
class Thorough:
    """Pays long texts, and only well-formed ones."""

    name: str = "thorough"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, outcome, view, grades, completion):
        return min(1.0, len(completion.text) / 900) if outcome.status == "ok" else 0.0


LENGTHS = [
    of("length", 5, params={"soft_max": 100, "hard_max": 200}),
    of("overlong", 5, params={"max_length": 200, "buffer": 50}),
]


@pytest.mark.parametrize("length", LENGTHS, ids=lambda spec: spec.name)
def test_length_that_outweighs_the_order_is_a_warning_with_a_weight_that_heals(length):
    order = (of("ndcg_gain"), of("format", 0.2))
    report = linted(*order, length)
    assert report.clean
    (told,) = [w for w in report.warnings if "for length" in w]
    assert told.startswith(f"{length.name!r} (weight 5) pays for length up to 5.000, which can ")
    gains = [float(x) for x in re.findall(r"gain of ([0-9.]+) \(", told)]
    ideal = [p.total for p in report.paid if p.answered.name == "ideal"]
    copy = [p.total for p in report.paid if p.answered.name == "copy"]
    widest = max(a - b for a, b in zip(ideal, copy, strict=True))
    assert gains[0] >= round(widest, 3) > 0
    least = float(told.split("below ")[1])
    healed = length.model_copy(update={"weight": 0.9 * least})
    assert not [w for w in linted(*order, healed).warnings if "for length" in w]
    assert not [w for w in linted(*order).warnings if "for length" in w]


def test_a_gate_on_length_is_named_instead_of_a_weight():
    gated = (of("ndcg", gate="length"), of("format", 0.2), of("length", 0.001, params=SHORT))
    (told,) = [w for w in linted(*gated).warnings if "for length" in w]
    assert "'length' (weight 0.001)" in told
    assert told.endswith("leave out the gate of 'ndcg'")


SHORT = {"soft_max": 100, "hard_max": 200}


@pytest.mark.parametrize("name", ["permutation", "explain", "scores"])
def test_padded_reasoning_that_pays_is_found(name):
    fmt = fmt_of(name, "reason")
    report = linted(of("ndcg"), of(f"{HERE}:Thorough", 3.0), of("format", 4.0), fmt=fmt)
    assert "padded reasoning" in {b.named for b in report.breaks if b.rule == "worse < copy"}
    assert linted(of("ndcg"), of("format"), fmt=fmt).clean
    bare = linted(of("ndcg"), of("format")).paid
    assert "padded reasoning" not in {p.answered.name for p in bare}


def test_breaks_of_one_cause_are_told_once():
    report = linted(of("ndcg_gain"))
    malformed = [b for b in report.breaks if b.rule == "malformed < worse"]
    assert len(malformed) > 20
    ((told, answers),) = report.causes
    assert answers == len(malformed)
    assert f"malformed < worse ({answers} answers, the worst shown): " in told.line(answers)
    weak = linted(of("ndcg"), of(f"{HERE}:Hits", 0.1), of("format", 0.01))
    needed = [float(b.remedy.split("above ")[1].split(",")[0].rstrip(".")) for b in weak.breaks]
    shown = [float(b.remedy.split("above ")[1].split(",")[0].rstrip(".")) for b, _ in weak.causes]
    assert len(weak.causes) < len(weak.breaks)
    assert max(shown) == max(needed)


def test_format_alone_needs_a_reward_for_the_order():
    (told,) = [w for w in linted(of("format")).warnings if "'format' moves" in w]
    assert told.endswith("add a reward for the order, such as ndcg")


def test_a_group_spread_by_its_format_is_a_warning():
    heavy = linted(of("ndcg", 0.1), of("format", 2.0))
    assert heavy.clean
    assert any("'format' moves the total by up to 2.000" in w for w in heavy.warnings)
    assert not linted(of("ndcg_gain", 0.8), of("format", 0.2)).warnings


@pytest.mark.parametrize("values", [None, (0.0, 1.0)])
def test_answers_without_text_are_compared_too(values):
    cases = adversaries.cases(8)
    report = lint(rewards.make([of("ndcg")]), cases, None, values)
    assert report.clean
    assert "malformed" not in {p.level for p in report.paid}
    assert all(p.answered.text is None for p in report.paid)
    upside = lint(rewards.make([of(f"{HERE}:Upside")]), cases, None, values)
    assert not upside.clean


def test_profiles_compare_only_what_is_beyond_doubt():
    view = numbered(Query(qid="q", text="?"), [Candidate(docid=d, text=d) for d in "abcd"])
    grades = {"a": 3, "b": 1, "c": 1}

    def of_order(order: str) -> list[list[float]]:
        return profile(Outcome(status="ok", answer=Order(docids=tuple(order))), view, grades)

    assert compared(of_order("abcd"), of_order("bacd")) == 1
    assert compared(of_order("bacd"), of_order("abcd")) == -1
    assert compared(of_order("abcd"), of_order("acbd")) == 0
    # The best first, or two of three relevant ones: measures differ about it.
    assert compared(of_order("adbc"), of_order("bcda")) is None
    tied = Outcome(status="ok", answer=Scores(values=dict.fromkeys("abcd", 1.0)))
    assert profile(tied, view, grades)[0] == pytest.approx([0.75, 1.5, 2.25, 3.0])
    assert compared(profile(tied, view, grades), of_order("dcba")) == 1


def rewarded() -> list[Path]:
    root = Path(__file__).parents[2] / "recipes"
    return [p for p in sorted(root.rglob("*.yaml")) if "\nrewards:" in p.read_text("utf-8")]


def test_recipes_have_rewards():
    assert len(rewarded()) >= 4


@pytest.mark.parametrize("path", rewarded(), ids=lambda p: "/".join(p.parts[-3:]))
def test_the_rewards_of_every_recipe_keep_the_order(path):
    report = judge(recipes.load(path, []).spec, [])
    assert [b.line() for b in report.breaks] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "pointwise", "params": {"max": 10}},
        {"name": "pair"},
        {"name": "pair", "mode": "answer"},
    ],
)
def test_made_up_views_show_as_many_documents_as_the_format_asks_about(changes):
    spec = RecipeSpec(
        run={"name": "one", "output_dir": "none"},
        model={"name": "none"},
        data={"source": "bundled", "sampler": {"name": "rollout", "size": 20}},
        format={"mode": "reason", **changes},
        rewards=[{"name": "ndcg"}, {"name": "format", "weight": 0.5}],
    )
    report = judge(spec, [])
    assert {len(p.view.docids) for p in report.paid} == {1 if changes["name"] == "pointwise" else 2}
    assert report.clean
    assert any(p.level == "malformed" for p in report.paid)
    careless = judge(spec.model_copy(update={"rewards": [of("ndcg"), of(f"{HERE}:Hits")]}), [])
    assert not careless.clean
