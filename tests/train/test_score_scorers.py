"""Stage score with scorers on a tiny encoder: what moves, what losses see, what is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import save_bert
from stage_runs import TRAINING, interrupted, learned, records

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.losses.group import ScoredGroup
from rank_rl.models.scorers.base import FILE
from rank_rl.models.scorers.loading import load_scorer
from rank_rl.rerank import Reranker
from rank_rl.specs import ModelSpec, RecipeSpec
from rank_rl.training import common, score, scorer_trainer
from rank_rl.training.callbacks import measure
from rank_rl.training.scorer_trainer import ScorerTrainer, collate, examples

Recipe = Callable[..., RecipeSpec]
CASES: dict[str, dict[str, Any]] = {
    "cross_encoder": {"name": "cross_encoder", "params": {"term_control": 0.5}},
    "embedding": {"name": "embedding"},
    "listwise": {"name": "embedding", "params": {"listwise": 3, "listwise_order": "own"}},
    "pair_scores": {"name": "pair_scores", "params": {"size": 8}},
}
LOSSES: dict[str, list[dict[str, Any]]] = {
    "cross_encoder": [{"name": "ranknet"}],
    "embedding": [{"name": "info_nce"}],
    "listwise": [{"name": "listnet"}],
    "pair_scores": [{"name": "tsp_margin"}, {"name": "ranknet", "weight": 0.5}],
}


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return save_bert(tmp_path / "bert")


def scorer_recipe(recipe: Recipe, bert: Path, case: str, **sections: Any) -> RecipeSpec:
    return recipe(
        model={"name": str(bert), **sections.pop("model", {})},
        format={**CASES[case], "doc_tokens": 16, "prompt_tokens": 128},
        losses=sections.pop("losses", LOSSES[case]),
        eval={"strategy": {"name": "by_score"}, "readout": "score", **sections.pop("eval", {})},
        **sections,
    )


def trainer_of(spec: RecipeSpec) -> tuple[ScorerTrainer, Any]:
    from transformers import TrainingArguments

    stage = common.begin("score", spec, {})
    args = common.hf_arguments(spec, TrainingArguments, stage.out_dir)
    data, _ = examples(stage)
    objective = score.supervised(spec.losses)
    return ScorerTrainer(stage, objective, args=args, train_dataset=data), data


def scores(folder: Path | str, spec: RecipeSpec) -> list[float]:
    fmt = formats.make(spec.format)
    model = load_scorer(ModelSpec(name=str(folder), autocast="off"), fmt).model
    stage = common.begin("score", spec, {})
    data, _ = examples(stage)
    with torch.no_grad():
        return [s for raw in model([e.encoded for e in data]) for s in raw.scores.tolist()]


@pytest.mark.parametrize("case", CASES)
def test_all_weights_move_and_the_saved_scorer_scores_as_the_trained_one(
    recipe: Recipe, bert: Path, case: str
) -> None:
    spec = scorer_recipe(recipe, bert, case)
    trainer, _ = trainer_of(spec)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trained = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    still = {n for n in trained if torch.equal(before[n], after[n])}
    # No gradient by nature: softmax and pairs do not see a shift of all scores or keys.
    shifts = {"head.bias", "terms.head.bias", "terms.asks.bias", "terms.shows.bias"}
    assert all(n.endswith("key.bias") or n in shifts for n in still), still
    assert not any("pooler" in n for n in trained) and len(trained) > 20

    summary = score.run(spec, {"hash": "abc"})
    assert (summary["stage"], summary["steps"]) == ("score", 2)
    contract = json.loads((Path(summary["checkpoint"]) / "rank_rl.json").read_text())
    assert contract["format"]["name"] == spec.format.name
    assert (contract["readout"], contract["recipe_hash"]) == ("score", "abc")
    assert scores(summary["checkpoint"], spec) != scores(bert, spec)
    best = json.loads((Path(spec.run.output_dir) / "best.json").read_text())
    fmt = formats.make(spec.format)
    saved = load_scorer(ModelSpec(name=summary["checkpoint"], autocast="off"), fmt)
    reranker = Reranker(loaded=saved, fmt=fmt)
    stage = common.begin("score", spec, {})
    tasks = stage.collection.validation
    ndcg = measure("ndcg@10")
    results = reranker.rank_tasks(tasks)
    mean = sum(
        ndcg(r.ranking.docids, t.grades or {}) for r, t in zip(results, tasks, strict=True)
    ) / len(tasks)
    assert mean == pytest.approx(best["eval_ndcg@10"])
    assert all(r.prompt_tokens > 0 and not sum(r.statuses.values()) for r in results)


def test_term_control_is_not_in_the_checkpoint(recipe: Recipe, bert: Path) -> None:
    from safetensors import safe_open

    spec = scorer_recipe(recipe, bert, "cross_encoder")
    summary = score.run(spec, {})
    with safe_open(str(Path(summary["checkpoint"]) / FILE), framework="pt") as file:
        assert set(file.keys()) == {"head.weight", "head.bias"}
    state = Path(spec.run.output_dir) / "checkpoint-2" / "model.safetensors"
    with safe_open(str(state), framework="pt") as file:
        kept = list(file.keys())
    assert any(name.startswith("terms.") for name in kept)  # to go on from


def test_losses_are_those_of_the_main_and_the_further_scores(recipe: Recipe, bert: Path) -> None:
    spec = scorer_recipe(recipe, bert, "cross_encoder")
    trainer, data = trainer_of(spec)
    batch = data[:3]
    trainer.model.train()
    raws = trainer.model([e.encoded for e in batch])
    loss = trainer.compute_loss(trainer.model, collate(batch))
    total = score.losses.make(spec.losses)

    def mean(columns: list[torch.Tensor]) -> float:
        groups = zip(columns, trainer.groups(raws, batch), strict=True)
        found = [total(ScoredGroup(scores=s, grades=g.grades)) for s, g in groups]
        return float((sum(found) / len(found)).detach())

    beside = [raw.extra[0][1].scores for raw in raws]
    expected = mean([raw.scores for raw in raws]) + 0.5 * mean(beside)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_negatives_of_the_batch_are_the_documents_of_other_queries(
    recipe: Recipe, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, data = trainer_of(scorer_recipe(recipe, bert, "embedding"))
    first, second, third = (data[i] for i in range(3))
    # d0 is shown by the first and d1 is relevant to it: neither is a negative of it.
    shown = [("d0", "d2"), ("d0", "d1", "d3"), ("d3", "d2")]
    batch = [
        _showing(trainer, example, docids)
        for example, docids in zip((first, second, third), shown, strict=True)
    ]
    object.__setattr__(batch[0], "relevant", frozenset({"d1"}))
    raws = trainer.model.eval()([e.encoded for e in batch])
    groups = trainer.groups(raws, batch)
    (kept,) = [batch[1].view.docids.index("d3")]
    expected = (raws[1].documents[kept] @ raws[0].query / 0.05).item()
    assert groups[0].others.tolist() == pytest.approx([expected], rel=1e-5)
    assert trainer.groups(raws[:1], batch[:1])[0].others is None


def _showing(trainer: Any, example: Any, docids: tuple[str, ...]) -> Any:
    from dataclasses import replace

    from rank_rl.records import numbered

    by_docid = {c.docid: c for c in example.view.candidates}
    view = numbered(example.view.query, [by_docid[d] for d in docids])
    return replace(
        example,
        view=view,
        grades={d: example.grades[d] for d in docids},
        encoded=trainer.model.encode(view),
        relevant=frozenset(),
    )


@pytest.mark.parametrize("case", ["cross_encoder", "embedding", "pair_scores"])
def test_a_scorer_learns_by_the_losses_of_its_kind(recipe: Recipe, bert: Path, case: str) -> None:
    training = {**TRAINING, "max_steps": 30, "per_device_train_batch_size": 8}
    training = {**training, "learning_rate": 3e-3}
    spec = scorer_recipe(recipe, bert, case, losses=[], training=training)
    score.run(spec, {})
    seen = [r["loss"] for r in learned(spec.run.output_dir)]
    assert sum(seen[-4:]) < 0.6 * sum(seen[:4])


def test_an_adapter_is_trained_and_merged(recipe: Recipe, bert: Path) -> None:
    spec = scorer_recipe(
        recipe,
        bert,
        "cross_encoder",
        model={"lora": {"r": 4, "alpha": 8}},
        training={**TRAINING, "learning_rate": 1e-2},
    )
    summary = score.run(spec, {})
    folder = Path(summary["checkpoint"])
    assert not (folder / "adapter_config.json").exists()
    old, new = (load_scorer(ModelSpec(name=str(f)), formats.make(spec.format)).model.encoder
                for f in (bert, folder))  # fmt: skip
    changed = {n for n, p in new.state_dict().items() if not torch.equal(p, old.state_dict()[n])}
    assert changed and all(n.endswith(".dense.weight") or "attention.self" in n for n in changed)
    assert not any("pooler" in n for n in changed)
    values = [r["eval_selection"] for r in records(spec.run.output_dir) if "eval_selection" in r]
    reranker = Reranker.from_pretrained(folder)
    assert len(values) == 2 and reranker.rank("which house is red?", ["red", "blue"])


@pytest.mark.parametrize("case", CASES)
def test_what_is_trained_over_a_base_in_bf16_is_in_fp32(
    recipe: Recipe, bert: Path, case: str
) -> None:
    model = {"lora": {"r": 2, "alpha": 4}, "dtype": "bfloat16", "autocast": "off"}
    spec = scorer_recipe(recipe, bert, case, model=model)
    trainer, _ = trainer_of(spec)
    named = dict(trainer.model.named_parameters())
    assert {p.dtype for p in named.values() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in named.values() if not p.requires_grad} == {torch.bfloat16}
    before = {n: p.detach().clone() for n, p in named.items() if p.requires_grad}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert any(not torch.equal(before[n], after[n]) for n in before if ".lora_" in n)


def test_lowest_layers_can_be_left_as_they_are(recipe: Recipe, bert: Path) -> None:
    spec = scorer_recipe(recipe, bert, "cross_encoder", model={"freeze_layers": 1})
    trainer, _ = trainer_of(spec)
    trained = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert not any("layer.0." in n or "word_embeddings" in n for n in trained)
    assert any("layer.1." in n for n in trained) and "head.weight" in trained


def test_a_killed_run_ends_as_if_it_had_not_been(recipe: Recipe, bert: Path) -> None:
    from stage_runs import STOPPING

    training = {**TRAINING, "max_steps": 6, "save_steps": 2}
    losses = [STOPPING, {"name": "bce"}]
    whole = scorer_recipe(recipe, bert, "embedding", losses=losses, training=training)
    out = Path(whole.run.output_dir)
    score.run(whole, {})
    broken = scorer_recipe(
        recipe,
        bert,
        "embedding",
        losses=losses,
        training=training,
        run={"output_dir": str(out.with_name("broken"))},
    )
    interrupted(lambda: score.run(broken, {}), calls=2 * 5 + 1)
    summary = score.run(broken, {})
    assert summary["steps"] == 6 and learned(broken.run.output_dir) == learned(out)
    assert scores(summary["checkpoint"], whole) == scores(out / "final", whole)


def test_mined_negatives_replace_those_of_the_views(recipe: Recipe, bert: Path) -> None:
    sampler = {"name": "pool", "size": 2, "negatives": "mined", "refresh": 1}
    data = {**recipe().data.model_dump(), "sampler": sampler}
    spec = scorer_recipe(
        recipe, bert, "embedding", data=data, training={**TRAINING, "max_steps": 3}
    )
    score.run(spec, {})
    mined = [r for r in records(spec.run.output_dir) if "mined_changed" in r]
    assert [r["step"] for r in mined] == [1, 2] and mined[0]["mined_changed"] > 0


@pytest.mark.filterwarnings("error:.*gradient_checkpointing:FutureWarning")
def test_layers_computed_again_for_the_backward_pass_learn_the_same(
    recipe: Recipe, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on: list[bool] = []
    compute = ScorerTrainer.compute_loss

    def seen(self: ScorerTrainer, model: Any, *args: Any, **options: Any) -> Any:
        parts = self.accelerator.unwrap_model(model).modules()
        on.append(any(getattr(part, "gradient_checkpointing", False) for part in parts))
        return compute(self, model, *args, **options)

    monkeypatch.setattr(ScorerTrainer, "compute_loss", seen)
    plain = scorer_recipe(recipe, bert, "cross_encoder")
    score.run(plain, {})
    assert on and not any(on)
    on.clear()
    out = Path(plain.run.output_dir)
    again = scorer_recipe(
        recipe,
        bert,
        "cross_encoder",
        training={**TRAINING, "gradient_checkpointing": True},
        run={"output_dir": str(out.with_name("again"))},
    )
    score.run(again, {})
    assert on and all(on)
    for before, after in zip(learned(out), learned(again.run.output_dir), strict=True):
        assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_stages_that_learn_through_text_refuse_a_scorer(
    recipe: Recipe, bert: Path, stage: str
) -> None:
    with pytest.raises(RecipeError, match="format.name: format 'cross_encoder' writes no text"):
        common.begin(stage, scorer_recipe(recipe, bert, "cross_encoder"), {})


def test_a_loss_that_needs_label_logits_says_so(recipe: Recipe, bert: Path) -> None:
    spec = scorer_recipe(recipe, bert, "cross_encoder", losses=[{"name": "label_ce"}])
    with pytest.raises(RecipeError, match="loss 'label_ce'"):
        score.run(spec, {})


def test_a_twin_takes_over_all_weights(recipe: Recipe, bert: Path) -> None:
    for model in ({}, {"lora": {"r": 2, "alpha": 4}}):
        spec = scorer_recipe(recipe, bert, "cross_encoder", model=model)
        stage = common.begin("score", spec, {})
        state = {k: v.clone() for k, v in stage.loaded.model.state_dict().items()}
        made = common.twin(stage.loaded.model, state, spec.model)
        assert made.state_dict().keys() == state.keys()
        assert all(torch.equal(v, state[k]) for k, v in made.state_dict().items())


def test_collate_keeps_the_examples_in_order() -> None:
    assert scorer_trainer.collate([]) == {"batch": scorer_trainer.ScorerBatch(examples=())}
