"""The Reranker: total orders, counted failures, reasoning, checkpoints with their contract."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from rank_rl import Reranker, formats
from rank_rl.errors import DataError, ModelError, RecipeError
from rank_rl.generation.canned import CannedGenerator
from rank_rl.records import Candidate, Prompt, Query, RankingTask
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

DOCUMENTS = ["The river runs through the town.", "The father of the director.", "The lake is deep."]
SLOTS = FormatSpec(name="slots", mode="reason", doc_tokens=16)
LIST = FormatSpec(name="permutation", mode="reason")


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def task(n: int = 5, qid: str = "q") -> RankingTask:
    texts = ["the river", "the lake is deep", "a small town", "who is the father?", "the film"]
    return RankingTask(
        query=Query(qid=qid, text="who is the father?"),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=f"{texts[i % 5]} {i}", rank=i + 1) for i in range(n)
        ),
        grades={"d1": 1},
    )


def listwise(loaded, answers, spec=LIST, **params) -> Reranker:
    generator = CannedGenerator(answers)
    return Reranker(loaded=loaded, fmt=formats.make(spec), generator=generator, **params)


def test_slots_rank_by_the_log_odds_of_one_document_prompts(loaded):
    import torch

    from rank_rl.models.tokens import ChatTokens

    fmt = formats.make(SLOTS)
    (result,) = Reranker(loaded=loaded, fmt=fmt).rank_tasks([task()])
    tokens = ChatTokens(loaded.tokenizer)
    yes, no = tokens.encode(" yes")[0], tokens.encode(" no")[0]
    expected = {}
    view = result.exchanges[0].view
    for i, docid in enumerate(view.docids):
        ids = tokens.encode_prompt(Prompt(messages=fmt.slot_messages(view, i), prefill=fmt.lead))
        with torch.no_grad():
            last = loaded.model(torch.tensor([ids])).logits[0, -1]
        expected[docid] = (last[yes] - last[no]).item()
    found = dict(zip(result.ranking.docids, result.ranking.scores, strict=True))
    assert found == pytest.approx(expected, abs=1e-4)
    assert list(result.ranking.docids) == sorted(expected, key=lambda d: -expected[d])


def test_slot_results_count_slots_tokens_and_calls(loaded):
    results = Reranker(loaded=loaded, fmt=formats.make(SLOTS)).rank_tasks(
        [task(qid="a"), task(3, "b")]
    )
    assert [r.ranking.qid for r in results] == ["a", "b"]
    assert [sum(r.statuses.values()) for r in results] == [5, 3]
    # An untrained model would write something else than yes or no, and still ranks.
    assert results[0].statuses["failed"] > 0
    assert all(r.calls == 1 and r.prompt_tokens > 0 and r.completion_tokens == 0 for r in results)
    assert all(r.seconds > 0 for r in results)
    completion = results[1].exchanges[0].completion
    assert set(completion.slots) == {"1", "2", "3"}
    assert set(completion.slots["1"]) == {" no", " yes"}


def test_equal_documents_keep_first_stage_order(loaded):
    same = RankingTask(
        query=Query(qid="q", text="who?"),
        candidates=tuple(
            Candidate(docid=d, text="the lake", rank=i) for i, d in enumerate("zyx", 1)
        ),
    )
    (result,) = Reranker(loaded=loaded, fmt=formats.make(SLOTS)).rank_tasks([same])
    assert result.ranking.docids == ("z", "y", "x")


@pytest.mark.parametrize("params", [{"first_stage_hint": "rank"}, {"params": {"context": 1}}])
def test_texts_without_scores_are_ordered_first_where_prompts_tell_the_order(loaded, params):
    fmt = formats.make(SLOTS.model_copy(update=params))
    reranker = Reranker(loaded=loaded, fmt=fmt)
    asked: list[tuple[str, ...]] = []
    ask = reranker.asker.ask
    reranker.asker.ask = lambda views: (asked.extend(v.docids for v in views), ask(views))[1]
    texts = ["Paris is a town.", "Faust is by Goethe.", "Goethe wrote Faust and Egmont."]
    reranker.rank("who wrote Faust", texts)
    reranker.rank("who wrote Faust", texts, first_stage="given")
    scored = [{"text": text, "score": 3.0 - i} for i, text in enumerate(texts)]
    reranker.rank("who wrote Faust", scored)
    reranker.rank("who wrote Faust", scored, first_stage="bm25")
    assert asked == [("3", "2", "1"), ("1", "2", "3"), ("1", "2", "3"), ("3", "2", "1")]
    plain = Reranker(loaded=loaded, fmt=formats.make(SLOTS))
    assert not plain.orders(())
    with pytest.raises(DataError, match="document 1: score is 'high'"):
        plain.rank("x", [{"text": "a", "score": "high"}])
    with pytest.raises(RecipeError, match="unknown first stage 'bm52'.*auto, given, bm25"):
        plain.rank("x", ["a"], first_stage="bm52")


def test_explanations_are_written_for_the_top_documents_only(loaded):
    reranker = Reranker(loaded=loaded, fmt=formats.make(SLOTS), max_new_tokens=6)
    seen: list[tuple[int, int]] = []
    plain = reranker.rank_tasks([task()])[0]
    (result,) = reranker.rank_tasks(
        [task()], explain=2, progress=lambda done, total: seen.append((done, total))
    )
    assert result.ranking == plain.ranking
    assert set(result.notes) == set(result.ranking.docids[:2])
    assert result.completion_tokens == sum(
        n.completion.completion_tokens for n in result.notes.values()
    )
    assert result.completion_tokens > 0 and result.prompt_tokens > plain.prompt_tokens
    assert seen[0] == (1, 1) and seen[-1] == (3, 3)


def test_explanations_start_behind_the_likeliest_label(loaded):
    generator = CannedGenerator([". It names him."])
    fmt = formats.make(SLOTS)
    reranker = Reranker(loaded=loaded, fmt=fmt, generator=generator)
    results = reranker.rank("who?", DOCUMENTS, top_k=2, explain=True)
    assert [r.reasoning for r in results] == ["It names him."] * 2
    assert all(p.prefill in ("Relevant: no", "Relevant: yes") for p in generator.asked)
    shown = [p.messages[-1]["content"] for p in generator.asked]
    assert [r.text in s for r, s in zip(results, shown, strict=True)] == [True, True]


def test_a_model_of_bare_labels_is_not_asked_to_explain(loaded):
    generator = CannedGenerator([". It names him."])
    fmt = formats.make(SLOTS.model_copy(update={"mode": "answer"}))
    results = Reranker(loaded=loaded, fmt=fmt, generator=generator).rank(
        "who?", DOCUMENTS, explain=True
    )
    assert [r.reasoning for r in results] == [""] * 3
    assert not generator.asked


def test_a_listwise_answer_reorders_and_explains(loaded):
    thoughts = "[2] names the father.\n[1] is a river."
    text = f"<think>\n{thoughts}\n</think>\n<answer>[2] > [3] > [1]</answer>"
    results = listwise(loaded, [text]).rank("who?", DOCUMENTS)
    assert [r.docid for r in results] == ["2", "3", "1"]
    assert [r.rank for r in results] == [1, 2, 3]
    assert results[0].reasoning == "[2] names the father."
    assert results[0].text == DOCUMENTS[1]
    scores = [r.score for r in results]
    assert scores == sorted(scores, reverse=True)


def test_an_unreadable_answer_keeps_first_stage_order_and_is_counted(loaded):
    reranker = listwise(
        loaded, ["I cannot say.", "<think>\nx\n</think>\n<answer>[2] > [1]</answer>"]
    )
    first, second = reranker.rank_tasks([task(2, "a"), task(2, "b")])
    assert first.ranking.docids == ("d0", "d1") and second.ranking.docids == ("d1", "d0")
    assert first.statuses == {"ok": 0, "repaired": 0, "failed": 1}
    assert second.statuses == {"ok": 1, "repaired": 0, "failed": 0}


def test_every_window_of_a_sliding_run_is_an_exchange(loaded):
    strategy = StrategySpec(name="sliding", params={"window": 3, "step": 2})
    text = "<think>\nx\n</think>\n<answer>[3] > [2] > [1]</answer>"
    (result,) = listwise(loaded, [text], strategy=strategy).rank_tasks([task(5)])
    assert result.calls == len(result.exchanges) == 2
    assert sorted(result.ranking.docids) == [f"d{i}" for i in range(5)]
    assert result.ranking.docids[0] == "d4"


def test_expected_scores_break_the_ties_of_written_ones(loaded):
    spec = FormatSpec(name="scores", mode="answer", params={"max": 9})
    text = '{"[1]": 5, "[2]": 5, "[3]": 5}'
    written = listwise(loaded, [text], spec).rank_tasks([task(3)])[0]
    expected = listwise(loaded, [text], spec, readout="expected").rank_tasks([task(3)])[0]
    assert written.ranking.docids == ("d0", "d1", "d2")
    outcome = expected.exchanges[0].outcome
    assert len(set(outcome.answer.values.values())) == 3
    assert expected.ranking.docids == outcome.as_order(expected.exchanges[0].view)


GRADED = FormatSpec(
    name="slots", doc_tokens=16, params={"labels": [" 0", " 1", " 2"], "values": [0, 1, 3]}
)


def reread(loaded, monkeypatch, greedy: list[str], readout: str):
    """A ranking of five documents in which greedy decoding writes the given tokens."""
    from rank_rl.models.packed import PackedScorer

    read = PackedScorer.score
    monkeypatch.setattr(
        PackedScorer,
        "score",
        lambda self, views: [replace(r, greedy=tuple(greedy)) for r in read(self, views)],
    )
    reranker = Reranker(loaded=loaded, fmt=formats.make(GRADED), readout=readout)
    return reranker.rank_tasks([task()])[0]


def test_expected_slots_rank_by_the_expected_label_value(loaded):
    (result,) = Reranker(
        loaded=loaded, fmt=formats.make(GRADED), readout="expected"
    ).rank_tasks([task()])  # fmt: skip
    (exchange,) = result.exchanges
    expected = {}
    for label, logprobs in exchange.completion.slots.items():
        weights = {text: math.exp(lp) for text, lp in logprobs.items()}
        mean = (weights[" 1"] + 3 * weights[" 2"]) / sum(weights.values())
        expected[exchange.view.docid(label)] = mean
    found = dict(zip(result.ranking.docids, result.ranking.scores, strict=True))
    assert found == pytest.approx(expected, abs=1e-5)
    assert list(result.ranking.docids) == sorted(expected, key=lambda d: -expected[d])
    (scored,) = Reranker(loaded=loaded, fmt=formats.make(GRADED)).rank_tasks([task()])
    assert scored.ranking.scores != pytest.approx(result.ranking.scores, abs=1e-3)


def test_tied_decoded_labels_keep_first_stage_order(loaded, monkeypatch):
    result = reread(loaded, monkeypatch, [" 0", " 2", " 0", " 2", " 1"], "decoded")
    assert result.ranking.docids == ("d1", "d3", "d4", "d0", "d2")
    assert result.ranking.scores == (3.0, 3.0, 1.0, 0.0, 0.0)
    assert result.exchanges[0].outcome.status == "ok" and result.statuses["failed"] == 0


def test_a_slot_without_a_label_keeps_its_position_and_is_counted(loaded, monkeypatch):
    result = reread(loaded, monkeypatch, [" 0", "The", " 1", " 2", "?"], "decoded")
    assert result.ranking.docids == ("d3", "d1", "d2", "d0", "d4")
    assert result.statuses == {"ok": 3, "repaired": 0, "failed": 2}
    outcome = result.exchanges[0].outcome
    assert outcome.answer.unread == ("d1", "d4")
    assert outcome.as_order(result.exchanges[0].view) == result.ranking.docids


def test_slots_without_any_label_are_the_first_stage(loaded, monkeypatch):
    result = reread(loaded, monkeypatch, ["The"] * 5, "decoded")
    assert result.ranking.docids == ("d0", "d1", "d2", "d3", "d4")
    assert result.statuses["failed"] == 5 and result.exchanges[0].outcome.status == "failed"


def test_an_untrained_model_decodes_no_label(loaded):
    # What greedy decoding writes is read off the model itself here.
    (result,) = Reranker(loaded=loaded, fmt=formats.make(SLOTS), readout="decoded").rank_tasks(
        [task()]
    )
    said = [line.partition("]")[2] for line in result.exchanges[0].completion.text.split("\n")]
    assert result.statuses["failed"] == sum(s not in (" yes", " no") for s in said) > 0


@pytest.mark.parametrize(
    ("spec", "readout"), [(LIST, "score"), (LIST, "expected"), (SLOTS, "greedy")]
)
def test_a_readout_that_does_not_fit_is_refused(loaded, spec, readout):
    with pytest.raises(RecipeError, match=f"readout '{readout}' with format"):
        Reranker(loaded=loaded, fmt=formats.make(spec), readout=readout)


def test_expected_scores_of_several_tokens_are_refused_before_anything_is_written(loaded):
    spec = FormatSpec(name="scores", params={"max": 100})
    reranker = listwise(loaded, ["nothing"], spec, readout="expected")
    with pytest.raises(ModelError, match="more than one token"):
        reranker.rank_tasks([task()])
    assert reranker.generator.asked == []


def test_long_documents_are_cut_and_counted(loaded):
    reranker = Reranker(loaded=loaded, fmt=formats.make(SLOTS))
    results = reranker.rank("who?", ["the river runs " * 30, "the lake"])
    assert reranker.cuts.cut_documents == 1 and reranker.cuts.documents == 2
    assert {r.text for r in results} == {"the river runs " * 30, "the lake"}


def test_documents_as_mappings_and_candidates(loaded):
    reranker = listwise(loaded, ["<think>\nx\n</think>\n<answer>[3] > [2] > [1]</answer>"])
    given = [
        {"id": "a", "text": "the river", "title": "River"},
        Candidate(docid="b", text="the lake", rank=9),
        "the town",
    ]
    assert [r.docid for r in reranker.rank("who?", given)] == ["3", "b", "a"]
    with pytest.raises(DataError, match="appears twice"):
        reranker.rank("who?", [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}])
    with pytest.raises(DataError, match="document 1: no text"):
        reranker.rank("who?", [{"id": "a"}])
    with pytest.raises(DataError, match="no candidates"):
        reranker.rank("who?", [])


def checkpoint(loaded, folder: Path, spec: FormatSpec, **known) -> Path:
    from rank_rl.hub.contract import PromptContract
    from rank_rl.models.loading import save

    strategy = StrategySpec(name="by_score" if spec.name == "slots" else "single")
    contract = PromptContract.of(formats.make(spec), strategy, stage="score", **known)
    return save(loaded.model, loaded.tokenizer, folder, contract)


def test_a_checkpoint_knows_how_to_be_asked(loaded, tmp_path):
    folder = checkpoint(loaded, tmp_path / "final", SLOTS, max_new_tokens=7)
    again = Reranker.from_pretrained(folder, device="cpu")
    assert again.fmt.spec == SLOTS
    assert again.generator.max_new_tokens == 7
    before = Reranker(loaded=loaded, fmt=formats.make(SLOTS)).rank("who?", DOCUMENTS)
    after = again.rank("who?", DOCUMENTS)
    assert [r.docid for r in after] == [r.docid for r in before]


def test_a_checkpoint_is_read_out_as_its_contract_says(loaded, tmp_path):
    folder = checkpoint(loaded, tmp_path / "final", SLOTS, readout="decoded")
    assert Reranker.from_pretrained(folder, device="cpu").readout == "decoded"
    kept = Reranker.from_pretrained(folder, device="cpu", readout="auto")
    assert kept.readout == kept.asker.readout == "decoded"
    assert Reranker.from_pretrained(folder, device="cpu", readout="score").readout == "score"


def test_a_model_without_contract_needs_a_format(tiny_model_dir):
    with pytest.raises(ModelError, match=r"rank_rl\.json is missing.*name a format"):
        Reranker.from_pretrained(tiny_model_dir)
    reranker = Reranker.from_pretrained(tiny_model_dir, format={"name": "slots"})
    assert len(reranker.rank("who?", DOCUMENTS, top_k=1)) == 1


@pytest.mark.parametrize("spec", [{"name": "slots"}, {"name": "cross_encoder"}])
def test_a_model_computes_in_the_dtype_that_is_asked_for(tiny_model_dir, monkeypatch, spec):
    from rank_rl.models import loading

    monkeypatch.setattr(loading, "cpu_has_amx", lambda: True)
    spec = spec if spec["name"] == "slots" else {**spec, "params": {"pooling": "last"}}

    def loaded_in(**how):
        made = Reranker.from_pretrained(tiny_model_dir, device="cpu", format=spec, **how)
        assert len(made.rank("who is the father?", DOCUMENTS)) == 3
        weight = next(p for p in made.loaded.model.parameters() if p.ndim == 2)
        return loading.precision(made.loaded), str(weight.dtype).removeprefix("torch.")

    assert loaded_in(dtype="float32") == ("float32", "float32")
    assert loaded_in(dtype="bfloat16") == ("bfloat16", "bfloat16")
    assert loaded_in() == loaded_in(dtype="auto") == ("bfloat16", "float32")
    with pytest.raises(RecipeError, match="dtype: 'float64'; expected auto, float32, bfloat16"):
        loaded_in(dtype="float64")
