"""The loop that lets many writers answer through one decoder.

Rows that are done make room for prompts that wait, so that long answers do not hold up short ones.
How many tokens are guessed a pass depends on how often guesses were right and on what a pass costs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rank_rl.generation.ragged import Decoder
from rank_rl.generation.writers import Free, Thinking, Writer

if TYPE_CHECKING:
    import torch

# A new row is worth a pass of its own once so large a share of the rows is free.
REFILL = 0.25
GUESSES = (0, 1, 2, 3, 5, 7)
# So many tokens take no longer than one. Measured on a CPU with AVX2: a matrix product of M rows
# takes as long as 16 + M.
FREE = {"cpu": 16.0}
PROBE = 16  # passes after which a guess is tried again where it was not worth it


@dataclass(slots=True, kw_only=True)
class Job:
    """One answer: its prompt's tokens, what writes it, and its share of the time so far."""

    prompt: list[int]
    writer: Writer
    seconds: float = 0.0


@dataclass(slots=True)
class Guesser:
    """Chooses how many tokens to guess.

    Attributes:
        free: so many tokens take no longer than one, as a pass reads all weights for either.
        right, wrong: guesses that were and were not what the model wrote, the latest weigh most.
    """

    free: float
    right: float = 1.0
    wrong: float = 1.0
    _idle: int = 0

    def most(self, rows: int, length: int) -> int:
        """Tokens to guess for rows that hold so many tokens each."""
        share = self.right / (self.right + self.wrong)
        read = length / 1000  # keys and values of 1,000 tokens are read as fast as one is computed

        def speed(guesses: int) -> float:
            expected = sum(share**i for i in range(guesses + 1))
            return expected / (self.free + rows * (1 + guesses + read))

        best = max(GUESSES, key=speed)
        self._idle = 0 if best else self._idle + 1
        return best if best or self._idle % PROBE else 3

    def learn(self, right: int, wrong: int) -> None:
        """Count what became of guesses."""
        self.right, self.wrong = 0.9 * self.right + right, 0.9 * self.wrong + wrong


@dataclass(slots=True, kw_only=True)
class Writing:
    """Jobs under way on one model.

    Attributes:
        model: in evaluation mode; gradients must be off.
        jobs: what is to be written, the longest first.
        rows: most rows at once.
        read_tokens: about how many tokens of prompts a pass reads.
        done: called with the number of every job that is finished.
    """

    model: Any
    jobs: Sequence[Job]
    rows: int
    read_tokens: int
    done: Callable[[int], object]
    decoder: Decoder = field(init=False)
    held: list[int | None] = field(init=False)

    def run(self) -> None:
        """Write all answers."""
        waiting = deque(range(len(self.jobs)))
        rows = min(self.rows, len(self.jobs))
        longest = max(len(job.prompt) + len(job.writer.chunk) for job in self.jobs)
        self.decoder = Decoder(self.model, rows, longest)
        self.held = [None] * rows
        guesser = Guesser(free=FREE.get(self.decoder.device.type, 200.0))
        while waiting or any(n is not None for n in self.held):
            free = [row for row, n in enumerate(self.held) if n is None]
            if waiting and (len(free) >= REFILL * len(self.held)):
                self._start(free, waiting)
                continue
            if not waiting and len(free) > REFILL * len(self.held):
                self._shrink()
            self._advance(guesser)

    def _start(self, free: list[int], waiting: deque[int]) -> None:
        """Read as many prompts as fit one pass."""
        chosen: list[int] = []
        size = 0
        while waiting and len(chosen) < len(free):
            job = self.jobs[waiting[0]]
            more = len(job.prompt) + len(job.writer.chunk)
            if chosen and size + more > self.read_tokens:
                break
            size += more
            chosen.append(waiting.popleft())
        started = time.perf_counter()
        rows = free[: len(chosen)]
        prompts = [[*self.jobs[n].prompt, *self.jobs[n].writer.chunk] for n in chosen]
        logits = self.decoder.start(rows, prompts)
        best = logits.argmax(-1).tolist()
        rate = (time.perf_counter() - started) / size
        for i, (row, n) in enumerate(zip(rows, chosen, strict=True)):
            self.held[row] = n
            self.jobs[n].seconds += rate * len(prompts[i])
            self.jobs[n].writer.take(logits[i : i + 1], best[i : i + 1])
            self._end(row)

    def _advance(self, guesser: Guesser) -> None:
        """One pass over all rows."""
        started = time.perf_counter()
        alive = [(row, self.jobs[n]) for row, n in enumerate(self.held) if n is not None]
        if not alive:
            return
        guesses = guesser.most(len(alive), max(self.decoder.cache.lengths))
        chunks: list[list[int]] = [[] for _ in self.held]
        for row, job in alive:
            job.writer.guess(guesses)
            chunks[row] = job.writer.chunk
        wanted = max(job.writer.wanted for _, job in alive)
        logits = self.decoder.advance(chunks, wanted)
        best = logits.argmax(-1).tolist()
        for row, job in alive:
            self._take(row, job.writer, logits[row], best[row], guesser)
        share = (time.perf_counter() - started) / len(alive)
        for row, job in alive:
            job.seconds += share
            self._end(row)

    def _take(
        self, row: int, writer: Writer, logits: torch.Tensor, best: list[int], guesser: Guesser
    ) -> None:
        free = writer.free if isinstance(writer, Thinking) else writer
        guessed, right = (free.guessed, free.right) if isinstance(free, Free) else (0, 0)
        wanted = writer.wanted
        self.decoder.accept(row, writer.take(logits[-wanted:], best[-wanted:]))
        if isinstance(free, Free) and free.guessed > guessed:
            more = free.right - right
            guesser.learn(more, int(more < free.guessed - guessed))

    def _end(self, row: int) -> None:
        """Free the row of an answer that is finished."""
        n = self.held[row]
        if n is not None and self.jobs[n].writer.finish is not None:
            self.held[row] = None
            self.decoder.cache.lengths[row] = 0
            self.done(n)

    def _shrink(self) -> None:
        """Go on with the rows in use only."""
        kept = [row for row, n in enumerate(self.held) if n is not None]
        if kept:
            self.decoder.keep(kept)
            self.held = [self.held[row] for row in kept]
