from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dress.assistant import Assistant
from dress.chat.condition import Condition, has_learned
from dress.errors import InputError
from dress.records import BANK, Prompt
from dress.types import ASPECTS, RATINGS, Feedback, Judgement

FEEDBACK = Feedback(
    {
        "honesty": Judgement(3, "One colour is wrong.", "Look again."),
        "helpfulness": Judgement(4, " Precise. "),
    }
)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("none", ""),
        ("score", "helpfulness 4 honesty 3"),
        ("critique", "Precise. One colour is wrong."),
        ("both", "helpfulness 4: Precise. honesty 3: One colour is wrong."),
    ],
)
def test_forms(form: str, text: str) -> None:
    condition = Condition(form=form, dropout=0.0)
    assert condition.text(FEEDBACK) == text
    assert condition.sample(FEEDBACK, seed=0, epoch=0, key="a") == text
    assert condition.text(None) == ""


def test_a_rating_without_critique() -> None:
    feedback = Feedback({"honesty": Judgement(2, "")})
    assert Condition(form="both").text(feedback) == "honesty 2"
    assert Condition(form="critique").text(feedback) == ""


def test_dropout_is_a_stable_draw_per_seed_epoch_and_key() -> None:
    condition = Condition(dropout=0.3)

    def dropped(seed: int, epoch: int) -> list[bool]:
        return [
            condition.sample(FEEDBACK, seed=seed, epoch=epoch, key=str(k)) == ""
            for k in range(2000)
        ]

    assert dropped(0, 0) == dropped(0, 0)
    assert dropped(0, 0) != dropped(0, 1) != dropped(1, 0)
    assert 0.27 < sum(dropped(0, 0)) / 2000 < 0.33  # three standard deviations
    assert Condition(dropout=1.0).sample(FEEDBACK, seed=0, epoch=0, key="a") == ""


def test_aspects_are_dropped_one_by_one() -> None:
    condition = Condition(form="score", dropout=0.1, aspect_dropout=0.3)
    feedback = Feedback({aspect: Judgement(2, "") for aspect in ASPECTS})
    texts = [condition.sample(feedback, seed=0, epoch=0, key=str(k)) for k in range(4000)]
    assert texts == [condition.sample(feedback, seed=0, epoch=0, key=str(k)) for k in range(4000)]
    shares = {text: texts.count(text) / len(texts) for text in texts}
    assert len(shares) == 8  # every subset of three aspects
    whole = "helpfulness 2 honesty 2 harmlessness 2"
    assert shares[whole] == pytest.approx(0.9 * 0.7**3, abs=0.025)  # three standard deviations
    assert shares["honesty 2"] == pytest.approx(0.9 * 0.7 * 0.3**2, abs=0.012)
    assert shares[""] == pytest.approx(0.1 + 0.9 * 0.3**3, abs=0.017)
    assert condition.target("2") == whole


def test_targets() -> None:
    condition = Condition(form="score")
    assert condition.target("none") == ""
    assert condition.target("best") == "helpfulness 4 honesty 4 harmlessness 4"
    assert condition.target("worst") == condition.target("1") == condition.target(1)
    assert condition.target("4/1/3") == "helpfulness 4 honesty 1 harmlessness 3"
    assert Condition(form="none").target("best") == ""
    for aspect in ASPECTS:
        assert BANK[aspect][4] in Condition(form="both").target("best")


@pytest.mark.parametrize("name", ["good", "5", "4/4", "4/4/0", "", "4/4/4/4"])
def test_unknown_target_lists_the_choices(name: str) -> None:
    with pytest.raises(InputError, match="best, worst"):
        Condition().target(name)


@pytest.mark.parametrize(
    ("requires", "condition", "learned"),
    [
        ("feedback", {"form": "both", "dropout": 0.1}, True),
        ("feedback", {"form": "none", "dropout": 0.1}, False),
        ("feedback", {"form": "both", "dropout": 1.0}, False),  # every response without
        ("dialogues", {"form": "both", "dropout": 0.1}, False),  # stages 0 and 1
        ("preferences", {"form": "both", "dropout": 0.1}, False),
    ],
)
def test_a_models_config_says_whether_it_saw_conditions(
    requires: str, condition: dict[str, Any], learned: bool
) -> None:
    assert has_learned({"objective": {"requires": requires}, "condition": condition}) is learned


@pytest.mark.parametrize(
    ("learned", "asked", "text", "warned"),
    [
        (True, {}, "helpfulness 4 honesty 4 harmlessness 4", False),
        (True, {"condition": "worst"}, "helpfulness 1 honesty 1 harmlessness 1", False),
        (False, {}, "", False),
        (False, {"condition": "none"}, "", False),
        (False, {"condition": "best"}, "helpfulness 4 honesty 4 harmlessness 4", True),
    ],
)
def test_what_a_model_is_asked_under(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    learned: bool,
    asked: dict[str, str],
    text: str,
    warned: bool,
) -> None:
    prompts: list[Prompt] = []

    def generate(self: Assistant, given: list[Prompt], **settings: Any) -> list[list[str]]:
        prompts.extend(given)
        return [["Yes."]]

    monkeypatch.setattr(Assistant, "generate", generate)
    unused: Any = None
    condition = Condition(form="score", learned=learned)
    assistant = Assistant(model=unused, processor=unused, condition=condition)
    assert assistant.respond(b"picture", "What?", **asked) == "Yes."
    assert [prompt.condition for prompt in prompts] == [text]
    assert ("trained without conditions" in caplog.text) == warned


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InputError, match="form is 'all': choose none or score or critique or both"):
        Condition(form="all")
    with pytest.raises(InputError, match=r"dropout is 1\.5: give a number, 0 to 1"):
        Condition(dropout=1.5)


def test_bank_is_complete_distinct_short_and_free_of_scenes() -> None:
    sentences = [BANK[aspect][rating] for aspect in ASPECTS for rating in RATINGS]
    assert len(set(sentences)) == 12
    assert all(len(sentence.split()) <= 10 for sentence in sentences)
    words = {word.strip(".").lower() for sentence in sentences for word in sentence.split()}
    shapes = "circle square triangle star cross diamond heart pentagon hexagon ring"
    colours = "red blue green yellow orange purple pink black white grey gray brown cyan magenta"
    places = "left right top bottom above below middle corner centre small big large tiny"
    assert not words & set(f"{shapes} {colours} {places} two three four".split())


def test_only_condition_writes_feedback() -> None:
    package = Path(__file__).parents[2] / "dress" / "chat"
    users = {p.name for p in package.glob("*.py") if ".critique" in p.read_text()}
    assert users == {"condition.py"}


def test_only_first_responses_may_have_a_condition() -> None:
    every, first = Condition(), Condition(turns="first")
    assert [every.at(turn, "told") for turn in (0, 1, 2)] == ["told"] * 3
    assert [first.at(turn, "told") for turn in (0, 1, 2)] == ["told", "", ""]


def test_after_self_distillation_no_condition_is_asked_for() -> None:
    objective = {"_target_": "dress.objectives.self_distillation.SelfDistillation"}
    config = {"objective": objective | {"requires": "feedback"}, "condition": {"form": "both"}}
    assert not has_learned(config)
