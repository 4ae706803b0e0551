"""House rules that ruff does not know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
    limit = 60 if path in SOURCE else 90
    assert {f.name: length(f) for f in functions(path) if length(f) > limit} == {}
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")


@pytest.mark.parametrize("path", SOURCE, ids=name_of)
def test_a_function_names_its_parameters_and_types(path: Path) -> None:
    for function in functions(path):
        arguments = function.args
        if (sink := arguments.kwarg) and function.name not in MAY_PASS_ON:
            kind = ast.unparse(sink.annotation) if sink.annotation else "Any"
            assert kind not in ("Any", "object"), f"{function.name} takes any **{sink.arg}"
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        bare = [a.arg for a in named if a.annotation is None and a.arg not in UNTYPED]
        assert bare == [], f"{function.name}: {bare}"


@pytest.mark.parametrize("path", SOURCE, ids=name_of)
def test_nothing_unpickles_or_runs_foreign_code(path: Path) -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    assert not imported & PICKLES
    for name, keywords in calls(path):
        assert name not in ("eval", "exec", "yaml.load", "os.system"), name
        if name == "torch.load":
            assert ast.unparse(keywords["weights_only"]) == "True"
        for key in ("trust_remote_code", "shell", "allow_pickle"):
            assert key not in keywords or ast.unparse(keywords[key]) == "False", f"{name}: {key}"
