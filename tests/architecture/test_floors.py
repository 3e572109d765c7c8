"""Imports point down only, and floors 0-2 load no torch.

Every module of rank_rl stands on a floor; it may import its own floor and those below, inside
functions too. Heavy packages belong to the floor that needs them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rank_rl

ROOT = Path(rank_rl.__file__).parent
FLOORS = [
    {"records", "errors", "registry", "metrics", "seeds"},
    {"formats", "data", "specs"},
    {"rewards", "strategies"},
    {"losses", "models", "generation"},
    {"teachers", "training", "hub", "bench", "report", "recipe", "attacks"}
    | {"ranker", "rerank", "sessions", "batcher", "serve", "integrations", "reranking"},
    {"cli", "__main__", "__init__"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# Neighbours on one floor whose order is fixed too.
NOT_SIDEWAYS = {
    ("formats", "data"),
    ("specs", "formats"),
    ("specs", "data"),
    ("strategies", "rewards"),
}

# The lowest floor that may import a package at all, inside functions included.
HEAVY = dict.fromkeys(("torch", "transformers", "peft", "accelerate", "vllm", "openai"), 3)
HEAVY |= {"trl": 4, "deepspeed": 4, "ranx": 4}
# Packages that floors 0-2 may import at the top of a file; the rest only inside functions.
LIGHT = [set(), {"pydantic", "yaml"}, set()]


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def unit(path: Path) -> str:
    """The package or module directly under rank_rl that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every imported module by full name, wherever in the file it is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "rank_rl":
                yield from ((f"rank_rl.{alias.name}", node) for alias in node.names)
            else:
                yield (("." * node.level) + (node.module or ""), node)


def place(path: Path, node: ast.stmt) -> str:
    return f"{path.relative_to(ROOT.parent)}:{node.lineno}"


def typing_only(tree: ast.Module) -> set[ast.stmt]:
    """Imports under ``if TYPE_CHECKING``, which never run."""
    blocks = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]
    return {n for block in blocks for n in ast.walk(block) if isinstance(n, ast.stmt)}


def test_every_module_stands_on_a_floor():
    unknown = {unit(p) for p in modules()} - set(FLOOR_OF)
    assert not unknown, f"give {sorted(unknown)} a floor in {Path(__file__).name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    own = unit(path)
    wrong = []
    for name, node in imports(ast.parse(path.read_text())):
        if name.startswith("."):
            wrong.append(f"{place(path, node)}: relative import")
        if not name.startswith("rank_rl."):
            continue
        target = name.split(".")[1]
        if target.startswith("__"):
            continue
        if FLOOR_OF.get(target, 9) > FLOOR_OF[own] or (own, target) in NOT_SIDEWAYS:
            wrong.append(f"{place(path, node)}: {own} imports {target}")
    assert not wrong, wrong


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_stay_on_their_floor(path: Path):
    tree = ast.parse(path.read_text())
    floor = FLOOR_OF[unit(path)]
    unused = typing_only(tree)
    wrong = []
    for name, node in imports(tree):
        package = name.split(".")[0]
        if node not in unused and floor < HEAVY.get(package, 0):
            wrong.append(f"{place(path, node)}: {package} on floor {floor}")
        at_top = node in tree.body
        allowed = sys.stdlib_module_names | {"rank_rl"} | (LIGHT[floor] if floor < 3 else {package})
        if at_top and package not in allowed:
            wrong.append(f"{place(path, node)}: {package} at the top of a file of floor {floor}")
    assert not wrong, wrong


def test_floors_0_to_2_load_no_torch():
    names = sorted(
        ".".join(("rank_rl", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for p in modules()
        if FLOOR_OF.get(unit(p), 9) <= 2
    )
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"heavy = set({sorted(HEAVY)!r} + ['numpy', 'datasets', 'bm25s', 'ir_datasets'])\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
