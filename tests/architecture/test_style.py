"""Limits that keep the package readable, checked on the syntax tree of every file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rank_rl

ROOT = Path(rank_rl.__file__).parent
MOST = {"file": 400, "function": 60, "class": 200, "parameters": 6}
GLOBAL_RANDOM = {
    "seed",
    "random",
    "randint",
    "randrange",
    "shuffle",
    "choice",
    "choices",
    "sample",
    "gauss",
}
Function = (ast.FunctionDef, ast.AsyncFunctionDef)

every_file = pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)


def lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Named parameters, without self and cls."""
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(a.arg not in ("self", "cls") for a in given)


@every_file
def test_sizes(path: Path):
    text = path.read_text()
    found = [("file", path.name, len(text.splitlines()))]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            found.append(("class", node.name, lines(node)))
        if isinstance(node, Function):
            found.append(("function", node.name, lines(node)))
            # The options of a command are its interface; a spec would only hide them.
            if path.parent.name != "cli":
                found.append(("parameters", node.name, parameters(node)))
    over = [
        f"{kind} {name}: {size} > {MOST[kind]}" for kind, name, size in found if size > MOST[kind]
    ]
    assert not over, over


@every_file
def test_opens_with_a_docstring(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())), "say what the file is for"


@every_file
def test_no_print_outside_cli(path: Path):
    if path.relative_to(ROOT).parts[0] in ("cli", "__main__.py"):
        return
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    found = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
    assert not found, f"print in lines {found}: use logging"


@every_file
def test_no_global_random(path: Path):
    wrong = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr in GLOBAL_RANDOM
    ]
    assert not wrong, f"global random in lines {wrong}: use rank_rl.seeds"


@every_file
def test_broad_except_raises_again_or_says_why(path: Path):
    text = path.read_text()
    rows = text.splitlines()
    wrong = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        names = (
            {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {""}
        )
        if not names & {"", "Exception", "BaseException"}:
            continue
        around = rows[node.lineno - 2 : node.lineno + 1]
        again = any(isinstance(n, ast.Raise) and n.exc is None for n in ast.walk(node))
        if node.type is None or not (again or any("#" in row for row in around)):
            wrong.append(node.lineno)
    assert not wrong, f"broad except without a comment in lines {wrong}"


def tables() -> list[tuple[Path, str, ast.expr]]:
    """Every registry table of the package with its value."""
    found = []
    for path in sorted(ROOT.rglob("__init__.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                for target in targets:
                    if isinstance(target, ast.Name) and target.id == "TABLE" and node.value:
                        found.append((path, target.id, node.value))
    return found


def test_tables_are_literal_and_name_what_exists():
    """Read without importing, so that a table of heavy parts is checked without torch."""
    assert tables()
    for path, _, value in tables():
        table = ast.literal_eval(value)
        for name, target in table.items():
            module, _, attribute = target.partition(":")
            where = f"{path.relative_to(ROOT)}: {name!r}"
            assert module.startswith("rank_rl."), where
            parts = module.split(".")[1:]
            file = ROOT.joinpath(*parts).with_suffix(".py")
            if not file.exists():
                file = ROOT.joinpath(*parts) / "__init__.py"
            assert file.exists(), f"{where}: no module {module}"
            defined = {
                n.name
                for n in ast.parse(file.read_text()).body
                if isinstance(n, (*Function, ast.ClassDef))
            }
            assert attribute in defined, f"{where}: no {attribute} in {module}"
