"""How large the code is and how it hangs together: files, lines, functions, imports in a circle.

    python benchmarks/house.py

Counts what git tracks of dress, lit_modules, datamodules and run.py.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

PLACES = ("dress", "lit_modules", "datamodules", "run.py")
Graph = Mapping[str, frozenset[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def tracked_files(root: Path) -> list[Path]:
    command = ["git", "-C", str(root), "ls-files", "--", *PLACES]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return sorted(root / name for name in names if name.endswith(".py") and (root / name).exists())


def dotted(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported_names(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Yield what one statement imports: the module, and the name taken from it."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from ((node.module, alias.name) for alias in node.names)


def file_graph(root: Path, files: list[Path]) -> Graph:
    """Map each module of `files` to the modules of `files` that it imports, anywhere in it."""
    modules = {dotted(path, root): path for path in files}

    def edges(name: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(modules[name].read_text(encoding="utf-8"))):
            for module, part in imported_names(node):
                whole = f"{module}.{part}"
                target = whole if whole in modules else module
                if target in modules and target != name:
                    yield target

    return {name: frozenset(edges(name)) for name in modules}


def package_of(module: str) -> str:
    """Name the room of a module: a package inside dress, or what stands at the top."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "dress" else parts[0]


def package_graph(graph: Graph) -> Graph:
    """Join the modules of each package."""
    packages: dict[str, set[str]] = {package_of(module): set() for module in graph}
    for module, targets in graph.items():
        packages[package_of(module)] |= {package_of(target) for target in targets}
    return {name: frozenset(targets - {name}) for name, targets in packages.items()}


def reachable(graph: Graph, start: str) -> set[str]:
    """Return all that `start` imports, directly or through others."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return seen


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups whose members all import each other, directly or through others."""
    below = {name: reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in below[name] if name in below[other]))
        for name in graph
        if name in below[name]
    }
    return [list(group) for group in sorted(groups)]


def pairs(graph: Graph) -> list[str]:
    """Return the pairs that import each other directly."""
    return [
        f"{one} and {other}"
        for one, targets in sorted(graph.items())
        for other in sorted(targets)
        if one < other and one in graph[other]
    ]


def local_imports(path: Path) -> int:
    """Count the import statements inside functions."""
    statements = {
        node
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, Function)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return len(statements)


def function_lengths(path: Path) -> list[int]:
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, Function)
    ]


def rows(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each figure with its name."""
    files = tracked_files(root)
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in files]
    functions = [length for path in files for length in function_lengths(path)]
    graph = file_graph(root, files)
    yield "files", f"{len(files):,}"
    yield "lines", f"{sum(lines):,}"
    yield "files of under 40 lines", str(sum(0 < count < 40 for count in lines))
    yield "longest file, lines", str(max(lines))
    yield "functions", f"{len(functions):,}"
    yield "lines of a function, median and longest", f"{median(functions):g}, {max(functions)}"
    yield "imports inside functions", str(sum(map(local_imports, files)))
    for kind, part in (("packages", package_graph(graph)), ("files", graph)):
        groups = circles(part)
        yield f"circles among {kind}", str(len(groups))
        yield from (("", ", ".join(group)) for group in groups)
        yield from (("  they import each other", pair) for pair in pairs(part))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    for name, figure in rows(parser.parse_args().root):
        print(f"{name:42}{figure}")


if __name__ == "__main__":
    main()
