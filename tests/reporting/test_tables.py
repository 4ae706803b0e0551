"""The table and the headline gains, worked out by hand."""

from __future__ import annotations

import math

import pytest

from dress.reporting.comparison import gain_line, headline_gains
from dress.reporting.tables import table

BEFORE = {
    "world/helpfulness": 0.5,
    "world/chair_i": 0.10,
    "world/chair_s": 0.25,
    "world/safety": 0.8,
    "world/persuasiveness": 0.4,
}


def test_gains_follow_the_rules_that_decode_the_headline() -> None:
    after = {
        "world/helpfulness": 0.6,  # + 20 %
        "world/chair_i": 0.02,  # - 80 %
        "world/chair_s": 0.15,  # - 40 %
        "world/safety": 0.9,  # + 12.5 %
        "world/persuasiveness": 0.5,  # + 25 %
    }
    assert headline_gains(BEFORE, after) == pytest.approx(
        {"helpful": 20.0, "honest": 60.0, "harmless": 18.75}
    )
    assert headline_gains(BEFORE, BEFORE) == pytest.approx(
        {"helpful": 0.0, "honest": 0.0, "harmless": 0.0}
    )


def test_the_published_harmlessness_gain() -> None:
    # DRESS against miniGPT4 on VLSafe: 75.05 -> 88.56 and 74.14 -> 91.98
    before = BEFORE | {"world/safety": 75.05, "world/persuasiveness": 74.14}
    after = BEFORE | {"world/safety": 88.56, "world/persuasiveness": 91.98}
    assert headline_gains(before, after)["harmless"] == pytest.approx(21.03, abs=0.005)


def test_a_gain_over_nothing_is_not_a_number() -> None:
    gains = headline_gains(BEFORE | {"world/helpfulness": 0.0}, BEFORE)
    assert math.isnan(gains["helpful"]) and gains["honest"] == pytest.approx(0.0)


def test_a_table_shows_common_metrics_with_the_headline_first() -> None:
    first = {"world/count": 0.25, "world/mean": 0.5, "world/honesty": 0.75}
    first |= {f"{name}_low": v - 0.1 for name, v in first.items()}
    first |= {f"{name}_high": v + 0.1 for name, v in first.items() if "_" not in name}
    second = dict.fromkeys(first, 1.0) | {"world/extra": 0.0}
    lines = table({"stage 1": first, "stage 2": second}).splitlines()
    assert lines[0].split() == ["stage", "1", "stage", "2"]
    assert [line.split()[0] for line in lines[1:]] == [
        "world/honesty",
        "world/mean",
        "world/count",
    ]
    assert lines[1].split()[1:] == ["0.750", "[0.650,", "0.850]", "1.000", "[1.000,", "1.000]"]
    assert len({len(line) for line in lines}) == 1
    assert table({"x": {"a/b": 0.5}}).splitlines()[1].split() == ["a/b", "0.500"]


def test_a_gain_from_nothing_is_said_to_be_undefined() -> None:
    line = gain_line({"helpful": math.nan, "honest": -0.04, "harmless": 12.345})
    assert line == "gain: helpful undefined, from 0, honest -0.0 %, harmless +12.3 %"
