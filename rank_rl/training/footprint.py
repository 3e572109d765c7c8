"""Seconds and bytes of one optimizer step, before a run: counts times what a probe measured.

Memory is what stands at the largest of four moments: generation, the start and the end of the
backward pass, and loading. Exact are weights, gradients and optimizer; activations are a layer's
measured ones times the layers. Of one process: sharding is not modelled, nor is vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rank_rl.specs import ModelSpec
from rank_rl.training.workload import Generation, Pass, Step

if TYPE_CHECKING:
    from rank_rl.training.probe import Fit, Probe

FP32 = 4
ROOM = 32  # tokens by which the cache of generated ones grows
# Of each answer token and word: logits, log-probabilities and two products of them in fp32, and
# the logits in the dtype they were computed in.
LOGIT_BYTES = 18
DRAW_BYTES = 24  # of each row and word: scores, probabilities, and twice those in fp64
ROWS = 64  # that are decoded together on a CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Parameters of a model as it is trained.

    Attributes:
        layers, frozen: decoder layers, and how many of the lowest are not trained.
        elements, trained: numbers of all weights, and of those that are trained.
        bytes, trained_bytes: the same in bytes; gradients have the dtype of their weights.
        layer_matrix: numbers in the matrices of a layer, which autocast copies.
        head: numbers in the vocabulary projection.
        head_trained: whether it is trained.
        hidden, vocabulary: width of the states, and words.
    """

    layers: int
    frozen: int
    elements: int
    trained: int
    bytes: int
    trained_bytes: int
    layer_matrix: int
    head: int
    head_trained: bool
    hidden: int
    vocabulary: int


def counts(spec: ModelSpec, config: Any, dtype: Any) -> Counts:
    """Count the parameters of a config, with the recipe's adapter or frozen layers."""
    import torch
    from transformers import AutoModelForCausalLM

    from rank_rl.models.loading import make_trainable

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        matrices = sum(p.numel() for p in model.get_decoder().layers[0].parameters() if p.ndim > 1)
        head = model.get_output_embeddings().weight
        layers = len(model.get_decoder().layers)
        model = make_trainable(model, spec)
    every = list(model.parameters())
    trained = [p for p in every if p.requires_grad]
    text = config.get_text_config()
    return Counts(
        layers=layers,
        frozen=spec.freeze_layers,
        elements=sum(p.numel() for p in every),
        trained=sum(p.numel() for p in trained),
        bytes=sum(p.numel() * p.element_size() for p in every),
        trained_bytes=sum(p.numel() * p.element_size() for p in trained),
        layer_matrix=matrices,
        head=head.numel(),
        head_trained=head.requires_grad,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What of a trainer's arguments costs memory or time.

    Attributes:
        checkpointing: whether activations are computed again in the backward pass.
        mixed: whether matrices are copied to bf16.
        optimizer_bytes: of the optimizer's state for each trained number.
        reference: whether a second model stands beside the first.
        chunk: most answer tokens whose logits stand at once.
    """

    checkpointing: bool
    mixed: bool
    optimizer_bytes: float
    reference: bool
    chunk: int


def setting(args: Any, spec: ModelSpec, *, stage: str) -> Setting:
    """The setting of a stage's trainer config."""
    from rank_rl.training.answer_head import CHUNK

    saver = "activation_checkpointing"
    saves = getattr(args, saver, None) or getattr(args, "gradient_checkpointing", False)
    name = str(getattr(args.optim, "value", args.optim))
    return Setting(
        checkpointing=bool(saves),
        mixed=bool(args.bf16 or args.fp16),
        optimizer_bytes=optimizer_bytes(name),
        reference=stage == "grpo" and bool(getattr(args, "beta", 0)) and spec.lora is None,
        chunk=CHUNK,
    )


def optimizer_bytes(name: str) -> float:
    """Bytes of state a trained number: two moments for Adam, less for those that save them."""
    if "8bit" in name or "4bit" in name:
        return 2.0
    if "sgd" in name or "adafactor" in name:
        return 0.0
    return 1.0 * FP32 if name in ("lion", "adagrad", "rmsprop") else 2.0 * FP32


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a probe measured; of one layer unless it says otherwise. Seconds and bytes.

    Attributes:
        train, forward: a pass with and without gradients, by its tokens and pairs.
        kept: bytes for the backward pass.
        head_base, head_token: embedding and projection of a micro-batch, and of each token read.
        prefill, decode: a prompt token, and a step of all rows that are decoded together.
        sample: what a step takes outside the layers: projection and drawing.
        cache: bytes of keys and values of a token.
        optimizer: clipping and a step of all trained weights.
    """

    train: Fit
    forward: Fit
    kept: Fit
    head_base: float
    head_token: float
    prefill: float = 0.0
    decode: float = 0.0
    sample: float = 0.0
    cache: float = 0.0
    optimizer: float = 0.0


def measure(
    probe: Probe,
    step: Step,
    known: Counts,
    *,
    exact: bool,
    optimizer: str = "adamw_torch_fused",
    answered: Generation | None = None,
) -> Rates:
    """Measure what a step needs to know of its model, in a few seconds.

    Args:
        probe: a layer of the model.
        step: with the longest answers that are asked about.
        known: of the whole model.
        exact: whether label slots are read.
        optimizer: name of it.
        answered: what is generated where the step itself generates nothing.
    """
    from rank_rl.training.decode_probe import decoding

    train, forward, kept = probe.layer(step.largest)
    base, each = probe.head(step.typical.tokens, step.typical.read, exact=exact)
    generation = step.generation or answered
    others = (known.layers - 1) * known.layer_matrix
    made = decoding(probe, generation, others=others) if generation else None
    return Rates(
        train=train,
        forward=forward,
        kept=kept,
        head_base=base,
        head_token=each,
        prefill=made.prefill if made else 0.0,
        decode=made.step if made else 0.0,
        sample=made.rest if made else 0.0,
        cache=made.cache if made else 0.0,
        optimizer=probe.optimizer(known.trained, optimizer),
    )


def seconds(step: Step, known: Counts, how: Setting, rates: Rates) -> dict[str, float]:
    """Seconds of the parts of a step: generation, reference, training, optimizer."""
    one = step.typical
    through = rates.forward(one)
    trained = known.layers - known.frozen
    head = rates.head_base + rates.head_token * one.read
    micro = trained * rates.train(one) + known.frozen * through + head
    micro += trained * through if how.checkpointing else 0.0
    return {
        "generation": generating(step, known, rates),
        "reference": step.micro * step.forward * (known.layers * through + head / 3),
        "training": step.micro * micro,
        "optimizer": rates.optimizer,
    }


def generating(step: Step, known: Counts, rates: Rates) -> float:
    """Seconds of the generation that an optimizer step needs."""
    made = step.generation
    if made is None:
        return 0.0
    read = sum(made.prompts) * (1 if made.shared else made.group)
    rounds = -(-made.rows // ROWS)
    steps = made.new * (known.layers * rates.decode + rates.sample)
    return made.batches * (known.layers * rates.prefill * read + rounds * steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes that stand all the time, and those of the moments that come and go."""

    always: Mapping[str, float]
    moments: Mapping[str, float]

    @property
    def peak(self) -> float:
        """Bytes at the largest moment."""
        return sum(self.always.values()) + max(self.moments.values())

    @property
    def moment(self) -> str:
        """The largest moment."""
        return max(self.moments, key=self.moments.__getitem__)


def memory(
    step: Step, known: Counts, how: Setting, rates: Rates | None, *, process: float
) -> Memory:
    """Bytes of a step.

    Args:
        step: with the longest answers.
        known: parameters.
        how: setting.
        rates: what was measured; None leaves out what only a probe knows.
        process: of Python and its packages.
    """
    always = {
        "process": process,
        "weights": float(known.bytes),
        "optimizer": how.optimizer_bytes * known.trained,
        "reference model": float(known.bytes) if how.reference else 0.0,
    }
    head_gradient = known.head * FP32 if known.head_trained else 0
    gradients = float(known.trained_bytes)
    end = gradients + head_gradient
    if rates is None:
        return Memory(always=always, moments={"gradients": end})
    before = gradients if step.micro > 1 else 0.0
    begin = before + activations(step.largest, known, how, rates)
    begin += logits(step.largest, known, how) + head_gradient
    moments = {"activations": begin, "gradients": end + rates.kept(step.largest)}
    if step.generation is not None:
        moments["generation"] = cache(step, known, how, rates)
    return Memory(always=always, moments=moments)


def activations(one: Pass, known: Counts, how: Setting, rates: Rates) -> float:
    """Bytes that the layers keep for the backward pass."""
    trained = known.layers - known.frozen
    if not how.checkpointing:
        return trained * rates.kept(one)
    return rates.kept(one) + trained * one.tokens * known.hidden * FP32


def logits(one: Pass, known: Counts, how: Setting) -> float:
    """Bytes of the logits of the positions read, as many as stand at once."""
    held = LOGIT_BYTES * min(one.read, how.chunk) * known.vocabulary
    copied = known.head * 2 if how.mixed else 0
    return float(held + copied)


def cache(step: Step, known: Counts, how: Setting, rates: Rates) -> float:
    """Bytes of generation: keys and values, the drawing of tokens, bf16 copies of the weights."""
    made = step.generation
    assert made is not None
    per = max(1, ROWS // made.group)
    longest = sorted(made.prompts)[-per:]
    rows = min(made.rows, len(longest) * made.group)
    prompts = sum(longest) * (1 if made.shared else made.group)
    tokens = prompts + rows * -(-made.new // ROOM) * ROOM
    copies = 2 * (known.layers * known.layer_matrix + known.head) if how.mixed else 0
    return tokens * known.layers * rates.cache + DRAW_BYTES * rows * known.vocabulary + copies


def with_checkpointing(how: Setting) -> Setting:
    """The same setting with activations computed again."""
    return replace(how, checkpointing=True)
