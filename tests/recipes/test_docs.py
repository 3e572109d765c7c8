"""The documentation against the code: names, keys, defaults, commands, links and table blocks."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rank_rl import data, formats, generation, losses, registry, rewards, specs, strategies
from rank_rl.bench import tables
from rank_rl.cli import arm_plan, pipeline
from rank_rl.cli.app import app
from rank_rl.data import lessons
from rank_rl.generation.endpoint import EndpointSettings
from rank_rl.hub.contract import PromptContract
from rank_rl.recipe import load
from rank_rl.records import Candidate, Order, Query, numbered
from rank_rl.teachers import asking, filters, imports, labels, push, synthesis
from rank_rl.training import STAGES

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "recipes.md"
TEACHERS = ROOT / "docs" / "teachers.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.md")]
)
# Heading of the table that lists the fields of each spec.
SECTIONS = {
    "RecipeSpec": "Sections",
    "RunSpec": "`run`",
    "ModelSpec": "`model`",
    "LoraSpec": "`model.lora`",
    "DataSpec": "`data`",
    "FirstStageSpec": "`data.first_stage`",
    "SamplerSpec": "`data.sampler`",
    "CurriculumSpec": "`data.curriculum`",
    "AttackSpec": "`data.attacks`",
    "FormatSpec": "`format`",
    "RewardSpec": "`rewards`",
    "LossSpec": "`losses`",
    "GrpoSpec": "`grpo`",
    "PassRateSpec": "`grpo.pass_rate`",
    "AlarmSpec": "`grpo.alarm`",
    "EvalSpec": "`eval`",
    "StrategySpec": "`eval.strategy`",
    "BenchSpec": "`bench`",
    "SystemSpec": "`bench.systems`",
    "CollectionSpec": "`bench.collections`",
    "DiagnosisSpec": "`bench.diagnosis`",
    "LeakSpec": "`data.leaks` and `bench.leaks`",
    "RankSpec": "`rank`",
    "FusionSpec": "`bench.systems.fusion`",
    "TeachSpec": "`teach`",
    "TeacherSpec": "`teach.teachers`",
    "PriceSpec": "`teach.teachers.price`",
    "QuestionSpec": "`teach.questions`",
    "LabelSpec": "`teach.labels`",
    "FilterSpec": "`teach.filters`",
    "ImportSpec": "`teach.imports`",
    "SynthesisSpec": "`teach.synthesis`",
    "PipelineSpec": "`pipeline.yaml`",
    "PipelineStage": "`stages` of a pipeline",
    "ArmsSpec": "`arms.yaml`",
    "ArmStagesSpec": "`stages` of arms",
    "ArmSpec": "`arms` of arms",
    "MethodSpec": "`method.yaml`",
    "MethodResultSpec": "`results` of a method",
}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
Rows = dict[str, list[str]]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def section(heading: str, page: Path = REFERENCE) -> str:
    """The text of a page below a heading, up to the next one."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def rows(heading: str, page: Path = REFERENCE) -> Rows:
    """The table rows below a heading: name in the first cell → the other cells."""
    found: Rows = {}
    for line in section(heading, page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            found[cells[0].strip("`| ")] = cells[1:]
    return found


def shown(value: Any) -> str:
    """A default as the reference writes it."""
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return repr(value)


def expected_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "defaults below" if isinstance(value, BaseModel) else f"`{shown(value)}`"


def spec_classes() -> dict[str, type[BaseModel]]:
    """Every section of recipes and pipelines."""
    found = {
        name: cls
        for name, cls in inspect.getmembers(specs, inspect.isclass)
        if issubclass(cls, specs.Spec) and cls not in (specs.Spec, specs.NamedSpec)
    }
    return found


def literals(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    for argument in get_args(annotation):
        yield from literals(argument) if get_origin(annotation) is not Literal else ()


def test_every_section_has_its_table() -> None:
    assert set(spec_classes()) == set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_fields_with_defaults_choices_and_bounds(name: str) -> None:
    cls, table = spec_classes()[name], rows(SECTIONS[name])
    fields = cls.model_fields
    if name == "CollectionSpec":  # which has the keys of `data` too
        fields = {key: fields[key] for key in inspect.get_annotations(cls)}
    assert list(table) == list(fields)
    for key, field in fields.items():
        value, default, meaning = table[key]
        assert default == expected_default(field), key
        assert meaning, key
        for choice in literals(field.annotation):
            assert f"`{choice}`" in value, f"{key}: {choice}"
        for limit in field.metadata:
            for attribute, sign in BOUNDS.items():
                if hasattr(limit, attribute):
                    assert f"{sign} {getattr(limit, attribute)}" in value, key


def arguments(kind: Any) -> dict[str, Any]:
    """Arguments of a class or function with their defaults; ``MISSING`` where there is none."""
    if not dataclasses.is_dataclass(kind):
        signature = inspect.signature(kind).parameters
        missing = inspect.Parameter.empty
        defaults = {p.name: p.default for p in signature.values()}
        return {k: dataclasses.MISSING if v is missing else v for k, v in defaults.items()}
    return {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for f in dataclasses.fields(kind)
        if f.init
    }


def parameters(kind: Any) -> dict[str, str]:
    """Parameters of a registry entry as the reference writes them; ``name`` is said once."""
    if dataclasses.is_dataclass(kind) or inspect.isfunction(kind) or not hasattr(kind, "prompts"):
        return {
            name: f"`{name}` (required"
            if default is dataclasses.MISSING
            else f"`{name}: {shown(default)}`"
            for name, default in arguments(kind).items()
            if name not in ("name", "model")
        }
    model = getattr(kind, "Params", None) or importlib.import_module(kind.__module__).Params
    return {
        key: f"`{key}: {shown(field.get_default(call_default_factory=True))}`"
        for key, field in model.model_fields.items()
    }


@pytest.mark.parametrize(
    ("kind", "table", "heading", "page"),
    [
        ("format", formats.TABLE, "Formats", REFERENCE),
        ("format", formats.INPUTS, "Inputs of scorers", REFERENCE),
        ("strategy", strategies.TABLE, "Strategies", REFERENCE),
        ("reward", rewards.TABLE, "Rewards by name", REFERENCE),
        ("loss", losses.TABLE, "Losses by name", REFERENCE),
        ("teacher", asking.TEACHERS, "Teachers by name", TEACHERS),
        ("labels", labels.TABLE, "Labels by name", TEACHERS),
        ("filter", filters.TABLE, "Filters by name", TEACHERS),
    ],
)
def test_registry_names_and_their_parameters(
    kind: str, table: dict[str, str], heading: str, page: Path
):
    documented = rows(heading, page)
    assert set(documented) == set(table)
    for name in set(table) - {"endpoint"}:  # which has a table of its own
        wanted = parameters(registry.resolve(kind, name, table))
        cell = documented[name][-1]
        for parameter, text in wanted.items():
            assert text in cell, f"{kind} {name}: {parameter}"
        named = set(re.findall(r"`(\w+)(?:: [^`]*)?`(?= \(|, |$)", cell))
        assert named == set(wanted), f"{kind} {name}"


def test_sources_with_their_parameters() -> None:
    documented = rows("Data sources")
    assert set(documented) == set(data.SOURCES)
    for name, target in data.SOURCES.items():
        module = importlib.import_module(target.partition(":")[0])
        text = documented["beir" if name == "bundled" else name][-1]
        for parameter in module.PARAMS:
            assert f"`params.{parameter}`" in text, f"{name}: {parameter}"
    for parameter in data.sources.COMMON_PARAMS:
        assert f"`params.{parameter}`" in section("Data sources")


def test_stages_generators_readouts_and_wordings() -> None:
    stages = section("Stages and what they need")
    for name in [*STAGES, "bench", "teach"]:
        assert f"`{name}`" in stages
    for name in generation.TABLE:
        assert f"`{name}`" in section("Generators")
    for name in get_args(specs.Readout):
        assert f"`{name}`" in section("Readouts")
    for file in (ROOT / "rank_rl" / "formats" / "wording").glob("*.yaml"):
        names = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert rows("Formats")[file.stem][1] == ", ".join(f"`{name}`" for name in names)


def test_filter_scopes() -> None:
    for name, (scope, *_) in rows("Filters by name", TEACHERS).items():
        kind = registry.resolve("filter", name, filters.TABLE)
        assert {f.name: f.default for f in dataclasses.fields(kind)}["scope"] == scope, name


def test_endpoint_parameters() -> None:
    # The model is a key of the teacher, `sampling` belongs to the question.
    known = {k: v for k, v in arguments(EndpointSettings).items() if k not in ("model", "sampling")}
    documented = rows("Endpoint parameters", TEACHERS)
    assert list(documented) == list(known)
    for name, default in known.items():
        assert documented[name][0] == f"`{shown(default)}`", name


def test_imports_with_examples_that_can_be_read(tmp_path: Path) -> None:
    documented = rows("Imports by name", TEACHERS)
    assert set(documented) == set(imports.IMPORTS)
    text = TEACHERS.read_text(encoding="utf-8")
    for name in imports.IMPORTS:
        for parameter in imports.COMMON:
            assert f"`{parameter}`" in documented[name][-1]
        records = code_blocks(text.partition(f"### `{name}` records")[2])[0][1]
        path = tmp_path / f"{name}.jsonl"
        path.write_text(records, encoding="utf-8")
        found = registry.resolve("import", name, imports.IMPORTS)(
            specs.ImportSpec(name=name, path=str(path))
        )
        assert not found.refused
        assert len(found.lessons) == len(records.splitlines())
    for kind in imports.KINDS:
        assert f"`{kind}`" in documented["think_chat"][-1]


def test_kinds_of_queries_and_columns_of_lessons() -> None:
    text = section("Queries for a corpus", TEACHERS)
    for kind in synthesis.KINDS:
        assert f"`{kind}`" in text
    view = numbered(Query(qid="q", text="?"), [Candidate(docid="d", text="t", rank=1)])
    record = lessons.as_record(lessons.Lesson(view=view, answer=Order(docids=("d",))))
    for column in (*record, "prompt", "completion"):
        assert f"`{column}`" in section("Files", TEACHERS), column
    for name in (*push.FILES, "exchanges.jsonl", "failures.jsonl", "ledger.json"):
        assert f"`{name}`" in section("Files", TEACHERS), name


def test_contract_keys() -> None:
    text = section("Files that a run writes")
    for field in dataclasses.fields(PromptContract):
        assert f"`{field.name}`" in text, field.name


def code_blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """What follows ``rank-rl`` or ``-m rank_rl``, in code blocks and in inline code."""
    shell = [body for language, body in code_blocks(text) if language in ("", "sh", "bash")]
    lines = [line for body in shell for line in body.replace("\\\n", " ").splitlines()]
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in [*lines, *re.findall(r"`([^`\n]+)`", plain)]:
        match = re.search(r"(?:^|[/ ])(?:rank-rl|-m rank_rl) +(.*)", line.partition(" # ")[0])
        if match and not match[1].startswith("STAGE "):
            yield shlex.split(re.split(r" [|>&]", match[1])[0])


@every_page
def test_commands_exist(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    known = {o for p in group.params for o in p.opts} | {"--help", "-h"}
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0].startswith("-"):
            assert words[0] in known, words
            continue
        for name in words[0].split("|"):
            assert name in group.commands, words
        own = group.commands[words[0].split("|")[0]].params
        options = {o for p in own for o in [*p.opts, *p.secondary_opts]} | {"--help", "-h"}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, words
            if word.startswith(("recipes/", "accelerate_configs/")):
                assert (ROOT / word).exists(), words


@every_page
def test_overrides_of_commands_fit_their_recipes(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(page.read_text(encoding="utf-8")):
        sets = [new for option, new in zip(words, words[1:], strict=False) if option == "--set"]
        if not sets or not words[1].startswith("recipes/"):
            continue
        if words[0] == "arms":
            arm_plan.load(Path(words[1]), sets)
        elif words[0] == "run":
            pipeline.load(Path(words[1]), sets)
        else:
            load(words[1], sets)


@every_page
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    lines = [line for _, body in code_blocks(text) for line in body.splitlines()]
    for line in [*lines, *re.findall(r"`(make [^`\n]+)`", text)]:
        match = re.match(r"(?:.* && )?make ([a-z-]+)", line)
        if match:
            assert match[1] in targets, line


@every_page
def test_python_and_yaml_examples_parse(page: Path) -> None:
    for language, body in code_blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(body, str(page), "exec")
        if language == "yaml":
            # Several one-line forms of a section may stand in one block.
            again = re.split(r"^(?=data: \{)", body, flags=re.MULTILINE)
            assert all(isinstance(yaml.safe_load(part), dict) for part in again if part.strip())


@every_page
def test_links_and_table_blocks_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    plain = re.sub(r"`[^`\n]*`", "", text)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", plain):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for target in re.findall(r"<!-- table:(\S+) -->", plain):
        # The result itself may not be there yet; the tool reads it relative to the page.
        assert (page.parent / target).resolve().parent == ROOT / "results", target
    assert len(tables._BLOCK.findall(plain)) == plain.count("<!-- table:")


def test_quickstart_prompt_is_shown_as_it_is() -> None:
    text = (ROOT / "recipes" / "quickstart" / "README.md").read_text(encoding="utf-8")
    (block,) = (body for _, body in code_blocks(text) if body.startswith("<|im_start|>system"))
    question = re.search(r"^Question: (.*)$", block, flags=re.MULTILINE)
    passage = re.search(r"^Passage: \(rank (\d+)\) (.*)<\|im_end\|>$", block, flags=re.MULTILINE)
    assert question and passage
    shown = re.findall(r"^Also found: (.*)$", block, flags=re.MULTILINE)
    first = [Candidate(docid=f"d{i}", text=text, rank=i) for i, text in enumerate(shown, 1)]
    asked = Candidate(docid="d", text=passage[2], rank=int(passage[1]))
    view = numbered(Query(qid="q", text=question[1]), [*first, asked])
    fmt = formats.make(load(ROOT / "recipes" / "quickstart" / "score.yaml").spec.format)
    *_, prompt = fmt.prompts(view)
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in prompt.messages]
    assert "".join(turns) + f"<|im_start|>assistant\n{prompt.prefill}" in block
    answer = block.rpartition(prompt.prefill)[2].removesuffix("\n")
    alone = numbered(view.query, [asked])
    assert fmt.parse(answer, alone, prefill=prompt.prefill).status == "ok"
