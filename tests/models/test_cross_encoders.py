"""Cross-encoders through sentence-transformers: encoders with a head, causal models with labels."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from encoders import save_bert

from rank_rl import Reranker, formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation.cost import foreseen
from rank_rl.models.cross_encoders import CrossEncoderSettings, load_cross_encoder
from rank_rl.models.loading import load
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

pytest.importorskip("sentence_transformers")

# The layout of Qwen3-Reranker's prompt, in words of our own.
SYSTEM = "Say yes if the text answers the question, else no."
CHAT = (
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n<|im_start|>user\n"
    "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
# The same as a chat template of sentence-transformers: roles system, query and document.
PAIRS = (
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n<|im_start|>user\n"
    "<Instruct>: {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content')"
    " | first }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content')"
    " | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content')"
    " | first }}<|im_end|>\n<|im_start|>assistant\n{{ '<think>\n\n</think>\n\n' }}"
)
FIND = "Find the text that answers the question."


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("models") / "bert", classifier=True)


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A tiny Qwen3 whose tokenizer has yes and no as tokens of their own."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.add_tokens(["yes", "no", "<think>", "</think>"])
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Qwen3ForCausalLM(config)
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def with_roles(labelling: Path) -> Path:
    """The same model as it is published for sentence-transformers, saved by its own means."""
    import torch
    from sentence_transformers import CrossEncoder

    folder = labelling.with_name("published")
    shutil.copytree(labelling, folder)
    (folder / "chat_template.jinja").write_text(PAIRS, encoding="utf-8")
    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    model.save_pretrained(str(folder.with_name("saved")))
    return folder.with_name("saved")


def task(qid: str = "q", instruction: str | None = None) -> RankingTask:
    texts = ["the river", "the lake is deep", "who is the father?", "the film", "the lake is deep"]
    return RankingTask(
        query=Query(qid=qid, text="who is the father?", instruction=instruction),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=text, title="a town" if i == 3 else "", rank=i + 1)
            for i, text in enumerate(texts)
        ),
    )


def scores(result: Any) -> dict[str, float]:
    return dict(zip(result.ranking.docids, result.ranking.scores, strict=True))


def test_scores_are_the_logits_of_pairs_and_ties_keep_first_stage_order(bert):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    one = Reranker.from_cross_encoder(bert, device="cpu", batch_size=2)
    first, second = one.rank_tasks([task("a"), task("b")])
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    expected, tokens = {}, 0
    for c in task().candidates:
        inputs = tokenizer(task().query.text, c.content, return_tensors="pt")
        tokens += inputs["input_ids"].numel()
        with torch.no_grad():
            expected[c.docid] = float(model(**inputs).logits[0, 0])
    assert scores(first) == pytest.approx(expected, abs=1e-5)
    assert first.ranking.docids == tuple(sorted(expected, key=lambda d: (-expected[d], d)))
    assert second.ranking.docids == first.ranking.docids
    order = first.ranking.docids
    assert order.index("d1") + 1 == order.index("d4")  # the same text twice
    assert (first.calls, first.depth, first.completion_tokens) == (5, 1, 0)
    assert first.prompt_tokens == tokens and first.seconds > 0
    assert not any(first.statuses.values())  # nothing was written that could be unreadable
    said = first.exchanges[3].prompt.messages
    assert [(m["role"], m["content"]) for m in said] == [
        ("query", "who is the father?"),
        ("document", "a town. the film"),
    ]


def test_several_threads_give_the_scores_of_one(bert, monkeypatch):
    from rank_rl.generation import workers

    monkeypatch.setattr(workers, "LEAST", 20)
    one = Reranker.from_cross_encoder(bert, device="cpu")
    one.workers = 1
    wanted = one.rank_tasks([task(qid) for qid in "abc"])
    one.workers = 2
    got = one.rank_tasks([task(qid) for qid in "abc"])
    assert len(one._workers._copies) == 2
    for ours, own in zip(got, wanted, strict=True):
        assert ours.ranking.docids == own.ranking.docids
        assert scores(ours) == pytest.approx(scores(own), abs=1e-5)


def test_the_cost_is_foreseen_exactly(bert):
    one = Reranker.from_cross_encoder(bert, device="cpu", max_length=12)
    cost = foreseen(one, [task()])
    (result,) = one.rank_tasks([task()])
    assert cost.exact and (cost.calls, cost.depth, cost.documents) == (5, 1, 5)
    assert (cost.prompt_tokens, cost.new_tokens) == (result.prompt_tokens, 0)


def test_what_is_longer_than_the_model_is_cut_and_counted(bert):
    long = " ".join(["the lake"] * 200)
    one = Reranker.from_cross_encoder(bert, device="cpu", max_length=16)
    results = one.rank("who?", [long, "the lake", long + " and the river"])
    assert {r.docid for r in results} == {"1", "2", "3"}
    assert (one.cuts.documents, one.cuts.cut_documents) == (3, 2)
    assert one.cuts.tokens_after < 16 * 3 < one.cuts.tokens_before
    whole = Reranker.from_cross_encoder(bert, device="cpu")
    whole.rank("who?", [long])
    assert whole.cuts.tokens_after == 128  # as long as the model


def test_a_document_cannot_end_the_pair(bert):
    one = Reranker.from_cross_encoder(bert, device="cpu")
    plain, tricky = "the lake sep the river", "the lake [SEP] the river"
    ids = one.asker.model.model.tokenizer(tricky)["input_ids"]
    assert ids.count(3) == 2  # as the tokenizer would read it
    one.rank("who?", [plain, tricky])
    (result,) = one.rank_tasks([one.task("who?", [tricky])])
    assert "[SEP]" not in result.exchanges[0].prompt.messages[-1]["content"]


def wording(folder: Path) -> str:
    """A wording file of the same layout, as a user would write it from a model card."""
    import yaml

    texts = {
        "version": 1,
        "system": SYSTEM,
        "user": "{instruction}<Query>: {query}\n{document}{task}",
        "instruction": "<Instruct>: {instruction}\n",
        "no_instruction": f"<Instruct>: {FIND}\n",
        "document": "<Document>: {hint}{text}",
        "hint_rank": "(rank {rank}) ",
        "hint_score": "(score {score}) ",
        "rubric": "",
        "reason": "{rubric}",
        "answer": "{rubric}",
    }
    path = folder / "_labels.yaml"
    path.write_text(yaml.safe_dump({"reranker": texts}), encoding="utf-8")
    return f"{path}:reranker"


def label_format(folder: Path) -> FormatSpec:
    params = {"labels": ["no", "yes"], "prefill": "<think>\n\n</think>\n\n"}
    named = {"wording": wording(folder), "doc_tokens": 64, "params": params}
    return FormatSpec(name="pointwise", mode="answer", **named)


def test_a_label_reranker_is_asked_exactly_in_the_layout_of_its_card(labelling, tmp_path):
    fmt = formats.make(label_format(tmp_path))
    loaded = load(ModelSpec(name=str(labelling), autocast="off"), device="cpu")
    one = Reranker(
        loaded=loaded,
        fmt=fmt,
        strategy=StrategySpec(name="by_score", params={"size": 1}),
        readout="score",
    )
    (result,) = one.rank_tasks([task(instruction=FIND)])
    view = result.exchanges[1].view
    text = CHAT.format(instruction=FIND, query=view.query.text, document="the lake is deep")
    assert one.asker.tokens.encode_prompt(result.exchanges[1].prompt) == loaded.tokenizer.encode(
        text, add_special_tokens=False
    )
    # The labels follow at once, without a space.
    assert fmt.choices(view) == ("no", "yes") and fmt.lead(view) == "<think>\n\n</think>\n\n"
    slots = result.exchanges[1].completion.slots["1"]
    assert set(slots) == {"no", "yes"}
    weight = scores(result)["d1"] / (slots["yes"] - slots["no"])
    assert weight == pytest.approx(1.0)  # the log-odds of yes
    (again,) = one.rank_tasks([task()])  # where a query says nothing, the wording does
    assert scores(again) == pytest.approx(scores(result), abs=1e-5)
    # An answer that was written is read as one, thoughts or none before it.
    lead = fmt.lead(view)
    assert fmt.parse("yes", view, prefill=lead).status == "ok"
    assert fmt.parse("yes", view, prefill=lead).answer.values == {"d1": 1.0}
    assert fmt.ideal(view, {"d1": 1}) == lead + "yes"


def test_the_library_and_the_label_readout_agree_on_a_label_reranker(
    labelling, with_roles, tmp_path
):
    loaded = load(ModelSpec(name=str(labelling), autocast="off"), device="cpu")
    ours = Reranker(
        loaded=loaded,
        fmt=formats.make(label_format(tmp_path)),
        strategy=StrategySpec(name="by_score", params={"size": 1}),
        readout="score",
    )
    theirs = Reranker.from_cross_encoder(with_roles, device="cpu", instructions=True)
    (first,), (second,) = (
        ours.rank_tasks([task(instruction=FIND)]),
        theirs.rank_tasks([task(instruction=FIND)]),
    )
    assert len(set(scores(first).values())) == 4
    assert scores(second) == pytest.approx(scores(first), abs=1e-3)
    assert second.ranking.docids == first.ranking.docids
    assert second.prompt_tokens == sum(
        len(loaded.tokenizer.encode(CHAT.format(instruction=FIND, query=task().query.text,
                                                document=c.content), add_special_tokens=False))
        for c in task().candidates
    )  # fmt: skip
    said = second.exchanges[0].prompt.messages[0]
    assert said == {"role": "instruction", "content": FIND}


def test_the_instruction_is_the_querys_own_or_one_for_all(with_roles):
    def ranked(**settings: Any) -> list[dict[str, float]]:
        one = Reranker.from_cross_encoder(with_roles, device="cpu", **settings)
        tasks = [task("a", instruction=FIND), task("b"), task("c", instruction="Other things.")]
        return [scores(r) for r in one.rank_tasks(tasks)]

    own = ranked(prompt="Find it.", instructions=True)
    same = ranked(prompt="Find it.")
    assert same[1] == pytest.approx(same[0], abs=1e-4)
    assert same[2] == pytest.approx(same[0], abs=1e-4)
    assert own[1] == pytest.approx(same[1], abs=1e-4)
    assert own[0] != pytest.approx(same[0], abs=1e-4)
    assert own[2] != pytest.approx(own[0], abs=1e-4)


def test_a_long_document_keeps_the_end_of_the_chat(with_roles):
    long = " ".join(["the lake"] * 600)
    one = Reranker.from_cross_encoder(with_roles, device="cpu", max_length=160, prompt=FIND)
    (result,) = one.rank_tasks([one.task("who?", [long])])
    assert result.prompt_tokens == 160 and one.cuts.cut_documents == 1
    model = one.asker.model.model
    ids = model.preprocess([("who?", long)], prompt=FIND)["input_ids"][0]
    assert model.tokenizer.decode(ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def changed(folder: Path, target: Path, **values: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **values}))
    return target


def test_what_is_no_cross_encoder_is_one_line(bert, labelling, tmp_path, monkeypatch):
    def refused(folder: Path | str, **settings: Any) -> str:
        with pytest.raises((ModelError, RecipeError)) as caught:
            load_cross_encoder(str(folder), CrossEncoderSettings(**settings), device="cpu")
        assert "\n" not in caught.value.line()
        return caught.value.line()

    headless = save_bert(tmp_path / "headless")
    assert "has no head that scores (BertModel)" in refused(headless)
    labels = {"0": "a", "1": "b", "2": "c"}
    many = changed(
        bert, tmp_path / "many", id2label=labels, label2id={v: k for k, v in labels.items()}
    )
    assert "cannot be used as a cross-encoder" in refused(many) or "gives 3" in refused(many)
    assert "expected at most 128" in refused(bert, max_length=500)
    assert "no such folder" in refused(tmp_path / "gone")
    assert "unset HF_HUB_OFFLINE to download it" in refused("owner/name-that-is-not-here")
    # A chat template for users alone shows neither query nor document.
    chatting = Path(shutil.copytree(labelling, tmp_path / "chatting"))
    users = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>user\n{{ m['content'] }}"
        "<|im_end|>{% endif %}{% endfor %}"
    )
    (chatting / "chat_template.jinja").write_text(users)
    assert "chat template" in refused(chatting)
    broken = Path(shutil.copytree(bert, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"nothing")
    assert "cannot be used as a cross-encoder" in refused(broken)
    pickled = Path(shutil.copytree(bert, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "safetensors" in refused(pickled)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert "pip install 'rank-rl[baselines]'" in refused(bert)


def test_labels_that_are_no_tokens_are_not_asked(tiny_model_dir, tmp_path):
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(PAIRS)
    with pytest.raises(ModelError, match="no tokens 'yes' and 'no'.*format pointwise, labels"):
        load_cross_encoder(str(folder), device="cpu")


def test_settings_belong_to_a_model_and_not_to_the_name(bert):
    found = load_cross_encoder(str(bert), CrossEncoderSettings(batch_size=3), device="cpu")
    assert found.revision.startswith("files:") and found.name == str(bert)
    assert replace(found, name="x").settings.batch_size == 3
