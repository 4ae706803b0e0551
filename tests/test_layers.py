"""Imports go one way: conf and run.py -> lit_modules, datamodules -> dress."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("dress", "datamodules", "lit_modules")
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
LIGHTNING = ("lightning", "pytorch_lightning")
HYDRA = ("hydra", "omegaconf")


def imports(path: Path) -> Iterator[str]:
    """Yield the full dotted name of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).parts
    if parts[:2] == ("dress", "jobs"):
        return ("run",)
    if parts[0] == "dress":
        return ("run", "dress.jobs", "datamodules", "lit_modules", *LIGHTNING, *HYDRA)
    other = "lit_modules" if parts[0] == "datamodules" else "datamodules"
    return ("run", "dress.jobs", other, *HYDRA)


def offends(name: str, layers: tuple[str, ...]) -> bool:
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_nothing_above_it(path: Path) -> None:
    assert [name for name in imports(path) if offends(name, forbidden(path))] == []


def test_the_rules_bite(tmp_path: Path) -> None:
    assert len(FILES) > 60
    sample = tmp_path / "sample.py"
    sample.write_text("def f():\n    from lightning.pytorch import Trainer\nimport hydra as h\n")
    assert set(imports(sample)) == {"lightning.pytorch.Trainer", "hydra"}
    rules = forbidden(ROOT / "dress" / "types.py")
    assert all(offends(name, rules) for name in imports(sample))
    assert not offends("lightning_utilities", rules) and not offends("running", rules)
    assert offends("dress.jobs.job", forbidden(ROOT / "lit_modules" / "alignment.py"))
    assert not offends("hydra.utils", forbidden(ROOT / "dress" / "jobs" / "job.py"))


def test_the_library_pulls_in_neither_lightning_nor_hydra() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.relative_to(ROOT).parts[0] == "dress" and "jobs" not in path.parts
        if path.name != "lmms_model.py"  # imports lmms-eval, which is seldom installed
    ]
    code = (
        f"import sys, importlib\n[importlib.import_module(m) for m in {modules!r}]\n"
        f"print([m for m in {LIGHTNING + HYDRA!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_run_stays_a_dozen_lines() -> None:
    assert len((ROOT / "run.py").read_text().splitlines()) <= 20
