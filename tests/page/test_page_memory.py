"""A page that is used for long takes no more memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra `chat` is not installed")
ROOT = Path(__file__).resolve().parents[2]
WARM_UP, ANSWERS = 200, 600
MOST_GROWTH_MB = 12.0  # over 400 answers, of which the folder itself keeps about 1.5 MB


@pytest.mark.slow
def test_hundreds_of_answers_in_one_tab_leave_the_memory_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from chat_page import Tab, memory

    process = subprocess.Popen(
        [sys.executable, "-m", "tests.page.small_page", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        tab, taken = Tab(process.stdout.readline().strip()), []
        for number in range(1, ANSWERS + 1):
            if number % 5 == 1:
                tab.draw()
            tab.ask("What is it?")
            assert tab.judge(helpfulness=4, honesty=1, harmlessness=2)
            if number % 100 == 0:
                taken.append(memory(process.pid))
    finally:
        process.kill()
        process.wait()
    print(f"MB after every 100 answers: {[round(mb, 1) for mb in taken]}")
    assert taken[-1] - taken[WARM_UP // 100 - 1] < MOST_GROWTH_MB
