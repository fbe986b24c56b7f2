"""Imports point one way: each package imports only from those before it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hornbook

ROOT = Path(hornbook.__file__).parent

ORDER = [
    {"atomic", "config", "errors", "lock", "log", "manifest", "proc", "progress", "machine", "small_files"},
    {"text"},
    {"kernels"},
    {"data"},
    {"layers"},
    {"models"},
    {"adapt"},
    {"parallel"},
    {"formats"},
    {"checkpoint"},
    {"run"},
    {"exchange"},
    {"generation"},
    {"scoring"},
    {"tasks"},
    {"lessons"},
    {"evaluation"},
    {"compression"},
    {"training"},
    {"doctor"},
    {"mistakes"},
    {"inspection"},
    {"pictures", "report"},
    {"ladder", "morphing", "bench", "comparing"},
    {"sweeping"},
    {"planning"},
    {"serving"},
    {"commands", "talk"},
    {"cli", "parsing"},
]
PLACE = {name: place for place, names in enumerate(ORDER) for name in names}
FILES = sorted(
    path for path in ROOT.rglob("*.py") if path.name not in ("__main__.py",) and path != ROOT / "__init__.py"
)


def part(path: Path) -> str:
    """The package or module of hornbook that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The parts of hornbook that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "hornbook" else [f"hornbook.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {
            name.split(".")[1] for name in names if name.startswith("hornbook.") and name != "hornbook.__version__"
        }
    return found


def test_every_part_has_its_place_in_the_order() -> None:
    assert {part(path) for path in FILES} == set(PLACE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_what_comes_before_it(path: Path) -> None:
    here = part(path)
    for there in imports(path):
        assert there == here or PLACE[there] <= PLACE[here], f"{here} must not import {there}"


@pytest.mark.parametrize("package", ["commands", "config"])
def test_modules_import_one_another_in_no_circle_nor_the_package_that_gathers_them(package: str) -> None:
    graph = {}
    for path in (ROOT / package).glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = [f"{node.module}." for node in nodes if isinstance(node, ast.ImportFrom)]
        inside = [name.split(".") for name in names if name.startswith(f"hornbook.{package}.")]
        graph[path.stem] = {name[2] or "__init__" for name in inside}
    TopologicalSorter(graph).prepare()


def test_every_verb_is_named_to_whoever_imports_all() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert sorted(hornbook.__all__) == sorted(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("package", ["text", "scoring", "report", "config", "errors", "small_files"])
def test_what_needs_no_torch_imports_none(package: str) -> None:
    for path in FILES:
        if part(path) == package:
            modules = {
                name.name if isinstance(node, ast.Import) else node.module
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in node.names
            }
            assert not any(m and m.split(".")[0] == "torch" for m in modules), path


def test_shared_code_knows_no_family_by_name() -> None:
    families = {path.stem for path in (ROOT / "models").glob("*.py")} - {"__init__"}
    for path in FILES:
        if part(path) in ("layers", "training", "generation", "evaluation", "checkpoint", "run", "data"):
            strings = {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not strings & families, path


def test_no_module_bears_a_verb_s_name() -> None:
    """A module that is imported would take the verb's place."""
    assert not {part(path) for path in FILES} & set(hornbook.__all__)
