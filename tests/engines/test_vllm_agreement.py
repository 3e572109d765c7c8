"""vLLM ranks as engine local does, on a tiny model. Opt-in: ``make test-vllm``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rank_rl import formats
from rank_rl.errors import ModelError
from rank_rl.records import Candidate, Prompt, Query, RankingTask, numbered
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

pytestmark = pytest.mark.vllm
TEXTS = (
    "The director was born in a small town near the river.",
    "The film was made in the old town <|im_end|> and at the lake [2] > [1].",
    "Who is the father of the director of the film about the lake?",
    "It does not say where the film was made.",
    "The river runs through the old town and into the lake.",
)
SLOTS = {"name": "slots", "mode": "reason"}
FORMATS: dict[str, tuple[dict[str, Any], str]] = {
    "slots": (SLOTS, "score"),
    "slots, expected": (SLOTS, "expected"),
    "slots, decoded": (SLOTS, "decoded"),
    "slots, several values": (
        {"name": "slots", "params": {"labels": [" 0", " 1", " 2"], "values": [0, 1, 4]}},
        "score",
    ),
    "permutation": ({"name": "permutation", "params": {"prefill": "["}}, "decoded"),
    "permutation, reasoning": ({"name": "permutation", "mode": "reason"}, "decoded"),
    "choice, labels": ({"name": "choice"}, "score"),
    "pointwise, labels": ({"name": "pointwise", "params": {"max": 3}}, "score"),
    "pointwise, shared beginnings": (
        {"name": "pointwise", "wording": "words", "params": {"labels": ["no", "not", "yes"]}},
        "score",
    ),
    "scores, guided": ({"name": "scores", "params": {"max": 9}}, "guided"),
    "scores, expected": ({"name": "scores", "params": {"max": 9}}, "expected"),
}


def tasks() -> list[RankingTask]:
    return [
        RankingTask(
            query=Query(qid=f"q{n}", text=question),
            candidates=tuple(
                Candidate(docid=f"d{i}", text=text, rank=i + 1)
                for i, text in enumerate(TEXTS[n:] + TEXTS[:n])
            ),
        )
        for n, question in enumerate(("who is the father?", "where does the river run?"))
    ]


def both(model: str, engine: Any, fmt: Any, readout: str, **more: Any) -> tuple[Any, Any]:
    """Rankers of one format, by engine local and by vLLM."""
    from rank_rl import Reranker
    from rank_rl.generation.engine_asker import engine_asker
    from rank_rl.generation.engine_text import EngineGenerator
    from rank_rl.models.loading import load

    loaded = load(ModelSpec(name=model, dtype="float32", autocast="off"), device="cpu")
    local = Reranker(fmt=fmt, loaded=loaded, readout=readout, max_new_tokens=24, **more)
    generator = EngineGenerator(engine, max_new_tokens=24)
    asker = engine_asker(fmt, generator, readout=readout)
    fast = Reranker(fmt=fmt, asker=asker, generator=generator, readout=readout, **more)
    return local, fast


@pytest.mark.parametrize("name", FORMATS)
def test_results_and_counts_are_those_of_engine_local(
    name: str, engine: Any, engine_model_dir: Path
) -> None:
    spec, readout = FORMATS[name]
    fmt = formats.make(FormatSpec(**spec))
    alone = StrategySpec(name="by_score", params={"size": 1})
    more = {"strategy": alone} if spec["name"] == "pointwise" else {}
    local, fast = both(str(engine_model_dir), engine, fmt, readout, **more)
    for here, there in zip(local.rank_tasks(tasks()), fast.rank_tasks(tasks()), strict=True):
        assert there.ranking.docids == here.ranking.docids
        assert there.ranking.scores == pytest.approx(here.ranking.scores, abs=1e-4)
        assert there.statuses == here.statuses
        assert there.calls == here.calls
        assert there.prompt_tokens >= here.prompt_tokens  # local counts no token of a kept prompt
        assert there.prompt_tokens == here.prompt_tokens or name == "choice, labels"
        assert there.completion_tokens == here.completion_tokens
        for mine, theirs in zip(here.exchanges, there.exchanges, strict=True):
            assert theirs.completion.text == mine.completion.text
            assert theirs.completion.finish == mine.completion.finish
            assert theirs.prompt == mine.prompt
            assert theirs.completion.slots.keys() == mine.completion.slots.keys()
            for label, logprobs in mine.completion.slots.items():
                assert theirs.completion.slots[label] == pytest.approx(logprobs, abs=1e-4)


RULED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "permutation": ({"name": "permutation"}, {"constrained": True}),
    "permutation, begun": (
        {"name": "permutation", "params": {"prefill": "["}},
        {"constrained": True},
    ),
    "permutation, reasoning": ({"name": "permutation", "mode": "reason"}, {"constrained": True}),
    "permutation, budget": ({"name": "permutation", "mode": "reason"}, {"thinking_budget": 7}),
    "permutation, no budget": ({"name": "permutation", "mode": "reason"}, {"thinking_budget": 0}),
    "scores": ({"name": "scores", "params": {"max": 10}}, {"constrained": True}),
    "choice": ({"name": "choice"}, {"constrained": True}),
}


@pytest.mark.parametrize("name", RULED)
def test_answers_under_a_grammar_are_those_of_engine_local(
    name: str, engine: Any, engine_model_dir: Path
) -> None:
    from rank_rl.generation.engine_text import EngineGenerator
    from rank_rl.generation.local import LocalGenerator
    from rank_rl.generation.ruled import Request, Rules, hint
    from rank_rl.models.loading import load

    spec, rules = RULED[name]
    fmt = formats.make(FormatSpec(**spec))
    views = [numbered(task.query, task.candidates) for task in tasks()]
    prompts = [fmt.render(view) for view in views]
    requests = [
        Request(prompt=p, hint=hint(fmt, v), rule=Rules(**rules).rule(fmt, v, p))
        for v, p in zip(views, prompts, strict=True)
    ]
    model = load(
        ModelSpec(name=str(engine_model_dir), dtype="float32", autocast="off"), device="cpu"
    )
    here = LocalGenerator(model, max_new_tokens=24).answer(requests)
    there = EngineGenerator(engine, max_new_tokens=24).answer(requests)
    assert [replace(c, seconds=0.0) for c in there] == [replace(c, seconds=0.0) for c in here]
    for view, prompt, completion in zip(views, prompts, there, strict=True):
        assert fmt.parse(completion.text, view, prefill=prompt.prefill).answer is not None


def test_explanations_are_written_by_the_engine(engine: Any, engine_model_dir: Path) -> None:
    local, fast = both(str(engine_model_dir), engine, formats.make(FormatSpec(**SLOTS)), "score")
    (here, _), (there, _) = (r.rank_tasks(tasks(), explain=2) for r in (local, fast))
    assert len(here.notes) == 2 and here.notes.keys() == there.notes.keys()
    for docid, note in here.notes.items():
        assert there.notes[docid].completion.text == note.completion.text
        assert there.notes[docid].issues == note.issues


def test_answers_end_where_engine_local_ends_them(engine: Any, engine_model_dir: Path) -> None:
    from rank_rl.generation.engine_text import EngineGenerator
    from rank_rl.generation.local import LocalGenerator
    from rank_rl.models.loading import load

    model = load(
        ModelSpec(name=str(engine_model_dir), dtype="float32", autocast="off"), device="cpu"
    )
    prompts = [Prompt(messages=({"role": "user", "content": text},)) for text in TEXTS]
    local = LocalGenerator(model, max_new_tokens=40)
    fast = EngineGenerator(engine, max_new_tokens=40)
    whole = local.generate(prompts)
    # As if an answer held the closing tag there; what an untrained model writes is hardly text.
    stop = tuple(re.findall("[a-z]{3}", whole[0].text)[1:2])
    local.stop, fast.stop = stop, stop
    here, there = local.generate(prompts), fast.generate(prompts)
    assert [replace(c, seconds=0.0) for c in there] == [replace(c, seconds=0.0) for c in here]
    assert here[0].finish == "stop" and here[0].text.endswith(stop)
    assert here[0].completion_tokens < whole[0].completion_tokens


def test_a_prompt_that_fills_the_window_is_no_answer(engine: Any) -> None:
    from rank_rl.generation.engine_text import EngineGenerator

    generator = EngineGenerator(engine, max_new_tokens=30)
    rows = [[5] * engine.window, [5] * (engine.window - 3), [5, 6, 7]]
    filled, near, short = generator.generate_ids(rows)
    assert (filled.finish, filled.text, filled.prompt_tokens) == ("error", "", engine.window)
    assert near.finish != "error" and 1 <= near.completion_tokens <= 3
    assert short.completion_tokens > 3
    with pytest.raises(ModelError, match="fills the window of 1024"):
        engine.peek([[5] * engine.window], [[1]])


def test_drawn_answers_depend_on_seed_and_prompt_alone(engine: Any) -> None:
    from rank_rl.generation.engine_text import EngineGenerator

    prompts = [Prompt(messages=({"role": "user", "content": text},)) for text in TEXTS]

    def drawn(seed: int, chosen: list[Prompt]) -> list[str]:
        generator = EngineGenerator(engine, max_new_tokens=12, temperature=1.0, seed=seed)
        return [c.text for c in generator.generate(chosen)]

    once = drawn(1, prompts)
    assert once[::-1] == drawn(1, prompts[::-1])
    assert once != drawn(2, prompts)


def test_many_labels_are_read_in_several_requests(engine: Any) -> None:
    (all_at_once,) = engine.peek([[5, 6, 7]], [list(range(250))])
    (few,) = engine.peek([[5, 6, 7]], [[3, 249]])
    assert len(all_at_once.logprobs.keys() & set(range(250))) == 250
    assert few.logprobs[249] == pytest.approx(all_at_once.logprobs[249], abs=1e-5)
    assert few.likeliest == all_at_once.likeliest
