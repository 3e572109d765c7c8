"""Every metric offered against pytrec_eval and ir_measures: 1,000 random cases, wrong by none.

The cases have graded and negative grades, unjudged and unretrieved documents, lists shorter than
every cut, queries that are missing from the run, queries with nothing relevant, ids that look like
numbers, unicode and long ids. Runs from files have ties, also such that only double precision
tells apart.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import ir_measures
import pytest
import pytrec_eval

from rank_rl.bench.measures import Judgements, judged, measure
from rank_rl.bench.metric_names import OFFERED, read
from rank_rl.data.trec import read_run
from rank_rl.records import Candidate, Query, Ranking, RankingTask

CASES = 1000
CUTS = (1, 3, 10, 100)
CUT = ["ndcg", "ndcg_burges", "mrr", "map", "recall", "precision", "f1", "hit_rate", "success"]
UNCUT = [
    *("ndcg", "ndcg_burges", "mrr", "map", "recall", "precision", "f1", "hit_rate"),
    *("r-precision", "bpref", "rbp.8", "rbp.95"),
]
NAMES = [*(f"{name}@{k}" for name in CUT for k in CUTS), *UNCUT]
ODD_IDS = [
    "007",
    "7",
    "7.0",
    "1e3",
    "-1",
    "é",
    "日本",
    "\U0001f600",
    "z" * 300,
    "z" * 299 + "y",
    "Z",
]
Grades = dict[str, dict[str, int]]
Scores = dict[str, dict[str, float]]


def cases(seed: int) -> tuple[Grades, Scores]:
    """Grades of every query, and scores with ties for most."""
    draw = random.Random(seed)
    grades: Grades = {}
    scores: Scores = {}
    for i in range(CASES):
        pool = [f"d{j}" for j in range(draw.choice([1, 3, 8, 25, 120]))] + ODD_IDS
        pool = draw.sample(pool, draw.randint(1, len(pool)))
        known = [d for d in pool if draw.random() < 0.7] + [f"unseen{j}" for j in range(i % 4)]
        choices = [[0, 0, 0, 1, 2, 3], [1], [-2, -1, 0, 1], [0, 1, 4], [0]][draw.randrange(5)]
        own = {d: draw.choice(choices) for d in known} or {"unseen": 1}
        # pytrec_eval 0.5.11 crashes on queries that have only negative grades.
        grades[f"q{i}"] = own if max(own.values()) >= 0 else {**own, "unseen": 0}
        if i % 13 != 5:
            steps = draw.choice([1, 3, 1000])
            near = draw.choice([1.0, 1e-9])
            scores[f"q{i}"] = {d: 20 + near * draw.randrange(steps) for d in pool}
    return grades, scores


def judgements(grades: Grades) -> Judgements:
    shown = (Candidate(docid="shown", text="t"),)
    return Judgements.of(
        [
            RankingTask(query=Query(qid=q, text="x"), candidates=shown, grades=own)
            for q, own in grades.items()
        ]
    )


def by_trec_eval(grades: Grades, scores: Scores, level: int) -> dict[str, dict[str, float]]:
    """pytrec_eval's values by query and by our names; mrr@k, f1 and Burges' gains put together."""
    cut = ",".join(map(str, CUTS))
    names = {f"{m}.{cut}" for m in ("ndcg_cut", "map_cut", "P", "recall", "success")}
    names |= {"ndcg", "map", "recip_rank", "set_P", "set_recall", "set_F", "Rprec", "bpref"}
    evaluator = pytrec_eval.RelevanceEvaluator(grades, names, relevance_level=level)
    # -l does nothing to trec_eval's nDCG: gains below the level are taken away by hand.
    gains = {q: {d: g if g >= level else 0 for d, g in own.items()} for q, own in grades.items()}
    burges = {q: {d: 2 ** max(0, g) - 1 for d, g in own.items()} for q, own in gains.items()}
    linear = pytrec_eval.RelevanceEvaluator(gains, {"ndcg", f"ndcg_cut.{cut}"}).evaluate(scores)
    other = pytrec_eval.RelevanceEvaluator(burges, {"ndcg", f"ndcg_cut.{cut}"}).evaluate(scores)
    found = {}
    for q, v in evaluator.evaluate(scores).items():
        rank = v["recip_rank"]
        found[q] = {
            "ndcg": linear[q]["ndcg"],
            "ndcg_burges": other[q]["ndcg"],
            "mrr": rank,
            "map": v["map"],
            "recall": v["set_recall"],
            "precision": v["set_P"],
            "f1": v["set_F"],
            "hit_rate": float(v["set_recall"] > 0),
            "r-precision": v["Rprec"],
            "bpref": v["bpref"],
        }
        for k in CUTS:
            p, r = v[f"P_{k}"], v[f"recall_{k}"]
            found[q] |= {
                f"ndcg@{k}": linear[q][f"ndcg_cut_{k}"],
                f"ndcg_burges@{k}": other[q][f"ndcg_cut_{k}"],
                f"mrr@{k}": rank if rank >= 1 / k else 0.0,
                f"map@{k}": v[f"map_cut_{k}"],
                f"recall@{k}": r,
                f"precision@{k}": p,
                f"f1@{k}": 2 * p * r / (p + r) if p + r else 0.0,
                f"hit_rate@{k}": v[f"success_{k}"],
                f"success@{k}": v[f"success_{k}"],
            }
    return found


def rbp(order: tuple[str, ...], grades: dict[str, int], level: int, p: float) -> float:
    """The definition of Moffat and Zobel; no package that is at hand computes it."""
    return (1 - p) * sum(p**i for i, d in enumerate(order) if grades.get(d, 0) >= level)


def close(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=0, abs_tol=1e-6)


def ranked(scores: Scores, seed: int) -> dict[str, Ranking]:
    draw = random.Random(seed)
    return {
        q: Ranking(qid=q, docids=tuple(draw.sample(sorted(own), len(own))))
        for q, own in scores.items()
    }


def test_the_names_above_are_all_that_is_offered():
    assert {read(name).kind for name in NAMES} == set(OFFERED)


@pytest.mark.parametrize("level", [1, 2])
def test_no_case_differs_from_pytrec_eval(level: int):
    grades, scores = cases(seed=level)
    runs = ranked(scores, seed=level)
    given = {q: dict(zip(r.docids, r.run_scores(), strict=True)) for q, r in runs.items()}
    theirs = by_trec_eval(grades, given, level)
    known = judgements(grades)
    tail = f"-l{level}" if level > 1 else ""
    ours = measure(runs, known, [f"{name}{tail}" for name in NAMES])

    irrelevant = set(grades) - set(known.grades)
    assert len(irrelevant) > 50 and all(
        v == 0 for q in irrelevant & set(runs) for v in theirs[q].values()
    )
    missing = set(known.grades) - set(runs)
    assert len(missing) > 20 and all(ours[m][q] == 0 for m in ours for q in missing)
    wrong = []
    for name in NAMES:
        for q in set(known.grades) & set(runs):
            p = float(f"0.{name.partition('.')[2]}") if name.startswith("rbp") else None
            their = rbp(runs[q].docids, grades[q], level, p) if p else theirs[q][name]
            if not close(ours[f"{name}{tail}"][q], their):
                wrong.append((name, q, ours[f"{name}{tail}"][q], their))
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("level", [1, 2])
def test_no_case_differs_from_ir_measures(level: int):
    grades, scores = cases(seed=10 + level)
    runs = ranked(scores, seed=level)
    known = judgements(grades)
    rel = f"(rel={level})"
    pairs = {f"mrr@{k}": f"RR{rel}@{k}" for k in CUTS}
    pairs |= {f"map@{k}": f"AP{rel}@{k}" for k in CUTS}
    pairs |= {f"recall@{k}": f"R{rel}@{k}" for k in CUTS}
    pairs |= {f"precision@{k}": f"P{rel}@{k}" for k in CUTS}
    pairs |= {f"success@{k}": f"Success{rel}@{k}" for k in CUTS}
    pairs |= {"map": f"AP{rel}", "r-precision": f"Rprec{rel}", "bpref": f"Bpref{rel}"}
    if level == 1:
        pairs |= {f"ndcg@{k}": f"nDCG@{k}" for k in CUTS}
    tail = f"-l{level}" if level > 1 else ""
    ours = measure(runs, known, [f"{name}{tail}" for name in pairs])
    theirs = ir_measures.iter_calc(
        [ir_measures.parse_measure(name) for name in pairs.values()],
        [ir_measures.Qrel(q, d, g) for q, own in grades.items() for d, g in own.items()],
        [
            ir_measures.ScoredDoc(q, d, s)
            for q, r in runs.items()
            for d, s in zip(r.docids, r.run_scores(), strict=True)
        ],
    )
    values = {(v.query_id, str(v.measure)): v.value for v in theirs}
    canonical = {n: str(ir_measures.parse_measure(their)) for n, their in pairs.items()}
    wrong = [
        (name, q)
        for name in pairs
        for q in known.grades
        if not close(ours[f"{name}{tail}"][q], values.get((q, canonical[name]), 0.0))
    ]
    assert not wrong, wrong[:5]


def test_imported_runs_with_ties_are_worth_what_pytrec_eval_says(tmp_path: Path):
    """The rank column is shuffled, so that following it would show."""
    grades, scores = cases(seed=20)
    draw = random.Random(20)
    lines = [
        f"{q} Q0 {d} {draw.randrange(1000)} {s!r} t"
        for q, own in scores.items()
        for d, s in own.items()
    ]
    path = tmp_path / "given.trec"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    runs = {
        q: Ranking(qid=q, docids=tuple(d for d, _ in pairs)) for q, pairs in read_run(path).items()
    }
    theirs = by_trec_eval(grades, scores, 1)
    known = judgements(grades)
    names = [name for name in NAMES if not name.startswith("rbp")]
    ours = measure(runs, known, names)
    wrong = [
        (name, q)
        for name in names
        for q in set(known.grades) & set(runs)
        if not close(ours[name][q], theirs[q][name])
    ]
    assert not wrong, wrong[:5]
    by_file: dict[str, Any] = {q: Ranking(qid=q, docids=tuple(own)) for q, own in scores.items()}
    in_file_order = measure(by_file, known, ["ndcg@10"])
    assert in_file_order["ndcg@10"] != ours["ndcg@10"]


def test_judged_is_that_of_ir_measures():
    grades, scores = cases(seed=30)
    long = {q: own for q, own in scores.items() if len(own) >= 10 and max(grades[q].values()) > 0}
    runs = ranked(long, seed=3)
    known = judgements({q: grades[q] for q in long})
    theirs = ir_measures.calc_aggregate(
        [ir_measures.parse_measure("Judged@10")],
        [ir_measures.Qrel(q, d, g) for q in long for d, g in grades[q].items()],
        [
            ir_measures.ScoredDoc(q, d, s)
            for q, r in runs.items()
            for d, s in zip(r.docids, r.run_scores(), strict=True)
        ],
    )
    assert len(long) > 200
    assert judged(runs, known, 10) == pytest.approx(next(iter(theirs.values())), abs=1e-9)
