"""Loading of scorers: what is refused, heads and their files, published heads, dtypes, seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import WORDS, save_bert

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.models import loading
from rank_rl.models.scorers.base import FILE
from rank_rl.models.scorers.loading import load_scorer
from rank_rl.records import Candidate, Query, View, numbered
from rank_rl.specs import FormatSpec, ModelSpec

COLOURS = ("red", "blue", "grey", "pink", "black", "green")
DOCS = [Candidate(docid=f"d{i}", text=f"the house is {c}", rank=i) for i, c in enumerate(COLOURS)]
SHORT = numbered(Query(qid="q", text="which house is red?"), DOCS)
CROSS: dict[str, Any] = {"name": "cross_encoder"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A published reranker on a decoder, whose config names no padding."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("decoder")
    config = LlamaConfig.from_pretrained(tiny_model_dir, num_labels=1, initializer_range=0.2)
    config.pad_token_id = None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    return folder


def load(folder: Path, spec: dict[str, Any], dtype: str = "float32", **how: Any) -> loading.Loaded:
    fmt = formats.make(FormatSpec.model_validate(spec))
    model = ModelSpec.model_validate({"name": str(folder), "autocast": "off", "dtype": dtype})
    return load_scorer(model, fmt, **how)


def scores(model: Any, view: View = SHORT) -> list[float]:
    with torch.no_grad():
        return list(model([model.encode(view)])[0].scores.tolist())


def with_head(folder: Path, target: Path, spec: dict[str, Any]) -> Path:
    """A checkpoint whose head is not what a fresh load draws."""
    loaded = load(folder, spec)
    with torch.no_grad():
        for weight in loaded.model.heads().values():
            weight.add_(torch.randn_like(weight))
    return loading.save(loaded.model, loaded.tokenizer, target, None)


@pytest.mark.parametrize("name", ["cross_encoder", "pair_scores", "embedding"])
@pytest.mark.parametrize("train", [False, True])
def test_the_first_state_of_a_decoder_is_refused(
    tiny_model_dir: Path, name: str, train: bool
) -> None:
    spec = {"name": name, "params": {"pooling": "cls"}}
    with pytest.raises(RecipeError, match=r"format.params.pooling: .*expected last or mean") as e:
        load(tiny_model_dir, spec, train=train)
    assert "\n" not in str(e.value)
    for pooling in ("last", "mean"):
        load(tiny_model_dir, {"name": name, "params": {"pooling": pooling}}, train=train)


def test_pooling_is_not_used_with_a_published_head(decoder: Path) -> None:
    first, last = (
        scores(load(decoder, {**CROSS, "params": {"pooling": how}}).model)
        for how in ("cls", "last")
    )
    assert first == last and len(set(first)) == len(first)
    with pytest.raises(RecipeError, match="format.params.pooling"):  # term control pools
        load(decoder, {**CROSS, "params": {"term_control": 0.5}})


def test_a_published_decoder_without_padding_scores_several_documents(decoder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    assert json.loads((decoder / "config.json").read_text()).get("pad_token_id") is None
    model = load(decoder, CROSS).model
    published = AutoModelForSequenceClassification.from_pretrained(decoder)
    for row, score in zip(model.encode(SHORT).rows, scores(model), strict=True):
        ids = [i for i in row.ids if i != model.tokens.tokenizer.pad_token_id]
        expected = published(input_ids=torch.tensor([ids])).logits.item()
        assert score == pytest.approx(expected, abs=1e-4)
    longer = numbered(SHORT.query, [*DOCS, Candidate(docid="z", text="red " * 30, rank=9)])
    assert scores(model, longer)[: len(DOCS)] == pytest.approx(scores(model), abs=1e-4)


@pytest.mark.parametrize("kind", ["bert", "decoder"])
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_published_heads_keep_their_digits(
    decoder: Path, tmp_path: Path, kind: str, how: str
) -> None:
    folder = decoder if kind == "decoder" else save_bert(tmp_path / "bert", classifier=True)
    exact = scores(load(folder, CROSS).model)
    dtype = "bfloat16" if how == "weights" else "float32"
    model = load(folder, CROSS, dtype).model
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        found = scores(model)
    assert torch.tensor(found).bfloat16().float().tolist() != found
    assert found == pytest.approx(exact, rel=0.2, abs=0.2)


@pytest.mark.parametrize("everything", [False, True])
def test_term_control_learns_in_bf16_without_autocast(bert: Path, everything: bool) -> None:
    spec = {**CROSS, "params": {"term_control": 0.5}}
    model = load(bert, spec, "bfloat16", train=True).model
    if everything:  # as a distributed engine casts a model
        model.to(dtype=torch.bfloat16)
    (raw,) = model([model.encode(SHORT)])
    ((_, beside),) = raw.extra
    (raw.scores.var() + beside.scores.var()).backward()
    assert all(p.grad is not None for p in model.terms.asks.parameters())
    assert beside.scores.dtype == torch.float32
    assert len(set(beside.scores.tolist())) == len(COLOURS)


def test_an_encoder_decoder_is_refused(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, T5Config, T5Model

    config = T5Config(
        vocab_size=len(WORDS) + 200, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    T5Model(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="T5Model is an encoder-decoder"):
        load(tmp_path, CROSS)


def test_a_head_whose_weights_do_not_fit_is_refused(bert: Path, tmp_path: Path) -> None:
    mlp = {"name": "pair_scores", "params": {"size": 8, "form": "mlp"}}
    bilinear = {"name": "pair_scores", "params": {"size": 8, "form": "bilinear"}}
    for saved, asked in ((mlp, bilinear), (bilinear, mlp)):
        folder = with_head(bert, tmp_path / str(len(str(saved))), saved)
        load(folder, saved)
        with pytest.raises(ModelError, match=r"safetensors: head has weights .*expected before"):
            load(folder, asked)


def test_a_head_is_read_beside_the_adapter_or_the_weights(bert: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = save_bert(tmp_path / "base", classifier=True)
    published = AutoModelForSequenceClassification.from_pretrained(base)
    adapter = tmp_path / "adapter"
    config = LoraConfig(r=2, target_modules=["query"], task_type="FEATURE_EXTRACTION")
    get_peft_model(published.bert, config).save_pretrained(adapter)
    written = json.loads((adapter / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = str(base)
    (adapter / "adapter_config.json").write_text(json.dumps(written))
    head = with_head(bert, tmp_path / "saved", CROSS) / FILE

    shutil.copy(head, adapter / FILE)
    beside = load(adapter, CROSS).model
    shutil.move(adapter / FILE, base / FILE)
    below = load(adapter, CROSS).model
    heads = load(tmp_path / "saved", CROSS).model.heads()
    for model in (beside, below):
        assert not model.published
        assert all(torch.equal(model.heads()[name], weight) for name, weight in heads.items())


def test_scoring_leaves_the_generators_of_gpus_alone(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    torch.manual_seed(torch.initial_seed())
    assert seeds  # what seeding all devices does
    seeds.clear()
    load(bert, CROSS)
    assert not seeds
