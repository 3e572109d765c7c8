"""EntailmentBank's proofs: a tree of facts that entails a hypothesis (Dalvi et al., 2021).

A proof reads ``fact & fact -> int1: conclusion; int1 & fact -> hypothesis;``, or in the data set's
second form ``[BECAUSE] fact [AND] fact [INFER] int1: conclusion [BECAUSE] …``. Facts are compared
with documents by their words. Text of any other form gives no steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rank_rl.data.words import words
from rank_rl.records import RankingTask


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofStep:
    """One entailment: facts as text, the earlier steps used, and what follows from them."""

    number: int
    facts: tuple[str, ...]
    uses: tuple[int, ...]
    conclusion: str


def parse(proof: str, hypothesis: str) -> tuple[ProofStep, ...]:
    """Read the steps of a proof in order; empty when it does not have the form above."""
    steps: list[ProofStep] = []
    numbers: dict[str, int] = {}
    for part in re.split(r";\s+|;$", _arrows(proof)):
        premises, arrow, conclusion = part.partition("->")
        if not arrow:
            continue
        name, _, text = conclusion.strip().partition(":")
        is_last = name.strip() == "hypothesis" and hypothesis
        terms = [p.strip() for p in premises.split(" & ") if p.strip()]
        steps.append(
            ProofStep(
                number=len(steps) + 1,
                facts=tuple(t for t in terms if t not in numbers),
                uses=tuple(numbers[t] for t in terms if t in numbers),
                conclusion=(hypothesis if is_last else text).strip(" ."),
            )
        )
        numbers[name.strip()] = len(steps)
    return tuple(steps)


def match(steps: Sequence[ProofStep], task: RankingTask) -> dict[int, tuple[str, ...]]:
    """Docids of each step's facts among the relevant candidates, by step number.

    A fact that is not judged relevant is left out: what is said about a document must not
    contradict its grade.
    """
    grades = task.grades or {}
    relevant = [c for c in task.candidates if grades.get(c.docid, 0) > 0]
    by_words = {words(c.text): c.docid for c in relevant}
    return {
        step.number: tuple(by_words[words(f)] for f in step.facts if words(f) in by_words)
        for step in steps
    }


def _arrows(proof: str) -> str:
    """Rewrite the second form of a proof as the first."""
    if "[INFER]" not in proof:
        return proof
    steps = [part.replace(";", " /") for part in proof.split("[BECAUSE]") if part.strip()]
    joined = "; ".join(step.strip() for step in steps)
    return joined.replace("[AND]", "&").replace("[INFER]", "->")
