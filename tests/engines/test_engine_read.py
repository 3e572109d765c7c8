"""Settings of vLLM, and what its outputs mean; nothing here needs vLLM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation.endings import finished
from rank_rl.generation.engine_asker import check_engine
from rank_rl.generation.engine_labels import label_reading, label_rows, slot_reading
from rank_rl.generation.engine_read import Peek, peeked, pieces
from rank_rl.generation.engine_settings import EngineSettings, engine_settings
from rank_rl.generation.engine_weights import answer_ends
from rank_rl.models.packed import SlotLabels
from rank_rl.specs import FormatSpec


class Words:
    """A tokenizer of one word an id."""

    words = ("a ", "b ", "</", "answer", "> tail ", "")

    def decode(self, ids: Any) -> str:
        return "".join(self.words[i] for i in ids)


@dataclass
class Told:
    logprob: float


@dataclass
class Output:
    token_ids: list[int]
    logprobs: list[dict[int, Told]] | None = None


def test_an_answer_ends_behind_its_closing_tag_or_before_the_token_that_ends_it():
    read = [
        finished(Words(), ids, {5}, ["</answer>"])
        for ids in ([0, 1], [0, 1, 5], [0, 2, 3, 4, 1], [0, 5, 2, 3, 4], [])
    ]
    assert [(c.text, c.finish, c.completion_tokens) for c in read] == [
        ("a b ", "length", 2),
        ("a b ", "stop", 3),
        ("a </answer>", "stop", 4),
        ("a ", "stop", 2),
        ("", "length", 0),
    ]


def test_the_first_of_several_closing_tags_counts():
    read = finished(Words(), [0, 1, 0, 1], set(), ["b a", "a b"])
    assert (read.text, read.completion_tokens) == ("a b", 2)


def test_wanted_ids_are_read_in_requests_that_vllm_takes_and_put_together_again():
    parts = pieces(list(range(230)))
    assert [len(part) for part in parts] == [100, 100, 30] and sum(parts, []) == list(range(230))
    assert pieces([]) == [[]]
    outputs = [Output([7], [{7: Told(-0.5), 1: Told(-2.0)}]), Output([7], [{2: Told(-3.0)}])]
    peek = peeked(outputs)
    assert peek == Peek(logprobs={7: -0.5, 1: -2.0, 2: -3.0}, likeliest=7)
    assert peeked([Output([4])]) == Peek(logprobs={}, likeliest=4)


def test_slot_scores_are_weighted_label_log_probabilities():
    labels = SlotLabels(
        texts=("no", "maybe", "yes"), values=(0.0, 1.0, 4.0), ids=(3, 4, 1),
        weights=(-5 / 6, -2 / 6, 7 / 6),
    )  # fmt: skip
    first = {3: math.log(0.1), 4: math.log(0.2), 1: math.log(0.4)}
    sure = {3: -800.0, 4: -900.0, 1: -1000.0}
    peeks = [Peek(logprobs=first, likeliest=1), Peek(logprobs=sure, likeliest=0)]
    reading = slot_reading(peeks, ([8, 8, 8], [[1], [2, 2]]), labels, Words())
    score = (-5 * math.log(0.1) - 2 * math.log(0.2) + 7 * math.log(0.4)) / 6
    assert reading.scores[0] == pytest.approx(score)
    assert reading.expected == pytest.approx(((0.2 + 4 * 0.4) / 0.7, 0.0))
    assert reading.greedy == ("yes", "a ") and reading.best() == ["yes", "no"]
    assert reading.logprobs[0] == pytest.approx(
        {"no": first[3], "maybe": first[4], "yes": first[1]}
    )
    assert reading.tokens == 6


def test_a_reader_of_labels_has_nothing_to_forget(tiny_model_dir):
    """A ranker of vLLM's forgets between rankings, as every ranker does."""
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from rank_rl import Reranker, formats
    from rank_rl.generation.engine_asker import EngineLabelAsker
    from rank_rl.models.tokens import ChatTokens
    from rank_rl.specs import FormatSpec, StrategySpec

    tokens = ChatTokens(AutoTokenizer.from_pretrained(str(tiny_model_dir)))
    fmt = formats.make(FormatSpec(name="choice"))
    asker = EngineLabelAsker(fmt, SimpleNamespace(tokens=tokens, batch_size=2))
    ranker = Reranker(fmt=fmt, strategy=StrategySpec(name="setwise"), asker=asker)
    ranker.session()  # forgets what was kept before
    ranker.forget()


def test_labels_that_share_beginnings_are_read_place_by_place():
    from rank_rl.generation.choosing import Trie

    # Of "10", "1" and "2": behind "1" another token may follow.
    trie = Trie(stem=[9, 9], paths=((1, 0), (1,), (2,)), first=frozenset({1, 2}))
    assert label_rows(trie) == [([9, 9], [1, 2]), ([9, 9, 1], [0])]
    peeks = [
        Peek(logprobs={1: math.log(0.5), 2: math.log(0.25), 7: -1.0}, likeliest=1),
        Peek(logprobs={0: math.log(0.2)}, likeliest=0),
    ]
    reading = label_reading(trie, peeks, ("10", "1", "2"))
    assert reading.logprobs == pytest.approx(
        {"10": math.log(0.1), "1": math.log(0.4), "2": math.log(0.25)}
    )
    assert reading.begins and reading.best == "1"
    other = [Peek(logprobs=dict(peeks[0].logprobs), likeliest=7), peeks[1]]
    assert not label_reading(trie, other, ("10", "1", "2")).begins


def test_settings_become_arguments_of_vllm():
    plain = EngineSettings().arguments(on_cpu=False)
    assert plain == {
        "dtype": "bfloat16",
        "tensor_parallel_size": 1,
        "enable_prefix_caching": True,
        "seed": 0,
        "logprobs_mode": "raw_logprobs",
        "trust_remote_code": False,
        "load_format": "safetensors",
    }
    assert EngineSettings().arguments(on_cpu=True)["dtype"] == "float32"
    full = engine_settings({"dtype": "float16", "max_model_len": 2048, "extra": {"swap": 1}})
    given = full.arguments(on_cpu=True)
    assert (given["dtype"], given["max_model_len"], given["swap"]) == ("float16", 2048, 1)
    assert "batch_size" not in given and engine_settings(full) is full


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_modellen": 5}, "unknown setting 'max_modellen'"),
        ({"max_modellen": 5}, "nearest: max_model_len"),
        ({"seed": -1}, "engine seed: value -1"),
        ({"dtype": "int8"}, "engine dtype: value 'int8'"),
        ({"extra": {"seed": 1}}, "seed is a setting of its own"),
        ({"extra": {"model": "x"}}, "extra must not hold model"),
        ({"extra": {"trust_remote_code": True}}, "extra must not hold trust_remote_code"),
    ],
)
def test_wrong_settings_are_one_readable_line(given: dict[str, Any], words: str):
    with pytest.raises(RecipeError) as error:
        engine_settings(given)
    assert words in error.value.line() and "\n" not in error.value.line()


def test_formats_of_scorers_are_refused_before_a_model_is_loaded():
    with pytest.raises(RecipeError, match="a scorer's head, which vLLM does not run"):
        check_engine(formats.make(FormatSpec(name="cross_encoder")))
    check_engine(formats.make(FormatSpec(name="slots")))


def test_without_vllm_one_line_says_how_to_install_it(tiny_model_dir: Path):
    from rank_rl.generation.engine import open_engine
    from rank_rl.specs import ModelSpec

    try:
        import vllm  # noqa: F401
    except ImportError:
        with pytest.raises(RecipeError, match=r"pip install 'rank-rl\[vllm\]'"):
            open_engine(ModelSpec(name=str(tiny_model_dir)))


def test_the_tokens_that_end_an_answer_are_those_of_engine_local(
    tiny_model_dir: Path, tmp_path: Path
):
    from rank_rl.generation.local import ends
    from rank_rl.models.loading import load
    from rank_rl.specs import ModelSpec

    loaded = load(ModelSpec(name=str(tiny_model_dir)), device="cpu")
    assert list(answer_ends(tiny_model_dir, loaded.tokenizer)) == ends(loaded)
    (tmp_path / "config.json").write_text('{"eos_token_id": 3}')
    assert answer_ends(tmp_path, loaded.tokenizer) == (loaded.tokenizer.eos_token_id, 3)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 3]}')
    assert answer_ends(tmp_path, loaded.tokenizer) == (loaded.tokenizer.eos_token_id, 5, 3)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json: cannot be read"):
        answer_ends(tmp_path, loaded.tokenizer)


def test_an_adapter_is_merged_once_for_vllm(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("peft")
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from rank_rl.generation.engine_weights import whole_weights
    from rank_rl.models.loading import load, load_tokenizer
    from rank_rl.models.sources import locate
    from rank_rl.specs import ModelSpec

    monkeypatch.setenv("RANK_RL_CACHE", str(tmp_path / "cache"))
    plain = AutoModelForCausalLM.from_pretrained(str(tiny_model_dir))
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        adapted = get_peft_model(plain, config)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    source = locate(str(tmp_path / "adapter"))
    folder = whole_weights(source, load_tokenizer(source))
    assert folder.parent == tmp_path / "cache" / "merged"
    spec = ModelSpec(name=str(tmp_path / "adapter"), dtype="float32")
    wanted, ids = load(spec, device="cpu").model, torch.tensor([[5, 9, 14, 20]])
    found = load(ModelSpec(name=str(folder), dtype="float32"), device="cpu").model
    with torch.no_grad():
        assert torch.allclose(found(ids).logits, wanted(ids).logits, atol=1e-5)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert whole_weights(source, load_tokenizer(source)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    base = locate(str(tiny_model_dir))
    assert whole_weights(base, load_tokenizer(base)) == tiny_model_dir
