"""Imports of the package point one way: no file reaches itself through what it imports, not even inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import afmrl_cli

ROOT = Path(afmrl_cli.__file__).parent


def module_of(file: Path) -> str:
    parts = [ROOT.name, *file.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`, which no interpreter enters."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from nodes_that_run(other)
            continue
        yield node
        yield from nodes_that_run(node)


def imports_of(name: str, file: Path, modules: set[str]) -> set[str]:
    """The package's own modules that `file` imports, at its top or inside its functions."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes_that_run(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parent, *([node.module] if node.module else [])])
            inner = {f"{source}.{alias.name}" for alias in node.names} & modules
            # `from . import name` means the submodule where there is one, else the package's own name.
            found |= inner or {source}
    return (found & modules) - {name}


def import_graph(root: Path = ROOT) -> dict[str, set[str]]:
    files = {module_of(file): file for file in sorted(root.rglob("*.py"))}
    return {name: imports_of(name, file, set(files)) for name, file in files.items()}


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle, its first module repeated at the end; [] where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if cycle := visit(other, [*path, name]):
                return cycle
        done.add(name)
        return []

    return next((cycle for name in sorted(graph) if (cycle := visit(name, []))), [])


def test_no_file_imports_itself_through_others() -> None:
    graph = import_graph()
    assert graph["afmrl_cli.models.embedder"] >= {"afmrl_cli.models.base", "afmrl_cli.errors"}
    assert sum(map(len, graph.values())) > len(graph), "the graph is read, not empty"
    assert not find_cycle(graph), " -> ".join(find_cycle(graph))


def test_cycles_are_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
