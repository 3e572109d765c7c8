"""Reasoning skipped: fewer tokens are written, the answers are read, old contracts stay valid."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rank_rl import Reranker, formats
from rank_rl.errors import RecipeError
from rank_rl.generation.canned import CannedGenerator
from rank_rl.generation.reasoning import SKIPPED, begun, check_reasoning
from rank_rl.hub.contract import PromptContract
from rank_rl.records import Candidate, Query, RankingTask, numbered
from rank_rl.specs import EvalSpec, FormatSpec, ModelSpec, StrategySpec

TASK = RankingTask(
    query=Query(qid="q", text="who is the father?"),
    candidates=tuple(
        Candidate(docid=f"d{i}", text=text, rank=i)
        for i, text in enumerate(["the river", "the lake is deep", "a small town"], 1)
    ),
)
VIEW = numbered(TASK.query, TASK.candidates)
ANSWERS = {
    "permutation": ("[3] > [1] > [2]", VIEW),
    "scores": ('{"[1]": 2, "[2]": 0, "[3]": 1}', VIEW),
    "choice": ("[3]", VIEW),
    "pair": ("[2]", numbered(TASK.query, TASK.candidates[:2])),
    "pointwise": ("2", numbered(TASK.query, TASK.candidates[:1])),
}


def make(name: str, mode: str = "reason", **params):
    return formats.make(FormatSpec(name=name, mode=mode, params=params))


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("params", [{}, {"prefill": "<think>\n"}])
def test_an_answer_behind_an_empty_reasoning_is_ok(name, params):
    fmt = make(name, **params)
    answer, view = ANSWERS[name]
    prompt = begun(fmt, fmt.render(view), "skip")
    assert prompt.prefill == SKIPPED and SKIPPED.endswith("<answer>")
    outcome = fmt.parse(f"{answer}</answer>", view, prefill=prompt.prefill)
    assert (outcome.status, outcome.reasoning) == ("ok", "")
    # It is how an ideal answer without reasoning begins, so that training can show it.
    assert fmt.ideal(view, {"d1": 1}).startswith(SKIPPED)
    assert begun(fmt, fmt.render(view), "write") == fmt.render(view)


def test_what_has_no_reasoning_cannot_skip_it():
    with pytest.raises(RecipeError, match="mode answer has no reasoning to skip"):
        check_reasoning(make("choice", "answer"), "skip")
    with pytest.raises(RecipeError, match="reasoning 'off'.*one of write, skip"):
        check_reasoning(make("choice"), "off")


class Counted(CannedGenerator):
    """Says what each prompt leaves to say: reasoning and answer, or the answer alone."""

    def generate(self, prompts, *, progress=None):
        whole = "<think>\nThe town is small.\n</think>\n<answer>[3] > [1] > [2]</answer>"
        rest = [whole.removeprefix(p.prefill) if p.prefill != SKIPPED else whole for p in prompts]
        said = [t.partition("<answer>")[2] if p.prefill == SKIPPED else t
                for t, p in zip(rest, prompts, strict=True)]  # fmt: skip
        self.asked += prompts
        found = CannedGenerator(said).generate(prompts)
        return [replace(c, completion_tokens=len(c.text.split())) for c in found]


def test_the_reranker_asks_for_the_answer_alone(loaded):
    fmt = make("permutation")
    both = {}
    for reasoning in ("write", "skip"):
        generator = Counted([])
        reranker = Reranker(loaded=loaded, fmt=fmt, generator=generator, reasoning=reasoning)
        (both[reasoning],) = reranker.rank_tasks([TASK])
    assert both["write"].ranking == both["skip"].ranking
    assert both["write"].ranking.docids == ("d3", "d1", "d2")
    assert both["write"].statuses["ok"] == both["skip"].statuses["ok"] == 1
    assert both["skip"].completion_tokens < both["write"].completion_tokens
    assert both["skip"].reasoning("d1") == "" != both["write"].reasoning("d1")


def test_a_trained_model_writes_less(tiny_model_dir):
    """A model that has learnt to reason stops at the answer when its reasoning is given."""
    import torch

    from rank_rl.models.loading import load
    from rank_rl.models.tokens import ChatTokens

    trained = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu", train=True)
    tokens, fmt = ChatTokens(trained.tokenizer), make("choice")
    plain = fmt.render(VIEW)
    think, skip = (tokens.encode_prompt(p) for p in (plain, begun(fmt, plain, "skip")))
    whole = tokens.encode_prompt(replace(plain, prefill=SKIPPED + "[3]</answer>"))
    # The last one as the tokenizer writes the whole answer, where ">[" may be one token.
    rows = [
        (think, tokens.encode("<think>\nThe town is small.\n</think>\n<answer>[3]</answer>")),
        (skip, tokens.encode("[3]</answer>")),
        (whole[: len(skip) - 2], whole[len(skip) - 2 :]),
    ]
    optimiser = torch.optim.AdamW(trained.model.parameters(), lr=5e-3)
    for _ in range(100):
        for start, answer in rows:
            ids = torch.tensor([start + answer])
            labels = torch.tensor([[-100] * len(start) + answer])
            trained.model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    results = {
        reasoning: Reranker(
            loaded=trained, fmt=fmt, max_new_tokens=40, reasoning=reasoning
        ).rank_tasks([TASK])[0]
        for reasoning in ("write", "skip")
    }
    for result in results.values():
        assert result.statuses["ok"] == 1 and result.ranking.docids[0] == "d3"
    assert results["skip"].completion_tokens < results["write"].completion_tokens
    scored = Reranker(loaded=trained, fmt=fmt, readout="score", reasoning="skip")
    (result,) = scored.rank_tasks([TASK])
    assert result.ranking.docids[0] == "d3" and result.completion_tokens == 0
    assert result.exchanges[0].prompt.prefill == SKIPPED
    assert result.statuses["ok"] == 1


def test_slots_write_no_notes_when_reasoning_is_skipped(loaded):
    fmt = make("slots")
    plain = Reranker(loaded=loaded, fmt=fmt, max_new_tokens=4)
    skipping = Reranker(loaded=loaded, fmt=fmt, max_new_tokens=4, reasoning="skip")
    (one,), (other,) = (r.rank_tasks([TASK], explain=2) for r in (plain, skipping))
    assert len(one.notes) == 2 and not other.notes
    assert other.completion_tokens == 0 < one.completion_tokens
    assert one.ranking == other.ranking


def test_an_argument_that_does_not_exist_is_refused(loaded):
    with pytest.raises(TypeError, match="no such argument: reasonings"):
        Reranker(loaded=loaded, fmt=make("choice"), reasonings="skip")


def test_contracts_keep_the_switch_and_old_files_their_hash(tmp_path):
    fmt = make("choice")
    plain = PromptContract.of(fmt, StrategySpec())
    content = json.loads(plain.write(tmp_path).read_text())
    assert "reasoning" not in content and PromptContract.read(tmp_path).reasoning == "write"
    skipping = PromptContract.of(fmt, StrategySpec(), reasoning="skip", readout="score")
    skipping.write(tmp_path)
    again = PromptContract.read(tmp_path)
    assert again == skipping and (again.reasoning, again.readout) == ("skip", "score")
    assert again.hash != plain.hash
    with pytest.raises(RecipeError, match="no reasoning to skip"):
        PromptContract.of(make("choice", "answer"), StrategySpec(), reasoning="skip")


def test_validations_with_and_without_reasoning_are_not_compared():
    from rank_rl.training.resume import eval_fingerprint

    assert eval_fingerprint(EvalSpec()) != eval_fingerprint(EvalSpec(reasoning="skip"))
    # What runs of earlier versions wrote down, when there was no such key.
    assert eval_fingerprint(EvalSpec()) == "769c1a728a2e"


LABEL_FIRST = {"labels": ["no", "yes"], "order": "label_first"}


def label_first_format():
    spec = FormatSpec(name="pointwise", mode="reason", wording="words", params=LABEL_FIRST)
    return formats.make(spec)


def one_by_one(loaded, generator=None, **reading):
    return Reranker(
        loaded=loaded,
        fmt=label_first_format(),
        strategy=StrategySpec(name="by_score", params={"size": 1}),
        generator=generator,
        max_new_tokens=40,
        **reading,
    )


def test_a_label_that_comes_first_is_where_the_answer_ends(loaded):
    said = ["no. It flows.", "no", "yes. It is small and it names him."]
    (written,) = one_by_one(loaded, CannedGenerator(said)).rank_tasks([TASK])
    (skipped,) = one_by_one(loaded, CannedGenerator(said), reasoning="skip").rank_tasks([TASK])
    assert [e.completion.text for e in written.exchanges] == said
    assert [e.completion.text for e in skipped.exchanges] == ["no.", "no.", "yes."]
    # A label alone lacks its note, unless notes were not asked for.
    assert written.statuses == {"ok": 2, "repaired": 1, "failed": 0}
    assert skipped.statuses == {"ok": 3, "repaired": 0, "failed": 0}
    assert written.ranking.docids == skipped.ranking.docids == ("d3", "d1", "d2")
    (garbage,) = one_by_one(loaded, CannedGenerator(["?"]), reasoning="skip").rank_tasks([TASK])
    assert garbage.statuses["failed"] == 3 and garbage.exchanges[0].completion.text == "?"


def test_a_model_writes_no_more_than_the_label(loaded):
    (written,) = one_by_one(loaded).rank_tasks([TASK])
    (skipped,) = one_by_one(loaded, reasoning="skip").rank_tasks([TASK])
    assert 0 < skipped.completion_tokens <= 3 * 4 < written.completion_tokens
    # A label that comes first can be read without either.
    (scored,) = one_by_one(loaded, readout="score").rank_tasks([TASK])
    assert scored.completion_tokens == 0 and len(set(scored.ranking.scores)) == 3
    record = scored.exchanges[0].completion.slots["1"]
    value = dict(zip(scored.ranking.docids, scored.ranking.scores, strict=True))["d1"]
    assert value == pytest.approx(record["yes"] - record["no"])


@pytest.mark.parametrize(
    ("params", "text"),
    [
        *[({"max": 3}, t) for t in ("10. x", "2.5. x", "1st", "3/10. so", "2 out of 5", "1,5")],
        *[({"max": 3}, t) for t in ("2 out", "-1. x", "<think>")],
        ({"max": 10}, "3/10. so"),
        *[({}, t) for t in ("nothing", "not relevant", "yesterday", "no, yes", "yes it", "No. x")],
    ],
)
def test_what_only_begins_like_a_label_is_left_as_it_is(params, text):
    from rank_rl.generation.reasoning import generate_labels

    spec = {**LABEL_FIRST, **params}
    fmt = make("pointwise", order="label_first", **params) if params else label_first_format()
    assert fmt.params.labels == (None if params else spec["labels"])
    shown = numbered(TASK.query, TASK.candidates[:1])
    generator = CannedGenerator([text])
    (found,) = generate_labels(generator, [fmt.render(shown)], [shown], fmt, Letters())
    assert found.text == text
    assert fmt.parse(found.text, shown).status != "ok"


@pytest.mark.parametrize(("text", "kept"), [("10", "10."), (" 1. So", "1."), ("10. x", "10.")])
def test_the_label_that_was_read_is_kept(text, kept):
    from rank_rl.generation.reasoning import generate_labels

    fmt = make("pointwise", order="label_first", max=10)
    shown = numbered(TASK.query, TASK.candidates[:1])
    prompts = [fmt.render(shown)]
    (found,) = generate_labels(CannedGenerator([text]), prompts, [shown], fmt, Letters())
    assert (found.text, found.finish) == (kept, "stop")
    assert fmt.parse(found.text, shown).status == "ok"


class Letters:
    """One token a character."""

    def encode(self, text):
        return [ord(character) for character in text]
