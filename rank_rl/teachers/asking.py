"""From questions to stored completions: live over many units at once, or from the store alone.

``Requests`` makes the prompt and the keys of an ask and reads stored answers; ``Asking`` sends what
is missing, concurrently and within the budget; ``replay`` walks through units without sending. What
is written afterwards always comes from ``replay``: it depends on the store alone, not on the order
in which answers arrived.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rank_rl import registry
from rank_rl.errors import BackendError, DataError, RankRLError
from rank_rl.formats.budget import CutReport, TokenCounter, fit
from rank_rl.generation.calls import Backend, CallError, Sampling, with_retries
from rank_rl.records import Outcome, Prompt
from rank_rl.specs import TeacherSpec
from rank_rl.teachers.ledger import Budget, Meter
from rank_rl.teachers.store import Asked, Store, key_of
from rank_rl.teachers.units import Answer, Answered, Ask, Question, Unit, walk

logger = logging.getLogger(__name__)

TEACHERS: dict[str, str] = {
    "endpoint": "rank_rl.generation.endpoint:EndpointGenerator",
    "engine": "rank_rl.teachers.batched:engine",
    "local": "rank_rl.teachers.batched:local",
    "oracle": "rank_rl.teachers.oracle:Oracle",
    "replay": "rank_rl.teachers.oracle:Replay",
}
# So many requests given up in a row, none answered between: nobody is there.
IN_VAIN = 50
_DEAD = ("connection", "timeout", "server_error", "malformed", "refused", "error")
NO_ANSWER = Outcome(status="failed", issues=("no_answer",))
TOO_LONG = "too_long"


def make_teacher(spec: TeacherSpec) -> Backend:
    """Build the backend that a recipe describes.

    Raises:
        RecipeError: an unknown name or parameter, or a package that is not installed.
    """
    params = {"model": spec.model, **spec.params}
    backend: Backend = registry.build("teacher", spec.name, params, TEACHERS)
    return backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An ask made ready: one prompt, and a key for each sample."""

    ask: Ask
    prompt: Prompt
    sampling: Sampling
    keys: tuple[str, ...]
    error: str = ""


class Missing(Exception):
    """A completion that the store does not have."""


@dataclass(slots=True, kw_only=True)
class Requests:
    """Prompts, keys and stored answers of one run.

    Args:
        store: where completions are.
        specs: teachers by name, as the recipe gives them.
        teachers: the same as backends; a teacher that is not needed may be absent.
        tokens: the tokenizer (or a count of words) that document budgets are counted in.
    """

    store: Store
    specs: Mapping[str, TeacherSpec]
    teachers: Mapping[str, Backend]
    tokens: TokenCounter
    cuts: CutReport = field(default_factory=CutReport)

    def of(self, ask: Ask) -> Request:
        """Render an ask within its budget and name its keys."""
        spec, fmt = ask.question.spec, ask.question.fmt
        error = ""
        try:
            view, report = fit(ask.view, self.tokens, fmt=fmt)
            self.cuts = self.cuts.merge(report)
        except DataError as problem:
            view, error = ask.view, problem.line()
        prompt = fmt.render(view)
        sampling = Sampling(
            temperature=spec.temperature,
            top_p=spec.top_p,
            max_tokens=spec.max_tokens,
            logprobs=spec.logprobs,
        )
        prepare = getattr(self.teachers[spec.teacher], "prepare", None)
        salt = prepare(prompt, view, fmt, ask.unit.task) if prepare else ""
        named = deciding(self.specs[spec.teacher])
        keys = tuple(
            key_of(prompt, sampling, model=named, version=fmt.version, sample=s, salt=salt)
            for s in ask.samples
        )
        return Request(ask=ask, prompt=prompt, sampling=sampling, keys=keys, error=error)

    def asked(self, request: Request, keys: Sequence[str]) -> Asked:
        """What the store remembers of a request for some of its keys."""
        spec = request.ask.question.spec
        return Asked(
            keys=tuple(keys), teacher=spec.teacher, question=spec.name, unit=request.ask.unit.uid
        )

    def missing(self, request: Request) -> list[str]:
        """Keys that are neither stored nor given up."""
        return [k for k in request.keys if k not in self.store and not self.store.failed(k)]

    def answers(self, request: Request) -> list[Answer]:
        """The stored answers of a request, one a sample.

        Raises:
            Missing: one of them was never asked.
        """
        return [self.answer(request, key) for key in request.keys]

    def answer(self, request: Request, key: str) -> Answer:
        """The stored answer of one key.

        Raises:
            Missing: it was never asked.
        """
        view = request.ask.view
        completion = self.store.get(key)
        if completion is None:
            if not self.store.failed(key):
                raise Missing(key)
            return Answer(view=view, outcome=NO_ANSWER, completion=None, key=key)
        fmt = request.ask.question.fmt
        outcome = fmt.parse(completion.text, view, prefill=request.prompt.prefill)
        return Answer(view=view, outcome=outcome, completion=completion, key=key)


def deciding(spec: TeacherSpec) -> str:
    """What of a teacher decides its answers, for the key of a completion.

    Of a server the model and what is sent along with prompts, so that it may move; of a model in
    this process also how it is loaded and drawn from.
    """
    named = ("seed", "dtype", "revision", "options")
    own = {key: spec.params[key] for key in named if spec.params.get(key) is not None}
    return f"{identity(spec)} {json.dumps(own, sort_keys=True)}" if own else identity(spec)


def identity(spec: TeacherSpec) -> str:
    """The name of a teacher: the model, and what is sent along with prompts."""
    extra = spec.params.get("extra")
    name = spec.model or spec.name
    return f"{name} {json.dumps(extra, sort_keys=True)}" if extra else name


@dataclass(slots=True)
class Asking:
    """A live run over units; ``progress`` is called after each of them."""

    requests: Requests
    budget: Budget
    progress: Callable[[], object] = lambda: None
    _slots: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    _going: dict[str, asyncio.Event] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _fatal: CallError | None = None
    _stopped: RankRLError | None = None
    _in_vain: int = 0

    async def all(self, units: Iterable[Unit], questions: Sequence[Question]) -> None:
        """Ask whatever is missing about every unit; a failed request is recorded, not raised.

        Raises:
            LimitReached: a limit was met; everything asked before is stored.
            BackendError: no request can succeed (wrong key, no credit, unknown model).
            StorageError: answers cannot be stored.
        """
        teachers = {q.spec.teacher for q in questions}
        self._slots = {
            t: asyncio.Semaphore(self.requests.teachers[t].concurrency) for t in teachers
        }
        waiting = iter(units)
        # Twice as many as may be in flight: the next prompt is ready when an answer has come.
        workers = 2 * max(self.requests.teachers[t].concurrency for t in teachers)
        results = await asyncio.gather(
            *(self._worker(waiting, questions) for _ in range(workers)), return_exceptions=True
        )
        for teacher in teachers:
            close = getattr(self.requests.teachers[teacher], "aclose", None)
            if close is not None:
                await close()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if self._fatal is not None:
            again = " with --retry-failed" if self._in_vain >= IN_VAIN else ""
            raise BackendError(
                f"the teacher refused every further request: {self._fatal}",
                remedy=f"what was answered is stored; start again{again} when it is put right",
            )
        if self._stopped is not None:
            raise self._stopped

    async def _worker(self, waiting: Iterator[Unit], questions: Sequence[Question]) -> None:
        for unit in waiting:
            if self._fatal or self._stopped:
                return
            try:
                await self._unit(unit, questions)
            except RankRLError as stop:  # a limit, or a disk that is full: the others end as well
                self._stopped = self._stopped or stop
            except Missing:
                continue  # a fatal error elsewhere kept this unit from being finished
            self.progress()

    async def _unit(self, unit: Unit, questions: Sequence[Question]) -> None:
        going = walk(unit, questions)
        try:
            asks = next(going)
            while True:
                asks = going.send(await self._together(asks))
        except StopIteration:
            return

    async def _together(self, asks: Sequence[Ask]) -> list[list[Answer]]:
        """Answer asks at the same time; when one stops the run, the others still come to an end."""
        found = await asyncio.gather(*(self.ask(a) for a in asks), return_exceptions=True)
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return [result for result in found if not isinstance(result, BaseException)]

    async def ask(self, ask: Ask) -> list[Answer]:
        """Answers of one ask, one a sample; what is not stored yet is sent, and never twice."""
        # One at a time with a pause behind it: tokenising takes milliseconds, and answers that
        # came meanwhile, or requests that are ready, go first.
        async with self._turn:
            request = self.requests.of(ask)
            await asyncio.sleep(0)
        # Draws of one query share prompts: what is on its way for another ask is waited for.
        while busy := [self._going[k] for k in request.keys if k in self._going]:
            await busy[0].wait()
        claimed, done = self.requests.missing(request), asyncio.Event()
        self._going |= dict.fromkeys(claimed, done)
        try:
            await self._ask(request, claimed)
        finally:
            for key in claimed:
                del self._going[key]
            done.set()
        return self.requests.answers(request)

    async def _ask(self, request: Request, keys: list[str]) -> None:
        if request.error and keys:
            self.requests.store.give_up(
                self.requests.asked(request, keys), CallError(TOO_LONG, request.error)
            )
            keys = []
        while keys and self._fatal is None:
            if not await self._send(request, keys):
                break
            keys = self.requests.missing(request)

    async def _send(self, request: Request, keys: Sequence[str]) -> bool:
        """Send for as many samples as one request may ask for; false when it was fatal."""
        name = request.ask.question.spec.teacher
        teacher = self.requests.teachers[name]
        most = getattr(teacher, "samples_per_request", 1)
        numbers = dict(zip(request.keys, request.ask.samples, strict=True))
        first = numbers[keys[0]]
        # Samples that follow one another: a teacher that numbers its draws is told the first.
        run = [k for i, k in enumerate(keys[:most]) if numbers[k] == first + i]
        asked = self.requests.asked(request, run)
        more = {"first": first} if getattr(teacher, "numbered_samples", False) else {}
        meter = Meter(self.requests.store, self.budget, asked, self.requests.specs[name])
        meter.bound(request.prompt, request.sampling)
        try:
            async with self._slots[name]:
                if self._fatal is not None:  # while this one waited for its turn
                    return False
                await with_retries(
                    lambda: teacher.once(
                        request.prompt, request.sampling, samples=len(run), **more
                    ),
                    retries=teacher.retries,
                    meter=meter,
                )
        except CallError as error:
            if error.fatal:
                self._fatal = error
                return False
            self.requests.store.give_up(asked, error)
            self._in_vain += error.cause in _DEAD
            if self._in_vain >= IN_VAIN:
                self._fatal = CallError(error.cause, f"{IN_VAIN} requests in a row; {error.detail}")
            return True
        self._in_vain = 0
        return True


def replay(unit: Unit, questions: Sequence[Question], requests: Requests) -> Answered:
    """What the store knows about a unit.

    Raises:
        Missing: a question about it was not asked yet.
    """
    going = walk(unit, questions)
    try:
        asks = next(going)
        while True:
            asks = going.send([requests.answers(requests.of(a)) for a in asks])
    except StopIteration as stop:
        answered: Answered = stop.value
        return answered
