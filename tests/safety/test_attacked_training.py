"""Training against attacks: which documents change, that grades stay, and that tests stay clean."""

from __future__ import annotations

import json

import pytest
import small_recipes
from pydantic import ValidationError

from rank_rl import data, seeds
from rank_rl.data import injection_texts as texts
from rank_rl.data.injections import attacked
from rank_rl.data.sampling import sample_tasks
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import AttackSpec, DataSpec, SamplerSpec
from rank_rl.training import common


def load(tmp_path, **attacks):
    file = tmp_path / "tasks.jsonl"
    small_recipes.write_tasks(file, tests=5)
    spec = {"source": "jsonl", "path": str(file), "validation_split": "validation"}
    spec["first_stage"] = {"name": "given"}
    if attacks:
        spec["attacks"] = attacks
    return data.load(DataSpec.model_validate(spec), seed=3)


def tasks(count: int) -> list[RankingTask]:
    return [
        RankingTask(
            query=Query(qid=f"q{q}", text="who?"),
            candidates=tuple(
                Candidate(docid=f"d{i}", text=f"text {i}", rank=i + 1, score=-float(i))
                for i in range(10)
            ),
            grades={"d0": 2, "d1": 1, "d2": 0},
        )
        for q in range(count)
    ]


def changed(before, after):
    pairs = [(x, y) for a, b in zip(before, after, strict=True)
             for x, y in zip(a.candidates, b.candidates, strict=True)]  # fmt: skip
    return [(x, y) for x, y in pairs if x != y]


def test_only_texts_of_training_queries_change(tmp_path):
    plain, made = load(tmp_path), load(tmp_path, share=0.5)
    assert made.validation == plain.validation and made.test == plain.test
    found = changed(plain.train, made.train)
    assert 4 <= len(found) <= 28
    for before, after in found:
        assert before.text in after.text
        assert (before.docid, before.rank, before.score) == (after.docid, after.rank, after.score)
    assert [t.grades for t in made.train] == [t.grades for t in plain.train]
    counts = made.provenance["attacks"]["made"]
    assert sum(counts.values()) == len(found) and set(counts) == set(AttackSpec().kinds)
    assert json.dumps(made.provenance) != json.dumps(plain.provenance)


def test_the_draw_depends_on_query_and_document_not_on_their_order():
    given = tasks(6)
    spec = AttackSpec(share=0.4, seed=9)
    first, _ = attacked(given, spec, seed=1)
    again, _ = attacked(given[::-1], spec, seed=2)
    assert list(first) == list(again)[::-1]
    other, _ = attacked(given, spec.model_copy(update={"seed": 10}), seed=1)
    assert other != first


@pytest.mark.parametrize(
    ("share", "relevant", "expected"),
    [(0.3, None, (0.3, 0.3)), (0.5, 0.0, (0.5, 0)), (0.0, 1.0, (0, 1)), (1.0, 0.2, (1, 0.2))],
)
def test_shares_of_relevant_and_other_documents(share, relevant, expected):
    given = tasks(200)
    made, report = attacked(given, AttackSpec(share=share, relevant=relevant), seed=4)
    ids = [x.docid for x, _ in changed(given, made)]
    other = sum(d not in ("d0", "d1") for d in ids) / 1600
    mine = sum(d in ("d0", "d1") for d in ids) / 400
    assert (other, mine) == pytest.approx(expected, abs=0.08)
    assert report["documents"] == 2000 and sum(report["made"].values()) == len(ids)


def test_texts_vary_and_are_those_of_training():
    given = tasks(100)
    made, _ = attacked(given, AttackSpec(share=1.0, kinds=("command",), place="end"), seed=4)
    said = {y.text.removeprefix(x.text).strip() for x, y in changed(given, made)}
    assert said == set(texts.COMMANDS["train"])


def test_views_of_training_hold_attacked_documents(tmp_path):
    made = load(tmp_path, share=1.0, kinds=["authority"], place="start")
    pairs, _ = sample_tasks(made.train, SamplerSpec(size=4), seed=1)
    shown = [c.text for _, view in pairs for c in view.candidates]
    assert shown and all(t.startswith(texts.AUTHORITY["train"]) for t in shown)


@pytest.mark.parametrize(
    "wrong",
    [{"share": 1.5}, {"kinds": []}, {"kinds": ["magic"]}, {"share": 0}, {"place": "middle"}],
)
def test_what_cannot_be_attacked_is_refused(wrong):
    with pytest.raises(ValidationError):
        AttackSpec.model_validate(wrong)


def test_a_checkpoint_tells_what_it_was_trained_against(tiny_model_dir, tmp_path):
    from rank_rl.cli.attack import _trained
    from rank_rl.hub.contract import PromptContract
    from rank_rl.specs import RecipeSpec

    file = tmp_path / "tasks.jsonl"
    small_recipes.write_tasks(file, tests=2)
    sections = {
        "format": {"name": "slots", "doc_tokens": 16, "prompt_tokens": 512},
        "losses": [{"name": "label_ce"}],
        "data": {"attacks": {"share": 0.5, "kinds": ["command", "turn"]}},
        "eval": {"strategy": {"name": "by_score"}},
    }
    content = small_recipes.content(tiny_model_dir, file, tmp_path / "out", sections)
    stage = common.begin("score", RecipeSpec.model_validate(content), {"hash": "x"})
    pairs, _ = common.training_views(stage)
    phrasings = (*texts.COMMANDS["train"], *texts.TURNS["train"])
    beginnings = {" ".join(p.split())[:9] for p in phrasings if p[0].isalpha()}
    shown = [c.text for _, view in pairs for c in view.candidates]
    assert any(b in text for text in shown for b in beginnings)
    common.contract(stage, validation={}).write(tmp_path)
    contract = PromptContract.read(tmp_path)
    assert _trained(contract) == ["command", "turn"]
    assert contract.extra["validation"] == {}


def test_seeds_of_documents_are_their_own():
    assert seeds.derive(1, "attacked", "q", "a") != seeds.derive(1, "attacked", "q", "b")
