"""An editable install works from wherever a script lies, also beside a clone called dress."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
# what Python does with the folder of installed packages, and then with the script
SCRIPT = "import site, sys; site.addsitedir(sys.argv[1]); import dress; print(dress.__file__)"


def test_a_clone_beside_the_script_does_not_hide_the_package(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("pyproject.toml asks for setuptools 77")
    clone, installed = tmp_path / "dress", tmp_path / "installed"
    for package in ("dress", "datamodules", "lit_modules"):
        shutil.copytree(ROOT / package, clone / package)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    build = [sys.executable, "-c", BUILD, str(tmp_path)]
    subprocess.run(build, cwd=clone, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    run = [sys.executable, "-S", "-c", SCRIPT, str(installed)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(clone / "dress" / "__init__.py")
