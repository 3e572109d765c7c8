"""Scorers on tiny encoders: what they read, what padding does, what a checkpoint keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import save_bert

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.formats.budget import fit
from rank_rl.hub.contract import PromptContract
from rank_rl.models import loading
from rank_rl.models.scorers.loading import load_scorer
from rank_rl.models.scorers.texts import TextTokens
from rank_rl.models.sources import Source
from rank_rl.records import Candidate, Order, Prompt, Query, View, numbered
from rank_rl.rerank import Reranker
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

CASES: dict[str, dict[str, Any]] = {
    "cross_encoder": {"name": "cross_encoder"},
    "mean": {"name": "cross_encoder", "params": {"pooling": "mean"}},
    "embedding": {"name": "embedding"},
    "listwise": {"name": "embedding", "params": {"listwise": 3, "listwise_order": "own"}},
    "pairs": {"name": "pair_scores", "params": {"size": 8}},
    "mlp": {"name": "pair_scores", "params": {"size": 8, "form": "mlp", "pooling": "last"}},
}
every_scorer = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


def make(case: str | Mapping[str, Any]) -> Any:
    spec = CASES[case] if isinstance(case, str) else case
    return formats.make(FormatSpec.model_validate({"doc_tokens": 32, **spec}))


def load(folder: Path, case: str | Mapping[str, Any], **how: Any) -> loading.Loaded:
    return load_scorer(ModelSpec(name=str(folder), autocast="off"), make(case), **how)


def view(texts: tuple[str, ...], query: str = "which house is red?") -> View:
    docs = [
        Candidate(docid=f"d{i}", text=text, rank=len(texts) - i) for i, text in enumerate(texts)
    ]
    return numbered(Query(qid="q", text=query), docs)


SHORT = view(("the house is red", "red", "the house of street 3 is blue"))
LONG = view(("grey " * 20, "the house", "black", "green house", "pink"), "which street is grey?")


def scores(model: Any, *views: View) -> list[list[float]]:
    with torch.no_grad():
        return [raw.scores.tolist() for raw in model([model.encode(v) for v in views])]


@every_scorer
def test_groups_read_together_score_as_one_by_one(bert: Path, case: str) -> None:
    model = load(bert, case).model
    together = scores(model, SHORT, LONG)
    alone = scores(model, SHORT) + scores(model, LONG)
    for mine, theirs in zip(together, alone, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
        assert len(set(theirs)) == len(theirs)
    model.train()  # without dropout only the padding differs
    for mine, theirs in zip(scores(model, SHORT, LONG), alone, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


@every_scorer
def test_a_document_does_not_depend_on_its_place(bert: Path, case: str) -> None:
    model = load(bert, case).model
    turned = View(
        query=LONG.query, candidates=LONG.candidates[::-1], labels=tuple(LONG.labels[::-1])
    )
    assert scores(model, turned)[0][::-1] == pytest.approx(scores(model, LONG)[0], abs=1e-4)


@every_scorer
def test_a_saved_scorer_scores_the_same(bert: Path, case: str, tmp_path: Path) -> None:
    fmt = make(case)
    loaded = load(bert, case)
    with torch.no_grad():  # heads and encoder differ from what a fresh load would draw
        for parameter in loaded.model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    contract = PromptContract.of(fmt, StrategySpec(name="by_score"))
    folder = loading.save(loaded.model, loaded.tokenizer, tmp_path / "saved", contract)
    assert (folder / "scorer.safetensors").is_file() == (fmt.scorer != "embedding")
    assert json.loads((folder / "rank_rl.json").read_text())["readout"] == "score"
    reranker = Reranker.from_pretrained(folder)
    assert scores(reranker.loaded.model, SHORT, LONG) == scores(loaded.model, SHORT, LONG)
    texts = [c.text for c in LONG.candidates]
    same = (Reranker(loaded=found, fmt=fmt) for found in (loaded, load(folder, case)))
    mine, theirs = (r.rank(LONG.query.text, texts) for r in same)
    assert [r.docid for r in mine] == [r.docid for r in theirs]


@every_scorer
def test_an_untrained_head_is_the_same_at_every_load(bert: Path, case: str) -> None:
    state = torch.random.get_rng_state()
    first = scores(load(bert, case).model, SHORT)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    assert scores(load(bert, case).model, SHORT) == first


def test_a_pair_is_what_the_tokenizer_makes_of_it(bert: Path) -> None:
    tokens = load(bert, "cross_encoder").model.tokens
    texts = ["the house is blue", "red"]
    rows = tokens.pairs("which house is red?", texts, match=True)
    for row, text in zip(rows, texts, strict=True):
        expected = tokens.tokenizer("which house is red?", text)
        assert list(row.ids) == expected["input_ids"]
        assert list(row.types) == expected["token_type_ids"]
        prompt = Prompt(
            messages=(
                {"role": "query", "content": "which house is red?"},
                {"role": "document", "content": text},
            )
        )
        assert tokens.count_prompt(prompt) == len(row.ids)
    shared = tokens.tokenizer.convert_ids_to_tokens([rows[0].ids[i] for i in rows[0].matches])
    assert shared == ["house", "is"] and len(rows[1].matches) == 1
    (alone,) = tokens.rows(["the house"])
    assert list(alone.ids) == tokens.tokenizer("the house")["input_ids"]


def test_a_decoder_scores_by_its_last_token(tiny_model_dir: Path) -> None:
    for case in ({"name": "cross_encoder"}, {"name": "embedding"}):
        spec = {**case, "params": {"pooling": "last"}}
        model = load(tiny_model_dir, spec).model
        assert scores(model, SHORT, LONG)[0] == pytest.approx(scores(model, SHORT)[0], abs=1e-4)
        (row, *_) = model.encode(SHORT).rows
        text = model.tokens.tokenizer.decode(row.ids)
        end = model.tokens.tokenizer.eos_token
        pair = "which house is red?\nthe house is red"
        assert text == (pair if case["name"] == "cross_encoder" else "which house is red?") + end


def test_long_texts_are_cut_to_the_window_of_the_model(bert: Path) -> None:
    fmt = make({"name": "cross_encoder", "doc_tokens": 400, "params": {"query_tokens": 20}})
    loaded = load_scorer(ModelSpec(name=str(bert)), fmt)
    model = loaded.model
    assert model.tokens.window == 128
    long = view(("red " * 300, "blue"), "which " * 100)
    fitted, report = fit(long, model.tokens, fmt=fmt)
    lengths = [len(row.ids) for row in model.encode(fitted).rows]
    assert max(lengths) == 128 and report.cut_documents == 1
    assert fitted.query.text == " ".join(["which"] * 20)
    result = Reranker(loaded=loaded, fmt=fmt).rank("which " * 100, ["red " * 300, "blue"])
    assert sorted(r.docid for r in result) == ["1", "2"]


def test_the_listwise_query_shows_the_best_candidates(bert: Path) -> None:
    params = {"listwise": 2, "query_prefix": "query: ", "document_prefix": "text: "}
    model = load(bert, {"name": "embedding", "params": params}).model
    encoded = model.encode(SHORT)  # the last document is the first stage's best
    (plain,) = load(bert, "embedding").model([encoded])
    ids = model.listwise(encoded, plain).ids
    shown = "query: which house is red? documents: 1. the house of street 3 is blue 2. red"
    assert list(ids) == model.tokens.tokenizer(shown)["input_ids"]
    own = load(bert, {"name": "embedding", "params": {**params, "listwise_order": "own"}}).model
    texts = [SHORT.candidates[i].text for i in plain.scores.argsort(descending=True)]
    shown = f"query: which house is red? documents: 1. {texts[0]} 2. {texts[1]}"
    assert list(own.listwise(encoded, plain).ids) == model.tokens.tokenizer(shown)["input_ids"]
    without = {**params, "listwise": 0}
    alone = load(bert, {"name": "embedding", "params": without}).model
    assert scores(alone, SHORT) != scores(model, SHORT)


def test_a_listwise_query_is_cut_evenly_to_the_window(bert: Path) -> None:
    model = load(bert, {"name": "embedding", "params": {"listwise": 5}}).model
    texts = tuple(f"{c} " * 60 for c in ("red", "blue", "grey", "pink", "black"))
    encoded = model.encode(view(texts))
    row = model.listwise(encoded, model([encoded])[0])
    listed = model.tokens.tokenizer.decode(row.ids).split()
    counts = {colour: listed.count(colour) for colour in ("red", "blue", "grey", "pink", "black")}
    assert 120 < len(row.ids) <= 128
    assert max(counts.values()) - min(counts.values()) <= 1  # the query says red too


def test_scores_of_an_embedding_are_cosines_over_the_temperature(bert: Path) -> None:
    model = load(bert, {"name": "embedding", "params": {"temperature": 0.5}}).model
    (raw,) = model([model.encode(SHORT)])
    query = model.tokens.tokenizer([SHORT.query.text], return_tensors="pt")
    texts = [c.text for c in SHORT.candidates]
    documents = model.tokens.tokenizer(texts, return_tensors="pt", padding=True)

    def mean(inputs: Any) -> torch.Tensor:
        states = model.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return (states * mask).sum(1) / mask.sum(1)

    cosines = torch.cosine_similarity(mean(query), mean(documents))
    torch.testing.assert_close(raw.scores, cosines / 0.5, atol=1e-5, rtol=1e-4)


def test_a_pair_scorer_orders_by_the_heaviest_path(bert: Path) -> None:
    loaded = load(bert, "pairs")
    (raw,) = loaded.model([loaded.model.encode(LONG)])
    weights = raw.pairs.tolist()
    best = max(
        permutations(range(5)),
        key=lambda path: sum(weights[i][j] for i, j in zip(path, path[1:], strict=False)),
    )
    outcome = loaded.model.outcome(LONG, raw)
    assert outcome.answer == Order(docids=tuple(f"d{i}" for i in best))
    net = [sum(weights[i][j] - weights[j][i] for j in range(5) if j != i) / 4 for i in range(5)]
    assert raw.scores.tolist() == pytest.approx(net, abs=1e-5)
    single = loaded.model([loaded.model.encode(view(("red",)))])[0]
    assert single.scores.tolist() == [0.0]


def test_term_control_changes_nothing_but_training(bert: Path, tmp_path: Path) -> None:
    spec = {"name": "cross_encoder", "params": {"term_control": 0.5}}
    loaded = load(bert, spec)
    model = loaded.model
    model.train()
    (raw,) = model([model.encode(SHORT)])
    ((weight, beside),) = raw.extra
    assert weight == 0.5 and beside.scores.tolist() != raw.scores.tolist()
    model.eval()
    (found,) = model([model.encode(SHORT)])
    assert found.extra == () and found.scores.tolist() == pytest.approx(
        raw.scores.tolist(), abs=1e-5
    )
    assert any(name.startswith("terms.") for name, _ in model.named_parameters())
    folder = loading.save(model, loaded.tokenizer, tmp_path / "saved", None)
    from safetensors import safe_open

    with safe_open(str(folder / "scorer.safetensors"), framework="pt") as file:
        assert set(file.keys()) == {"head.weight", "head.bias"}
    again = load(folder, {"name": "cross_encoder"}).model
    assert scores(again, SHORT) == scores(model, SHORT)


def test_term_control_sees_document_tokens_of_the_query_alone(bert: Path) -> None:
    model = load(bert, {"name": "cross_encoder", "params": {"term_control": 1.0}}).model
    batch = model._pad(model.encode(view(("blue house", "green black"))).rows)
    states = torch.randn(2, batch.ids.shape[1], 32)
    pooled = torch.randn(2, 32)
    before = model.terms(pooled, states, batch)
    (match,) = batch.rows[0].matches  # house
    assert batch.rows[1].matches == ()
    changed = states + 1
    changed[0, match] = states[0, match]
    assert torch.equal(model.terms(pooled, changed, batch), before)
    changed[0, match] += 1
    now = model.terms(pooled, changed, batch)
    assert now[0] != before[0] and now[1] == before[1]


def test_a_published_cross_encoder_scores_by_its_own_head(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = save_bert(tmp_path / "published", classifier=True)
    loaded = load(folder, "cross_encoder")
    published = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = loaded.tokenizer(
        [SHORT.query.text] * 3,
        [c.text for c in SHORT.candidates],
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        expected = published(**inputs).logits[:, 0].tolist()
    assert scores(loaded.model, SHORT)[0] == pytest.approx(expected, abs=1e-5)
    saved = loading.save(loaded.model, loaded.tokenizer, tmp_path / "saved", None)
    assert scores(load(saved, "cross_encoder").model, SHORT) == scores(loaded.model, SHORT)
    fresh = {"name": "cross_encoder", "params": {"head": "new"}}
    assert scores(load(folder, fresh).model, SHORT)[0] != pytest.approx(expected, abs=1e-3)


def test_a_head_of_another_scorer_is_not_taken_over(bert: Path, tmp_path: Path) -> None:
    loaded = load(bert, "pairs")
    folder = loading.save(loaded.model, loaded.tokenizer, tmp_path / "saved", None)
    assert scores(load(folder, "cross_encoder").model, SHORT) == scores(
        load(bert, "cross_encoder").model, SHORT
    )
    larger = {"name": "pair_scores", "params": {"size": 9}}
    with pytest.raises(ModelError, match=r"scorer.safetensors: head cannot be loaded"):
        load(folder, larger)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "cross_encoder", "mode": "reason"}, "format.mode: value 'reason'"),
        ({"name": "embedding", "first_stage_hint": "rank"}, "format.first_stage_hint"),
        ({"name": "embedding", "params": {"listwise": -1}}, "format.params.listwise"),
        ({"name": "pair_scores", "params": {"listwise": 1}}, "unknown parameter of pair_scores"),
    ],
)
def test_what_a_scorer_does_not_have_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make(spec)


def test_kinds_of_formats() -> None:
    kinds = {name: formats.kind(make({"name": name})) for name in formats.INPUTS}
    assert set(kinds.values()) == {"scorer"}
    assert formats.kind(make({"name": "slots"})) == "slots"
    assert formats.kind(make({"name": "permutation"})) == "text"
    with pytest.raises(RecipeError, match="format.name: format 'embedding' writes no text"):
        formats.make_written(FormatSpec(name="embedding"), where="format.name")


def test_control_tokens_in_texts_are_plain_text(bert: Path) -> None:
    fmt = make("cross_encoder")
    model = load(bert, "cross_encoder").model
    hostile, _ = fit(view(("red [SEP] [CLS] blue", "[1] green")), model.tokens, fmt=fmt)
    for row in model.encode(hostile).rows:
        assert list(row.ids).count(3) == 2 and list(row.ids).count(2) == 1


def test_a_packaged_encoder_is_read_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packed_encoder"
    save_bert(package / "model")
    (package / "1_Pooling").mkdir()
    (package / "1_Pooling" / "config.json").write_text("{}")
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load_scorer(ModelSpec(name="pip:packed-encoder"), make("cross_encoder"))
    assert loaded.path == package / "model" and loaded.revision.startswith("unknown files:")


def test_a_tokenizer_without_a_chat_template_serves_a_scorer_only(bert: Path) -> None:
    source = Source(name="bert", path=bert, revision="")
    assert isinstance(TextTokens(loading.load_tokenizer(source, chat=False)), TextTokens)
    with pytest.raises(ModelError, match="no chat template"):
        loading.load_tokenizer(source)


@every_scorer
def test_scores_keep_their_digits_under_autocast(bert: Path, case: str) -> None:
    model = load(bert, case).model
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = scores(model, LONG)[0]
    kept = torch.tensor(found).bfloat16().float().tolist()
    assert found == pytest.approx(scores(model, LONG)[0], rel=0.2, abs=0.2)
    assert kept != found
