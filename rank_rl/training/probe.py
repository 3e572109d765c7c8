"""Times and sizes of one layer of a model, measured on this machine with random weights.

A model of a config's first layer alone is built as a stage would (dtype, adapter, autocast) and run
forward and backward in the form of the stage's own passes; head and optimizer are measured apart,
decoding in ``decode_probe``. Nothing is loaded; it takes a few seconds. ``footprint`` scales it up.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from rank_rl.models.loading import lora_config
from rank_rl.models.packed_attention import Attention, attending, choose, seeing
from rank_rl.models.packing import pack
from rank_rl.specs import ModelSpec
from rank_rl.training.workload import Pass

Clock: TypeAlias = Callable[[], float]
SHORT = 192  # tokens of the first pass, which says how long others may be
LONGEST = 1.0  # seconds that one measured pass may take
HEAD_READ = 512  # most positions projected: larger arrays cost more than in proportion
HEAD_ELEMENTS = 1 << 25  # of the vocabulary that is built; the rest is scaled
OPTIMIZER_ELEMENTS = 1 << 24
REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A value that grows with what a pass computes."""

    base: float = 0.0
    token: float = 0.0
    pair: float = 0.0

    def __call__(self, one: Pass) -> float:
        return self.base + self.token * one.tokens + self.pair * one.pairs

    @classmethod
    def through(cls, points: Sequence[tuple[Pass, float]]) -> Fit:
        """The richest form through the last points, largest pass last, that never shrinks."""
        for names in (("base", "token", "pair"), ("token", "pair"), ("base", "token"), ("token",)):
            used = points[-len(names) :]
            rows = [{"base": 1.0, "token": p.tokens, "pair": p.pairs} for p, _ in used]
            if len(used) < len(names):
                continue
            left = torch.tensor([[row[n] for n in names] for row in rows], dtype=torch.float64)
            right = torch.tensor([value for _, value in used], dtype=torch.float64)
            found = torch.linalg.lstsq(left, right[:, None]).solution[:, 0].tolist()
            if min(found) >= 0 and torch.linalg.matrix_rank(left) == len(names):
                return cls(**dict(zip(names, found, strict=True)))
        return cls(token=points[-1][1] / points[-1][0].tokens)


class Probe:
    """One layer of a model.

    Args:
        spec: the model as it is trained.
        config: its transformers config.
        dtype: of the weights.
        autocast: dtype name of mixed precision, or None.
        device: where training would run.
        clock: what seconds are read from.
    """

    def __init__(
        self,
        spec: ModelSpec,
        config: Any,
        *,
        dtype: torch.dtype,
        autocast: str | None,
        device: str = "cpu",
        clock: Clock = time.perf_counter,
    ) -> None:
        from transformers import AutoModelForCausalLM

        text = config.get_text_config()
        self.vocabulary, self.hidden = text.vocab_size, text.hidden_size
        self.built = min(self.vocabulary, max(256, HEAD_ELEMENTS // self.hidden))
        self.device, self.autocast, self.clock = device, autocast, clock
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(shortened(config, 1, self.built), dtype=dtype)
        self.attention: Attention | None = None
        with contextlib.suppress(Exception):  # then rows stand for packed passes
            self.attention = choose(model.to(device))
        if spec.lora is not None:
            from peft import get_peft_model

            model = get_peft_model(model, lora_config(spec.lora)).get_base_model()
        self.model = model.to(device).train()
        self.decoder = model.get_decoder()
        self.trains_head = spec.lora is None and not spec.freeze_layers
        self.norm = getattr(self.decoder, "norm", None)

    def layer(self, one: Pass) -> tuple[Fit, Fit, Fit]:
        """Seconds forward and backward, seconds without gradients, and bytes kept for backward."""
        short = one.scaled(min(1.0, SHORT / one.tokens))
        seconds = self._time(short)
        ahead = seconds * max(one.tokens / short.tokens, (one.pairs / short.pairs) ** 0.75)
        long = one.scaled(min(1.0, LONGEST / ahead))
        known = list({p.tokens: p for p in (short, long)}.values())
        times = [(p, seconds if p == short else self._time(p)) for p in known]
        forward = [(p, self._time(p, backward=False)) for p in known]
        tiny = short.scaled(0.25)
        kept = [(p, float(self.kept(p))) for p in {q.tokens: q for q in (tiny, *known)}.values()]
        return Fit.through(times), Fit.through(forward), Fit.through(kept)

    def _time(self, one: Pass, *, backward: bool = True) -> float:
        def run() -> None:
            with self._ready(one) as forward, torch.set_grad_enabled(backward):
                out = forward()
                if backward:
                    out.backward(torch.ones_like(out))
            self.model.zero_grad()

        return self.timed(run)

    def kept(self, one: Pass) -> int:
        """Bytes that one layer keeps for its backward pass, its input included."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        sizes: dict[int, int] = {}

        def note(x: torch.Tensor) -> torch.Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return x

        with (
            self._ready(one) as forward,
            torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
        ):
            out = forward()
        del out
        return sum(sizes.values())

    @contextlib.contextmanager
    def _ready(self, one: Pass) -> Iterator[Callable[[], torch.Tensor]]:
        """The layer's forward on random states; the block must hold the backward pass too."""
        states: dict[str, Any]
        with contextlib.ExitStack() as stack:
            if one.packed and self.attention:
                batch = pack([([1] * p, [[1] * n for n in own]) for p, own in one.groups])
                batch = batch.to(self.device)
                stack.enter_context(attending(self.model, self.attention))
                states = {"position_ids": batch.position_ids,
                          **seeing(self.model, batch, self.attention)}  # fmt: skip
                shape = (1, one.tokens)
            else:
                shape = (len(one.segments), max(one.segments) + max(p for p, _ in one.groups))
                mask = torch.zeros(shape, dtype=torch.long, device=self.device)
                for row, length in enumerate(one.segments):
                    mask[row, : length + shape[1] - max(one.segments)] = 1
                states = {"attention_mask": mask}
            x = torch.randn(*shape, self.hidden, device=self.device, dtype=self.model.dtype)
            stack.callback(setattr, self.decoder, "norm", self.norm)
            if self.norm is not None:
                self.decoder.norm = torch.nn.Identity()

            def forward() -> torch.Tensor:
                x.grad = None
                with self.mixed():
                    out = self.decoder(inputs_embeds=x.requires_grad_(), use_cache=False, **states)
                return out.last_hidden_state  # type: ignore[no-any-return]

            yield forward

    def head(self, tokens: int, read: int, *, exact: bool) -> tuple[float, float]:
        """Seconds of embedding and vocabulary projection, forward and backward: base, per token.

        Args:
            tokens: that are embedded.
            read: that are projected.
            exact: label slots, projected in fp32; else log-probabilities of an answer.
        """
        many = max(2, min(read, HEAD_READ))
        few = max(1, many // 4)
        slow, quick = (self._head(max(tokens, n + 1), n, exact=exact) for n in (many, few))
        scale = self.vocabulary / self.built
        each = min(max(slow - quick, 0.0) / (many - few), slow / many)
        return scale * (slow - many * each), scale * each

    def _head(self, tokens: int, read: int, *, exact: bool) -> float:
        from rank_rl.training.answer_head import fused_output

        weight = self.model.get_output_embeddings().weight
        table = self.model.get_input_embeddings().weight
        ids = torch.randint(0, self.built, (1, tokens), device=self.device)
        labels = torch.full_like(ids, -100)
        labels[:, 1 : read + 1] = 1
        for matrix in (weight, table):
            matrix.requires_grad_(self.trains_head)

        def run() -> None:
            x = torch.nn.functional.embedding(ids, table)
            x = x if x.requires_grad else x.requires_grad_()
            if exact:
                logits = torch.nn.functional.linear(x[0, :read].float(), weight.float())
                loss = logits.logsumexp(-1).sum() + logits[:, :2].sum()
            else:
                with self.mixed():
                    loss = fused_output(x, weight, None, labels, 1.0).loss
            loss.backward()
            weight.grad = table.grad = None

        return self.timed(run)

    def optimizer(self, elements: int, name: str) -> float:
        """Seconds to clip the gradients of so many numbers and to step."""
        count = max(1, min(elements, OPTIMIZER_ELEMENTS))
        weight = torch.nn.Parameter(torch.zeros(count, device=self.device))
        weight.grad = torch.ones_like(weight)
        fused = "fused" in name
        stepper = torch.optim.AdamW([weight], lr=1e-6, fused=fused)

        def run() -> None:
            torch.nn.utils.clip_grad_norm_([weight], 1.0)
            stepper.step()

        return self.timed(run) * elements / count

    def timed(self, run: Callable[[], Any]) -> float:
        """Median seconds of three runs after a first one, or of fewer where they take long."""
        run()
        found: list[float] = []
        while len(found) < REPEATS and sum(found) < LONGEST:
            started = self.now()
            run()
            found.append(self.now() - started)
        return statistics.median(found)

    def mixed(self) -> Any:
        """The autocast of training, or nothing."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=getattr(torch, self.autocast))

    def now(self) -> float:
        """Seconds, when the device has done what it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return self.clock()


def shortened(config: Any, layers: int, vocabulary: int) -> Any:
    """A copy of a config with its first layers and words only."""
    made = copy.deepcopy(config)
    text = made.get_text_config()
    before = text.num_hidden_layers
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == before:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    text.vocab_size = vocabulary
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, None)
    return made
