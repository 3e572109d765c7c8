"""The model card: metadata that the Hub indexes, and a page made of the run's own files.

Contract: nothing is typed here about a checkpoint but what its contract, its stages, its benchmarks
and the options of ``publish`` say; what is not known reads "unknown". The same files give the same
card, without a date.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import rank_rl
from rank_rl import formats
from rank_rl.hub import results, training, usage
from rank_rl.hub.licence import Licence
from rank_rl.hub.lineage import Lineage
from rank_rl.hub.results import Measured, cell
from rank_rl.hub.scrub import portable_text
from rank_rl.hub.training import UNKNOWN
from rank_rl.hub.usage import Published
from rank_rl.models.tokens import ChatTokens

KINDS = {
    "slots": "It reads each document behind the query and says one label; the probability of that "
    "label is the document's score.",
    "scorer": "It is an encoder with a head, which scores documents without writing.",
}
LIBRARY = "rank_rl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card is made of.

    Attributes:
        published: the repository and how the checkpoint is asked.
        lineage: stages and base model.
        licence: of the weights.
        base_licence: what the base model says of itself.
        benches: what was measured.
        base_model: Hub id of the base; empty where it is unknown.
        datasets: Hub ids of training data.
        languages: codes of languages, where somebody said them.
        form: what the weights are: ``whole``, ``merged`` or ``adapter``.
    """

    published: Published
    lineage: Lineage
    licence: Licence
    base_licence: Licence
    benches: tuple[Measured, ...] = ()
    base_model: str = ""
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    form: str = "whole"

    def text(self) -> str:
        """The whole ``README.md``."""
        from huggingface_hub import ModelCard

        body = "\n".join(_body(self))
        card = ModelCard(f"---\n{self._metadata()}\n---\n\n{body}")
        return str(card)

    def _metadata(self) -> str:
        from huggingface_hub import ModelCardData

        contract = self.published.contract
        stages = [stage.name for stage in self.lineage.stages]
        tags = [LIBRARY, "reranker", "reranking", contract.format.name, contract.mode, *stages]
        tags += ["lora", "peft"] if self.form == "adapter" else []
        found = results.eval_results(self.benches)
        relation = "adapter" if self.form == "adapter" else "finetune"
        known: dict[str, Any] = {
            **self.licence.metadata(),
            "language": list(self.languages),
            "base_model": self.base_model,
            "base_model_relation": relation if self.base_model else "",
            "datasets": list(self.datasets),
            "pipeline_tag": results.TASK,
            "library_name": LIBRARY,
            "tags": tags,
            "model_name": self.published.name.split("/")[-1] if found else "",
            "eval_results": found,
        }
        data = ModelCardData(**{key: value for key, value in known.items() if value})
        return str(data.to_yaml())


def _body(card: Card) -> list[str]:
    name = card.published.name.split("/")[-1]
    return [
        f"# {name}",
        "",
        *_what(card),
        "",
        "## Results",
        "",
        *_results(card),
        "## How it was trained",
        "",
        *training.section(card.lineage, card.benches),
        *_files(card.lineage),
        "",
        "## How it is asked",
        "",
        *_asked(card.published),
        "",
        "## How to use it",
        "",
        *usage.section(card.published),
        "## Intended use and limits",
        "",
        *(f"- {line}" for line in _limits(card)),
        "",
        "## Licences",
        "",
        *(f"- {line}" for line in _licences(card)),
        "",
        f"This card was made by `rank-rl publish` (rank_rl {rank_rl.__version__}) from the files "
        "of the run; nothing in it was written by hand.",
        "",
    ]


def _what(card: Card) -> list[str]:
    published = card.published
    contract = published.contract
    fmt = formats.make(contract.format)
    written = "It writes the answer as text, which is parsed." if contract.readout != "score" else (
        "It is asked for a label, whose probability is read; nothing is written."
    )  # fmt: skip
    form = {
        "adapter": f"LoRA adapter (r {published.rank}) for {published.base}",
        "merged": "whole weights, a LoRA adapter merged into its base",
        "whole": "whole weights",
    }[card.form]
    rows = {
        "task": "reranking: order the documents that a first stage found for a query",
        "weights": f"{form}, safetensors"
        + (f", `{published.architecture}`" if published.architecture else ""),
        "base model": training.base_text(card.lineage),
        "stages": " → ".join(s.name for s in reversed(card.lineage.stages)),
        "trained on": training.data_of(card.lineage.last, card.benches).text(),
        "format": f"`{contract.version}`, mode `{contract.mode}`",
        "licence": _licence_text(card.licence),
    }
    return [
        "A reranker, trained with the toolkit rank_rl. " + KINDS.get(formats.kind(fmt), written),
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in rows.items()),
    ]


def _files(lineage: Lineage) -> list[str]:
    """Where recipes and logs of the stages are in the repository."""
    last, *before = lineage.stages
    found = ["`provenance.json` holds what every stage ran with."]
    if last.provenance:
        found.append(f"Recipe and log of stage {last.name}: `recipe.yaml`, `training_log.jsonl`.")
    if any(stage.provenance for stage in before):
        found.append("Those of the stages before it: `training/`.")
    return [" ".join(found)]


def _results(card: Card) -> list[str]:
    if not card.benches:
        return ["Not measured: this checkpoint was published without a benchmark.", ""]
    return [line for bench in card.benches for line in results.section(bench)]


def _asked(published: Published) -> list[str]:
    contract = published.contract
    spec = contract.format
    rows = {
        "format": f"`{spec.name}`, mode `{spec.mode}`, wording `{contract.version}`",
        "strategy": f"`{contract.strategy.name}`"
        + "".join(f", {key} {value}" for key, value in contract.strategy.params.items()),
        "readout": f"`{contract.readout}`"
        + (", reasoning skipped" if contract.reasoning == "skip" else ""),
        "most tokens": f"{spec.doc_tokens} a document, {spec.prompt_tokens} a prompt, "
        f"{contract.max_new_tokens} an answer or explanation",
        "tells of the first stage": spec.first_stage_hint,
    }
    lines = [
        f"`rank_rl.json` pins this (contract `{contract.hash}`); rank_rl reads it and refuses "
        "another wording.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {cell_code(value)} |" for key, value in rows.items()),
        "",
    ]
    if not published.example.prompts:
        query, documents = _texts(published)
        shown = [f"query:    {query}", *(f"document: {text}" for text in documents)]
        return [*lines, "What it reads of a small example:", "", *usage.fenced(shown, "text")]
    prompt = published.example.prompts[0]
    text = ChatTokens(published.tokenizer).text(prompt)
    count = len(published.example.prompts)
    which = "One of its prompts" if count > 1 else "The prompt"
    lines += [f"{which} for a small example, as the model reads it:", ""]
    lines += usage.fenced([text], "text")
    if published.example.choices:
        labels = ", ".join(f"`{choice}`" for choice in published.example.choices)
        lines += ["", f"What may follow: {labels}."]
    return lines


def _texts(published: Published) -> tuple[str, tuple[str, ...]]:
    fmt = formats.make(published.contract.format)
    found: tuple[str, tuple[str, ...]] = fmt.texts(published.example.views[0])  # type: ignore[attr-defined]
    return found


def cell_code(text: str) -> str:
    """Text of a table that may hold code."""
    return " ".join(text.split()).replace("|", "/")


def _limits(card: Card) -> Iterator[str]:
    contract = card.published.contract
    data = training.data_of(card.lineage.last, card.benches)
    yield (
        "Meant to reorder some tens of documents that another system found for a query. It finds "
        "no documents, and does not check whether what they say is true."
    )
    yield f"Its last stage saw the {data.text()}; what is unlike them was not trained."
    languages = ", ".join(card.languages)
    yield f"Languages: {languages or UNKNOWN}."
    spec = contract.format
    which = ", its sentence nearest to the query first" if spec.snippet == "query" else ""
    yield f"At most {spec.doc_tokens} tokens of a document are read{which}."
    if spec.first_stage_hint != "none" or spec.params.get("context"):
        behind = " It was measured behind the first stage named above." if card.benches else ""
        yield f"Its prompts tell the first stage's order, so that rankings depend on it.{behind}"
    if not card.benches:
        yield "How well it ranks is unknown: no benchmark was published with it."
    for bench in card.benches:
        yield from results.verdicts(bench)
    if contract.mode == "reason":
        yield "What it writes as reasons is generated text and need not be why it ranked so."


def _licence_text(licence: Licence) -> str:
    if licence.id == "unknown":
        return UNKNOWN
    name = licence.name if licence.id == "other" else licence.id
    return f"[{name}]({licence.link})" if licence.link else name


def _licences(card: Card) -> Iterator[str]:
    said = f", as {card.licence.source} says" if card.licence.source else ""
    yield f"This checkpoint: {_licence_text(card.licence)}{said}."
    base, own = card.base_licence, portable_text(card.lineage.base) or UNKNOWN
    name = card.base_model or (UNKNOWN if card.lineage.broken else own)
    source = f", as {base.source} says" if base.source else ""
    yield f"Its base model ({cell(name)}): {_licence_text(base)}{source}."
    yield from dict.fromkeys(
        f"Training data ({cell(stage.contract.data) or UNKNOWN}): {training.data_licence(stage)}."
        for stage in card.lineage.stages
    )
