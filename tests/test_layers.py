"""Imports go one way: conf and run.py -> lit_modules, datamodules -> dress; never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("dress", "datamodules", "lit_modules")
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
LIGHTNING = ("lightning", "pytorch_lightning")
HYDRA = ("hydra", "omegaconf")
LAZY = {  # imports inside functions: what takes seconds or is seldom installed, by its importer
    "dress/__init__.py": {"dress.loading"},  # `import dress` takes no second
    "dress/data/stores/store.py": {"dress.data.stores"},  # by the scheme of an address
    "dress/evaluation/benchmarks/amber_generative.py": {"nltk", "spacy"},  # optional
    "dress/jobs/chat.py": {"dress.page"},  # gradio
    "dress/jobs/annotate.py": {"dress.jobs"},  # torch
    "dress/jobs/response_source.py": {"dress.loading", "dress.modeling", "torch"},
    "dress/jobs/evaluate.py": {"dress.jobs"},
    "dress/jobs/export.py": {"dress.jobs", "huggingface_hub"},  # torch; a second
    "dress/jobs/plan.py": {"dress.jobs", "dress.modeling", "torch"},
    "dress/jobs/report.py": {"dress.reporting"},  # matplotlib
    "dress/jobs/resolved.py": {"dress.chat", "dress.modeling"},  # torch
    "dress/jobs/slurm.py": {"lightning"},  # seconds, where srun started several tasks
    "dress/jobs/train.py": {"dress.jobs", "lit_modules"},  # Lightning
    "dress/modeling/gpu_attention.py": {"flash_attn"},  # optional, needs CUDA
    "dress/page/human.py": {"dress.page"},  # gradio
    "dress/page/annotation_queue.py": {"krippendorff"},  # an extra
    "dress/reporting/dashboard.py": {"wandb_workspaces"},  # optional
    "lit_modules/callbacks/sample_table.py": {"wandb"},  # seconds
    "lit_modules/loggers/weights_and_biases.py": {"wandb"},
}
EXTRAS = {  # import what is seldom installed: lmms-eval and gradio
    "lmms_model.py",
    *("annotation_page.py", "chat_layout.py", "chat_page.py", "events.py", "feedback_form.py"),
    "guard.py",
    "server.py",
}
PLUG_INS = ("sources", "benchmarks")  # their files are named after data sets, which have both


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> Sequence[str]:
    """Return the full dotted name of everything that a file imports, inside functions too."""
    return [*names(tree(path), path)]


def lazy_imports(path: Path) -> Iterator[str]:
    """Yield what a file imports inside functions only."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from names(node, path)


def names(tree: ast.AST, path: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path: Path) -> str:
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def package_of(module: str) -> str:
    """Name the package of a file: dress.chat of dress.chat.images, dress.types of itself."""
    return ".".join(module.split(".")[: 2 if module.startswith("dress") else 1])


def edges(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield importer and imported file, by their dotted names."""
    modules = {module_of(path) for path in paths}
    for path in paths:
        for name in imports(path):
            for found in (name, name.rpartition(".")[0]):
                if found in modules and found != module_of(path):
                    yield module_of(path), found
                    break


def circle(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return the first circle that is met, closed, or nothing."""
    graph: Mapping[str, set[str]] = defaultdict(set)
    for importer, imported in pairs:
        graph[importer].add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


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


def test_a_file_imports_nothing_above_it() -> None:
    for path in FILES:
        above = [name for name in imports(path) if offends(name, forbidden(path))]
        assert above == [], name_of(path)


def test_no_file_is_in_a_circle() -> None:
    assert circle(edges(FILES)) == []


def test_no_package_is_in_a_circle() -> None:
    pairs = ((package_of(one), package_of(other)) for one, other in edges(FILES))
    assert circle((one, other) for one, other in pairs if one != other) == []


def test_circles_are_found() -> None:
    assert circle([("a", "b"), ("b", "c"), ("c", "d")]) == []
    assert set(circle([("a", "b"), ("b", "c"), ("c", "b")])) == {"b", "c"}
    found = set(edges(FILES))
    assert ("dress.types", "dress.records") in found and len(found) > 500
    assert ("dress", "dress.loading") in found  # inside a function
    assert package_of("dress.data.stores.store") == "dress.data"
    assert package_of("lit_modules.callbacks.train_state") == "lit_modules"


def test_only_what_is_listed_is_imported_inside_functions() -> None:
    for path in FILES:
        allowed = tuple(LAZY.get(name_of(path), ()))
        unlisted = [name for name in lazy_imports(path) if not offends(name, allowed)]
        assert unlisted == [], name_of(path)


def test_every_lazy_import_on_the_list_is_made() -> None:
    made = {name_of(path): [*lazy_imports(path)] for path in FILES}
    assert LAZY.keys() <= {name for name, found in made.items() if found}
    for name, allowed in LAZY.items():
        assert {a for a in allowed if not any(offends(n, (a,)) for n in made[name])} == set()


def test_a_file_name_says_which_file_it_is() -> None:
    plain = [path for path in FILES if path.parent.name not in PLUG_INS]
    names = Counter(path.stem for path in plain if path.stem != "__init__")
    assert {name for name, count in names.items() if count > 1} == set()


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
        if path.name not in EXTRAS
    ]
    code = (
        f"import sys, importlib\n[importlib.import_module(m) for m in {modules!r}]\n"
        f"print([m for m in {LIGHTNING + HYDRA!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_a_job_needs_at_once_waits_for_no_torch() -> None:
    code = (
        "import sys, dress.evaluation.benchmark, dress.evaluation.statistics\n"
        "import dress.reporting.tables, dress.reporting.selection, dress.reporting.dashboard\n"
        "print([m for m in ('torch', 'matplotlib', 'openai') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_run_stays_a_dozen_lines() -> None:
    assert len((ROOT / "run.py").read_text().splitlines()) <= 20
