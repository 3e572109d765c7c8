"""How long a run would take and how much memory it would need, from its recipe alone.

Puts ``workload`` (what is computed), ``probe`` (what a layer takes here) and ``footprint`` (the
arithmetic) together. Weights are not loaded; of a model on the Hub only the config is fetched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.errors import ModelError
from rank_rl.models import loading, sources
from rank_rl.specs import ModelSpec, RecipeSpec
from rank_rl.training import common, footprint, workload
from rank_rl.training.footprint import Counts, Memory, Rates, Setting
from rank_rl.training.workload import Generation, Pairs, Step

if TYPE_CHECKING:
    from rank_rl.formats.base import Format
    from rank_rl.models.tokens import ChatTokens

# Python with torch, transformers, TRL, datasets and their threads, on a CPU.
PROCESS = 0.75e9
SAMPLED_LESSONS = 24
VALIDATED_TOGETHER = 8  # answers that validation is taken to generate at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a stage of a recipe would take.

    Attributes:
        steps: one; two where answers may be shorter than allowed (expected, longest).
        known: parameters of the model.
        how: what of the trainer's arguments matters.
        rates: what was measured here; None where it was not.
        process: bytes of the process itself.
        device: where it was measured.
        updates: optimizer steps of the run, 0 where the recipe leaves them to the data.
    """

    steps: Sequence[Step]
    known: Counts
    how: Setting
    rates: Rates | None
    process: float
    device: str
    updates: int

    def seconds(self, number: int = -1, how: Setting | None = None) -> Mapping[str, float]:
        """Seconds of the parts of a step; the last one is that with the longest answers."""
        assert self.rates is not None
        return footprint.seconds(self.steps[number], self.known, how or self.how, self.rates)

    def memory(self, how: Setting | None = None) -> Memory:
        """Bytes at the peak, with the longest answers."""
        return footprint.memory(
            self.steps[-1], self.known, how or self.how, self.rates, process=self.process
        )


def steps_of(
    stage: str, spec: RecipeSpec, fmt: Format, pairs: Pairs, tokens: ChatTokens
) -> tuple[list[Step], Any]:
    """Steps and trainer arguments; of lessons, where stage sft has some, instead of views."""
    if stage == "sft" and spec.data.lessons:
        rows = lesson_rows(spec, fmt, tokens)
        args = workload.arguments(stage, spec, [], 0)
        return [workload.from_rows(rows, args)], args
    return workload.step_of(stage, spec, fmt, pairs, tokens)


def lesson_rows(spec: RecipeSpec, fmt: Format, tokens: ChatTokens) -> list[dict[str, list[int]]]:
    """The first lessons as stage sft encodes them."""
    from rank_rl.data import lessons, rows
    from rank_rl.formats.budget import fit
    from rank_rl.training import sft

    found = lessons.read(Path(str(spec.data.lessons)).expanduser())
    usable, _ = lessons.usable(found, fmt, ())
    found_rows = []
    for lesson in usable[:SAMPLED_LESSONS]:
        view, _ = fit(lesson.view, tokens, fmt=fmt)
        reason = sft.style_of(spec, lesson.view) != "none"
        found_rows += rows.lesson_rows(lesson, view, fmt, reason=reason)
    return [sft.encode(tokens, row) for row in found_rows]


def forecast(
    stage: str,
    spec: RecipeSpec,
    fmt: Format,
    pairs: Pairs,
    tokens: ChatTokens,
    *,
    clock: Callable[[], float] | None = time.perf_counter,
) -> Forecast:
    """Forecast a stage.

    Args:
        stage: score, sft or grpo.
        spec: the recipe.
        fmt: its format.
        pairs: some training tasks with a view each, within budget.
        tokens: the tokenizer of the model.
        clock: what measures on this machine; None: nothing is measured, only counts are known.

    Raises:
        RankRLError: whatever of recipe or model is wrong.
    """
    import torch

    steps, args = steps_of(stage, spec, fmt, pairs, tokens)
    model = common.trainable(spec.model)
    config, dtype = config_of(model), loading.weight_dtype(model)
    known = footprint.counts(model, config, dtype)
    how = footprint.setting(args, model, stage=stage)
    gpu = torch.cuda.is_available() and not args.use_cpu
    rates = None
    if clock is not None:
        from rank_rl.training.probe import Probe

        mixed = ("bfloat16" if args.bf16 else "float16") if how.mixed else None
        where = "cuda" if gpu else "cpu"
        probe = Probe(model, config, dtype=dtype, autocast=mixed, device=where, clock=clock)
        slots = hasattr(fmt, "slots") and stage != "sft"
        name = str(getattr(args.optim, "value", args.optim))
        validation = None if hasattr(fmt, "slots") else _validation(spec, steps[-1])
        rates = footprint.measure(
            probe, steps[-1], known, exact=slots, optimizer=name, answered=validation
        )
    place = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    return Forecast(
        steps=steps,
        known=known,
        how=how,
        rates=rates,
        process=0.0 if gpu else PROCESS,
        device=place,
        updates=max(0, args.max_steps),
    )


def _validation(spec: RecipeSpec, step: Step) -> Generation:
    """Answers as validation generates them, for a stage that generates none itself."""
    longest = max(step.largest.segments)
    return Generation(
        prompts=(longest,) * VALIDATED_TOGETHER,
        group=1,
        new=spec.eval.max_new_tokens,
        shared=False,
        batches=0.0,
    )


def validation_seconds(found: Forecast, *, calls: int, prompt: float, new: int | None) -> float:
    """Seconds of one validation.

    Args:
        found: the forecast, measured.
        calls: prompts, or views of label slots.
        prompt: tokens of one.
        new: most tokens of an answer; None where nothing is generated.
    """
    rates, layers = found.rates, found.known.layers
    assert rates is not None
    if new is None:
        one = found.steps[-1].typical
        return calls * layers * rates.forward(one) * prompt / one.tokens
    made = found.steps[-1].generation
    together = min(made.rows, footprint.ROWS) if made else VALIDATED_TOGETHER
    rounds = math.ceil(calls / together)
    steps = rounds * new * (layers * rates.decode + rates.sample)
    return calls * prompt * layers * rates.prefill + steps


def config_of(spec: ModelSpec) -> Any:
    """The transformers config of a model, without its weights.

    Raises:
        ModelError: it is not there, or cannot be read.
    """
    from transformers import AutoConfig

    here = spec.name.startswith("pip:") or Path(spec.name).expanduser().exists()
    where: Path | str = sources.locate(spec.name).path if here else spec.name
    if not here and spec.name.count("/") != 1:
        raise ModelError("is not there yet", where=f"model {spec.name!r}")
    try:
        return AutoConfig.from_pretrained(str(where), revision=None if here else spec.revision)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ModelError(f"config cannot be read: {first}", where=f"model {spec.name!r}") from error
