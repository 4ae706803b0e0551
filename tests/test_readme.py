"""The README and the pages say only what can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [TEXT, *(path.read_text() for path in PAGES)]
COMMANDS = sorted(
    {
        match
        for text in DOCUMENTS
        for match in re.findall(r"python run\.py ([^`#\n]+)", text.replace("\\\n", ""))
        if "--help" not in match
    }
)


def test_it_is_short_and_finished() -> None:
    assert TEXT.count("\n") <= 120
    assert not any(re.search(r"@[A-Z0-9]+@", text) for text in DOCUMENTS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str) -> None:
    # launchers are extras
    left_out = re.compile(r"-m|&&|hydra[./]launcher.*")
    words = [word for word in shlex.split(command) if not left_out.fullmatch(word)]
    overrides = [re.sub(r"=([^,={\[]*),.*", r"=\1", word).replace("<id>", "0") for word in words]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose("run", overrides=overrides)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 4
