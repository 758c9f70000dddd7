"""The rules of the house that no linter knows: sizes of files, unique class names, annotated functions."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for package in ("llmsched_env", "baselines", "agents") for path in (ROOT / package).rglob("*.py"))
MOST_LINES = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_too_long_to_be_read_at_once():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_two_classes_have_one_name():
    """Public classes, but for the laws of `dist` and `delays`, which are read with their module: `dist.Constant`."""
    names = Counter(
        node.name
        for path in FILES
        if path.name not in ("dist.py", "delays.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name: count for name, count in names.items() if count > 1} == {}


def test_what_is_not_compiled_is_annotated():
    """mypy leaves functions without annotations alone in modules that numba compiles; only numba's may have none."""
    bare = [
        f"{name_of(path)}: {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and not _compiled(node) and not _annotated(node)
    ]
    assert bare == []


def _compiled(node: ast.FunctionDef) -> bool:
    return any("compiled" in ast.unparse(decorator) for decorator in node.decorator_list)


def _annotated(node: ast.FunctionDef) -> bool:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    own = [argument for argument in arguments if argument.arg not in ("self", "cls", "_")]
    return node.returns is not None and all(argument.annotation is not None for argument in own)


def test_nothing_stands_for_the_place_of_a_field():
    """A tuple of names bound to range(n) is for values, such as phases, and never an index."""
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        enumerated = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and _is_range(node.value)
            for group in node.targets
            for target in ast.walk(group)
            if isinstance(target, ast.Name)
        }
        found += [
            f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Subscript)
            and any(isinstance(part, ast.Name) and part.id in enumerated for part in ast.walk(node.slice))
        ]
    assert found == []


def _is_range(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"
