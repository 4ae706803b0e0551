"""House rules that ruff does not know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = sorted(
    p for d in ("dress", "datamodules", "lit_modules") for p in (ROOT / d).rglob("*.py")
)
EVERY = [*SOURCE, ROOT / "run.py", *sorted((ROOT / "tests").rglob("*.py"))]
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MAY_PASS_ON = {"to", "on_run_start", "on_multirun_start"}  # what torch and Hydra prescribe
UNTYPED = {"self", "cls", "function"}  # the last in Movable._map, where mypy infers nothing better
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def calls(path: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: k.value for k in node.keywords if k.arg}


def length(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def test_files_and_functions_stay_small() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERY}
    assert {name: count for name, count in lines.items() if count > 300} == {}
    assert {path.stem for path in EVERY} & {"utils", "util", "helpers", "misc", "common"} == set()
    for path in EVERY:
        limit = 60 if path in SOURCE else 90
        long = {f.name: length(f) for f in functions(path) if length(f) > limit}
        assert long == {}, name_of(path)


def test_a_function_names_its_parameters_and_types() -> None:
    for path, function in ((p, f) for p in SOURCE for f in functions(p)):
        where, arguments = f"{name_of(path)}, {function.name}", function.args
        if (sink := arguments.kwarg) and function.name not in MAY_PASS_ON:
            kind = ast.unparse(sink.annotation) if sink.annotation else "Any"
            assert kind not in ("Any", "object"), f"{where} takes any **{sink.arg}"
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        bare = [a.arg for a in named if a.annotation is None and a.arg not in UNTYPED]
        assert bare == [], f"{where}: {bare}"


def imported(path: Path) -> set[str]:
    """Return the packages that a file imports."""
    names = set[str]()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
    return names


def test_nothing_unpickles_or_runs_foreign_code() -> None:
    assert {name_of(path): found for path in SOURCE if (found := imported(path) & PICKLES)} == {}
    for path, (name, keywords) in ((p, call) for p in SOURCE for call in calls(p)):
        where = f"{name_of(path)}: {name}"
        assert name not in ("eval", "exec", "yaml.load", "os.system"), where
        if name == "torch.load":
            assert ast.unparse(keywords["weights_only"]) == "True", where
        for key in ("trust_remote_code", "shell", "allow_pickle"):
            assert key not in keywords or ast.unparse(keywords[key]) == "False", f"{where}: {key}"


def test_the_rules_bite() -> None:
    assert len(SOURCE) > 200 and len(EVERY) > 450
    assert sum(1 for path in SOURCE for _ in functions(path)) > 1000
    assert "ast" in imported(Path(__file__)) and "torch" in imported(ROOT / "dress/types.py")
