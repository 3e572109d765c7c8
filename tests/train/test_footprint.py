"""What a step is said to compute and to hold, against what trainers and models really do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rank_rl.errors import ModelError
from rank_rl.models import loading, shared_prefix
from rank_rl.models.packed_attention import attending, seeing
from rank_rl.models.packing import pack
from rank_rl.specs import LoraSpec, ModelSpec, RecipeSpec
from rank_rl.training import common, footprint, grpo_text, sft, slot_trainer, workload
from rank_rl.training.footprint import Setting
from rank_rl.training.forecast import config_of, forecast, validation_seconds
from rank_rl.training.probe import Fit, Probe
from rank_rl.training.shared_pass import SharedPass
from rank_rl.training.workload import Generation, Pass, Step

Recipe = Callable[..., RecipeSpec]
SLOTS = {"name": "slots", "mode": "answer"}
REWARDS = [{"name": "ndcg"}]
PLAIN = Setting(checkpointing=False, mixed=False, optimizer_bytes=8, reference=False, chunk=1024)


def sizes(values: list[int]) -> tuple[int, int]:
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[-1]


def steps_of(name: str, spec: RecipeSpec) -> tuple[common.Stage, list[Step]]:
    stage = common.begin(name, spec, {})
    pairs, _ = common.training_views(stage)
    return stage, workload.step_of(name, spec, stage.fmt, pairs, stage.tokens)[0]


def test_score_packs_what_the_trainer_packs(recipe: Recipe) -> None:
    stage, (step,) = steps_of("score", recipe(format=SLOTS))
    made, _ = slot_trainer.examples(stage)
    batches = [slot_trainer.collate(made[i : i + 2])["batch"].packed for i in range(0, 8, 2)]
    tokens = [b.input_ids.shape[1] for b in batches]
    assert (step.typical.tokens, step.largest.tokens) == sizes(tokens)
    assert step.typical.packed
    assert step.typical.read == len(batches[0].slots) == 8
    assert step.generation is None and step.micro == 1


def test_sft_reads_the_rows_of_the_trainer(recipe: Recipe) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    spec = recipe(training={"gradient_accumulation_steps": 2})
    stage, (step,) = steps_of("sft", spec)
    rows, _ = sft.training_rows(stage)
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    batches = [collate(rows[i : i + 2]) for i in range(0, 8, 2)]
    numbers = [b["input_ids"].numel() for b in batches]
    assert (step.typical.tokens, step.largest.tokens) == sizes(numbers)
    read = {int((b["labels"] != sft.IGNORED).sum()) for b in batches}
    assert step.typical.read in read
    assert step.micro == 2 and not step.typical.packed


def test_grpo_computes_a_prompt_once_a_group(recipe: Recipe) -> None:
    prompts, group, new = [[5, 9, 14, 20, 7, 3], [5, 21, 8, 9]], 4, 3
    rows = [[0] * (6 - len(p)) + p + [30, 31, 32] for p in prompts for _ in range(group)]
    ids = torch.tensor(rows)
    shared = shared_prefix.share(ids, (ids != 0).long(), new)
    assert shared is not None
    order = [(n, len(p)) for n, p in enumerate(prompts) for _ in range(group)]
    packed, plain = (workload.grouped(order, new, share=share) for share in (True, False))
    assert packed.tokens == shared.tokens == (5 + 16) + (3 + 16)
    assert packed.read == int(shared.real.sum()) == 24
    assert plain.tokens == ids.numel() == 8 * 9
    # Nothing is shared where every row has a prompt of its own.
    assert not workload.grouped([(0, 6), (1, 6)], new, share=True).packed


def test_grpo_in_a_run(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, int, int]] = []
    before = SharedPass._run

    def run(self: SharedPass, model: Any, shared: shared_prefix.Shared, *rest: Any) -> Any:
        if torch.is_grad_enabled():
            lengths = shared.real.sum(1)
            passes.append((shared.tokens, int(lengths.min()), int(lengths.max())))
        return before(self, model, shared, *rest)

    monkeypatch.setattr(SharedPass, "_run", run)
    spec = recipe(
        rewards=REWARDS,
        training={"num_generations": 4, "per_device_train_batch_size": 4, "max_steps": 4,
                  "max_completion_length": 60, "gradient_accumulation_steps": 2},
    )  # fmt: skip
    stage, steps = steps_of("grpo", spec)
    pairs, _ = common.training_views(stage)
    prompts = [stage.tokens.count_prompt(stage.fmt.render(view)) for _, view in pairs]
    said = [workload.grouped([(0, size)] * 4, 60, share=True).tokens for size in prompts]
    grpo_text.run(spec, {})
    whole = {tokens for tokens, least, most in passes if least == most == 60}
    assert whole and whole <= set(said)  # an untrained model rarely ends an answer
    assert (steps[-1].typical.tokens, steps[-1].largest.tokens) == sizes(said)
    assert len(passes) == 4 * steps[-1].micro
    assert steps[-1].generation.rows == 8
    assert steps[-1].generation.batches == 1
    assert steps[0].generation is not None and steps[0].generation.new < 60


def test_reference_and_old_policy_are_passes_of_their_own(recipe: Recipe) -> None:
    more = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 60}
    for extra, forward in (({}, 0), ({"beta": 0.1}, 1), ({"beta": 0.1, "num_iterations": 2}, 2)):
        _, steps = steps_of("grpo", recipe(rewards=REWARDS, training={**more, **extra}))
        assert steps[0].forward == forward
    assert steps[0].generation is not None and steps[0].generation.batches == 0.5


@pytest.mark.parametrize("lora", [None, LoraSpec(r=4)])
@pytest.mark.parametrize("freeze", [0, 1])
def test_weights_gradients_and_moments(
    tiny_model_dir: Path, lora: LoraSpec | None, freeze: int
) -> None:
    if lora and freeze:
        pytest.skip("refused together")
    spec = ModelSpec(name=str(tiny_model_dir), dtype="float32", lora=lora, freeze_layers=freeze)
    known = footprint.counts(spec, config_of(spec), torch.float32)
    model = loading.load(spec, train=True).model
    model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    stepper = torch.optim.AdamW(trained)
    stepper.step()
    assert known.elements == sum(p.numel() for p in model.parameters())
    assert known.bytes == sum(p.nbytes for p in model.parameters())
    assert known.trained_bytes == sum(p.grad.nbytes for p in trained if p.grad is not None)
    moments = [x for s in stepper.state.values() for k, x in s.items() if k.startswith("exp")]
    assert PLAIN.optimizer_bytes * known.trained == sum(x.nbytes for x in moments)
    assert known.head_trained == (not lora and not freeze)
    assert known.head == 64 * known.vocabulary
    assert (known.layers, known.frozen) == (2, freeze)


def four_layers(folder: Path) -> Any:
    config = config_of(ModelSpec(name=str(folder)))
    config.num_hidden_layers = 4
    return config


def kept(model: Any, run: Callable[[], torch.Tensor]) -> int:
    """Bytes that a pass keeps for its backward pass."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        out = run()
    del out
    return sum(found.values())


@pytest.mark.parametrize("lora", [None, LoraSpec(r=4)])
@pytest.mark.parametrize(
    "one",
    [
        Pass(groups=((200, (20, 25, 30)), (150, (40, 10))), read=5),
        Pass(groups=((0, (120, 90, 150)),), read=60),
    ],
)
def test_activations(tiny_model_dir: Path, lora: LoraSpec | None, one: Pass) -> None:
    from transformers import AutoModelForCausalLM

    spec = ModelSpec(name=str(tiny_model_dir), dtype="float32", lora=lora)
    config = four_layers(tiny_model_dir)
    probe = Probe(spec, config, dtype=torch.float32, autocast=None)
    known = footprint.counts(spec, config, torch.float32)
    _, _, fitted = probe.layer(one)
    rates = footprint.Rates(train=Fit(), forward=Fit(), kept=fitted, head_base=0, head_token=0)
    said = footprint.activations(one, known, PLAIN, rates)

    model = loading.make_trainable(AutoModelForCausalLM.from_config(config), spec)
    base = model.get_base_model() if lora else model
    if one.packed:
        batch = pack([([1] * p, [[1] * n for n in own]) for p, own in one.groups])
        with attending(base, "gather"):
            real = kept(model, lambda: base.model(
                input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False,
                **seeing(base, batch, "gather"),
            ).last_hidden_state)  # fmt: skip
    else:
        ids = torch.ones(3, 150, dtype=torch.long)
        mask = (torch.arange(150) < torch.tensor([[120], [90], [150]])).long()
        real = kept(model, lambda: base.model(
            input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state)  # fmt: skip
    assert 0.7 * real <= said <= 1.3 * real


def test_the_peak_is_the_largest_moment(tiny_model_dir: Path) -> None:
    spec = ModelSpec(name=str(tiny_model_dir), dtype="float32")
    known = footprint.counts(spec, config_of(spec), torch.float32)
    one = Pass(groups=((10, (5, 5)),), read=8)
    step = Step(typical=one, largest=one, micro=1)
    rates = footprint.Rates(
        train=Fit(), forward=Fit(), kept=Fit(token=1000.0), head_base=0, head_token=0
    )
    found = footprint.memory(step, known, PLAIN, rates, process=7.0)
    head = 4 * known.head
    assert found.always == {"process": 7.0, "weights": 4.0 * known.trained,
                            "optimizer": 8.0 * known.trained, "reference model": 0.0}  # fmt: skip
    assert found.moments["activations"] == 2 * 20_000 + 18 * 8 * known.vocabulary + head
    assert found.moments["gradients"] == 4 * known.trained + head + 20_000
    assert found.peak == 7 + 12 * known.trained + max(found.moments.values())
    saving = footprint.memory(step, known, footprint.with_checkpointing(PLAIN), rates, process=7.0)
    less = found.moments["activations"] - saving.moments["activations"]
    assert less == 2 * 20_000 - (20_000 + 2 * 20 * 64 * 4)
    # A second micro-batch begins with the gradients of the first.
    twice = footprint.memory(
        Step(typical=one, largest=one, micro=2), known, PLAIN, rates, process=7.0
    )
    assert twice.moments["activations"] - found.moments["activations"] == 4 * known.trained


def test_a_fit_goes_through_its_points_and_never_shrinks() -> None:
    short, long = (Pass(groups=((0, (n, n)),), read=1) for n in (10, 100))
    fit = Fit.through([(short, 2.0 * 20 + 0.5 * short.pairs), (long, 400.0 + 0.5 * long.pairs)])
    assert fit.token == pytest.approx(2.0) and fit.pair == pytest.approx(0.5)
    slower = Fit.through([(short, 50.0), (long, 60.0)])
    assert slower(long) == pytest.approx(60.0) and slower(short) == pytest.approx(50.0)
    noise = Fit.through([(short, 50.0), (long, 40.0)])
    assert noise(long) == pytest.approx(40.0) and noise(short) == pytest.approx(4.0)


def test_seconds_add_up(tiny_model_dir: Path) -> None:
    spec = ModelSpec(name=str(tiny_model_dir), dtype="float32")
    known = footprint.counts(spec, config_of(spec), torch.float32)
    one = Pass(groups=((10, (5, 5)),), read=8)
    made = Generation(prompts=(11, 11), group=2, new=4, shared=True, batches=0.5)
    step = Step(typical=one, largest=one, micro=3, forward=1, generation=made)
    rates = footprint.Rates(
        train=Fit(token=3.0), forward=Fit(token=1.0), kept=Fit(), head_base=6.0, head_token=3.0,
        prefill=1.0, decode=10.0, sample=5.0, optimizer=2.0,
    )  # fmt: skip
    found = footprint.seconds(step, known, PLAIN, rates)
    assert found == {
        "generation": 0.5 * (2 * 22 + 4 * (2 * 10 + 5)),
        "reference": 3 * (2 * 20 + 10.0),
        "training": 3 * (2 * 60 + 6 + 24),
        "optimizer": 2.0,
    }
    saving = footprint.seconds(step, known, footprint.with_checkpointing(PLAIN), rates)
    assert saving["training"] - found["training"] == 3 * 2 * 20


@pytest.mark.parametrize("stage", ["score", "sft", "grpo"])
def test_a_forecast_of_every_stage(recipe: Recipe, stage: str) -> None:
    more = {"format": SLOTS} if stage == "score" else {"rewards": REWARDS}
    training = {"num_generations": 2, "max_completion_length": 60} if stage == "grpo" else {}
    spec = recipe(**more, training=training, eval={"max_new_tokens": 5})
    begun, _ = steps_of(stage, spec)
    pairs, _ = common.training_views(begun)
    found = forecast(stage, spec, begun.fmt, pairs, begun.tokens)
    parts = found.seconds()
    assert parts["training"] > 0 and parts["optimizer"] > 0
    assert (parts["generation"] > 0) == (stage == "grpo")
    assert found.memory().peak > found.process + 12 * found.known.trained
    assert found.updates == 2
    new = None if stage == "score" else 5
    once, twice = (validation_seconds(found, calls=n, prompt=50.0, new=new) for n in (8, 16))
    assert 0 < once < twice
    counted = forecast(stage, spec, begun.fmt, pairs, begun.tokens, clock=None)
    assert counted.rates is None
    assert counted.memory().peak < found.memory().peak


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not there yet"):
        config_of(ModelSpec(name="outputs/none/score/final"))
