"""Calibration from exchange records: what counts as confidence, bins, and error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rank_rl import Reranker, formats
from rank_rl.bench import diagnosis
from rank_rl.bench.diagnosis.calibration import confidences
from rank_rl.bench.traces import trace
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import DiagnosisSpec, FormatSpec, ModelSpec

DOCIDS = ["a", "b", "c", "d"]


def record(
    answer: dict[str, Any] | None = None,
    slots: dict[str, dict[str, float]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One exchange about documents a … d under labels 1 … 4."""
    return {
        "qid": "q",
        "docids": DOCIDS,
        "labels": ["1", "2", "3", "4"],
        "completion": {"text": "x", "finish": "stop", "slots": slots or {}},
        "outcome": {"status": "ok", "answer": answer, "issues": []},
        **more,
    }


def scored(*values: float, **more: Any) -> dict[str, Any]:
    return record({"values": dict(zip(DOCIDS, values, strict=False)), "unread": []}, **more)


def yes(*shares: float) -> dict[str, dict[str, float]]:
    """Slots whose labels have half of all probability, of which yes has a share."""
    return {
        str(i + 1): {" no": math.log((1 - p) / 2), " yes": math.log(p / 2)}
        for i, p in enumerate(shares)
    }


def test_label_probabilities_count_before_scores_and_among_the_labels_only():
    found, basis = confidences([scored(9.0, -9.0, slots=yes(0.9, 0.2))])
    assert basis == "label probability"
    assert found == {("q", "a"): pytest.approx(0.9), ("q", "b"): pytest.approx(0.2)}
    # A document that was asked about twice has the mean.
    again = record(slots=yes(0.7), qid="q", docids=["a"], labels=["1"])
    found, _ = confidences([scored(slots=yes(0.9, 0.2)), again])
    assert found["q", "a"] == pytest.approx(0.8)


def test_graded_labels_count_by_their_expected_value():
    slots = {"1": {"0": math.log(0.2), "1": math.log(0.3), "2": math.log(0.5)}}
    found, basis = confidences([record(slots=slots)])
    assert (found, basis) == ({("q", "a"): pytest.approx(0.65)}, "expected label value")
    found, _ = confidences([record(slots=slots)], (0.0, 4.0, 5.0))
    assert found == {("q", "a"): pytest.approx((0.3 * 4 + 0.5 * 5) / 5)}
    # A label that is impossible, as JSON may write it.
    slots = {"1": {"0": -math.inf, "1": math.log(0.1)}}
    found, basis = confidences([record(slots=slots)])
    assert (found, basis) == ({("q", "a"): 1.0}, "label probability")


def test_scores_are_scaled_by_what_the_format_allows_or_by_what_was_seen():
    answers = [scored(0, 3, 5), scored(10, 2, qid="r")]
    found, basis = confidences(answers, tuple(range(11)))
    assert basis == "scores scaled 0..1" and found["q", "c"] == 0.5
    found, basis = confidences([scored(-2.0, 0.0, 2.0)], (0.0, 1.0))
    assert basis == "scores scaled 0..1 by the range observed"
    assert found == {("q", "a"): 0.0, ("q", "b"): 0.5, ("q", "c"): 1.0}
    found, basis = confidences([scored(0.25, 0.5)])
    assert basis == "scores scaled 0..1" and found["q", "a"] == 0.25


def test_answers_without_scores_have_no_calibration():
    grades = {"q": {"a": 1}}
    order = record({"docids": DOCIDS})
    pick = record({"docid": "a", "worst": False})
    failed = record(None)
    level = scored(1.0, 1.0)
    explains = {"qid": "q", "explains": "a", "completion": {}, "note": "", "issues": []}
    # Log-probabilities of being chosen among those shown are no scores of single documents.
    chosen = scored(-0.1, -3.0, slots={"label": {"[1]": -0.1, "[2]": -3.0}})
    for one in (order, pick, failed, level, explains, chosen):
        assert diagnosis.calibration([one], grades) is None
    assert diagnosis.calibration([scored(0.1, 0.9)], {"other": {"a": 1}}) is None
    unread = record({"values": {"a": 0.3, "b": 0.7, "c": math.nan}, "unread": ["b"]})
    assert confidences([unread, scored(0.1, qid="r")])[0].keys() == {("q", "a"), ("r", "a")}


def test_error_and_bins():
    # Sure of two of which one is relevant, unsure of two of which none is (d is not judged).
    found = diagnosis.calibration(
        [record(slots=yes(0.9, 0.9, 0.25, 0.15))], {"q": {"a": 2, "b": 0, "c": -1}}, bins=5
    )
    assert found is not None
    assert found["basis"] == "label probability"
    assert (found["documents"], found["relevant"]) == (4, 0.25)
    low, middle, high = found["bins"]
    assert (low["low"], low["n"], low["relevant"]) == (0.0, 1, 0.0)
    assert low["confidence"] == pytest.approx(0.15)
    assert (middle["low"], middle["high"], middle["n"]) == (
        pytest.approx(0.2),
        pytest.approx(0.4),
        1,
    )
    assert (high["high"], high["n"], high["relevant"]) == (1.0, 2, 0.5)
    assert found["ece"] == pytest.approx((0.15 + 0.25 + 2 * 0.4) / 4)
    json.dumps(found)


def test_bins_of_equal_mass_hold_as_many_documents_and_keep_ties_together():
    answers = [scored(0.01, 0.02, 0.03, 0.9)]
    found = diagnosis.calibration(answers, {"q": {"d": 1}}, bins=2, mass=True)
    assert found is not None and [b["n"] for b in found["bins"]] == [2, 2]
    assert found["bins"][0]["high"] == found["bins"][1]["low"] == pytest.approx(0.025)
    found = diagnosis.calibration([scored(0.1, 0.1, 0.1, 0.9)], {"q": {"d": 1}}, bins=4, mass=True)
    assert found is not None and [b["n"] for b in found["bins"]] == [3, 1]
    with pytest.raises(ValueError, match="at least one bin"):
        diagnosis.calibration(answers, {"q": {}}, bins=0)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40),
    st.integers(1, 12),
    st.booleans(),
)
def test_bins_hold_every_document_once_and_errors_are_bounded(pairs, bins, mass):
    docids = [f"d{i}" for i in range(len(pairs))]
    values = dict(zip(docids, (p for p, _ in pairs), strict=True))
    answer = record({"values": values, "unread": []}, docids=docids, labels=docids)
    grades = {"q": {d: int(r) for d, (_, r) in zip(docids, pairs, strict=True)}}
    found = diagnosis.calibration([answer], grades, bins=bins, mass=mass)
    if found is None:
        assert len(set(values.values())) == 1
        return
    assert sum(b["n"] for b in found["bins"]) == len(pairs) and len(found["bins"]) <= bins
    assert 0 <= found["ece"] <= 1
    assert all(b["low"] - 1e-9 <= b["confidence"] <= b["high"] + 1e-9 for b in found["bins"])
    share = sum(b["n"] * b["relevant"] for b in found["bins"]) / len(pairs)
    assert share == pytest.approx(found["relevant"])


def test_ties_are_shares_of_documents_within_their_query():
    assert diagnosis.tied([scored(3, 3, 1, 0)]) == 0.5
    assert diagnosis.tied([scored(3, 2, 1, 0), scored(3, qid="r")]) == 0.0
    alone = [record({"values": {d: 1.0}}, docids=[d], labels=["1"]) for d in DOCIDS]
    assert diagnosis.tied(alone) == 1.0
    assert diagnosis.tied([record({"docids": DOCIDS})]) is None


def test_worths_of_formats():
    def of(name: str, **params: Any) -> tuple[float, ...]:
        return diagnosis.worths(formats.make(FormatSpec(name=name, params=params)))

    assert of("slots") == (0.0, 1.0)
    assert of("slots", labels=["0", "1", "2"], values=[0, 1, 5]) == (0.0, 1.0, 5.0)
    assert of("pointwise", max=3) == (0.0, 1.0, 2.0, 3.0)
    assert of("scores", max=4) == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert of("permutation") == of("choice") == of("cross_encoder") == ()


def test_exchanges_of_a_real_model_are_read_from_their_file(tiny_model_dir, tmp_path):
    from rank_rl.models.loading import load

    loaded = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")
    texts = ["the river", "the lake is deep", "a small town"]
    tasks = [
        RankingTask(
            query=Query(qid=qid, text="who is the father?"),
            candidates=tuple(
                Candidate(docid=f"d{i}", text=text, rank=i + 1) for i, text in enumerate(texts)
            ),
            grades={"d1": 1},
        )
        for qid in ("a", "b")
    ]

    def asked(**spec: Any) -> tuple[dict[str, Any], Reranker]:
        fmt = formats.make(FormatSpec.model_validate(spec))
        reranker = Reranker(loaded=loaded, fmt=fmt, max_new_tokens=4)
        results = reranker.rank_tasks(tasks, explain=1)
        path = tmp_path / f"{fmt.spec.name}.jsonl"
        path.write_text("\n".join(line for r in results for line in trace(r)) + "\n")
        found = diagnosis.of_answers(
            diagnosis.records(path),
            tasks,
            DiagnosisSpec(bins=4),
            rankings={r.ranking.qid: r.ranking for r in results},
            statuses={"ok": 0, "failed": 6},
            values=diagnosis.worths(fmt),
        )
        return json.loads(json.dumps(found)), reranker

    slots, reranker = asked(name="slots", mode="reason")
    assert slots["calibration"]["basis"] == "label probability"
    assert slots["calibration"]["documents"] == 6
    assert slots["calibration"]["relevant"] == pytest.approx(1 / 3)
    (first, *_) = reranker.rank_tasks(tasks[:1])
    ((_, reading),) = [(e, e.completion.slots["1"]) for e in first.exchanges]
    share = 1 / (1 + math.exp(reading[" no"] - reading[" yes"]))
    (own,) = [b for b in slots["calibration"]["bins"] if b["low"] <= share <= b["high"]]
    assert own["n"] >= 2
    assert slots["failures"]["unreadable"] == 6  # as the statuses say, of slots
    assert slots["tied"] == 0.0 and -1 <= slots["input_tau"] <= 1
    lists, _ = asked(name="permutation", mode="answer")
    assert set(lists) == {"failures", "input_tau"}
    assert lists["input_tau"] == 1.0
