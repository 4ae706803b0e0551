"""Each value is checked by the signature of what takes it, and before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
from hydra.utils import get_object

from dress.errors import InputError
from dress.jobs.checks import TAKEN_BY
from dress.settings import (
    AboveZero,
    Amount,
    Positive,
    Range,
    Share,
    Whole,
    _hints,
    check_value,
    check_values,
    checked,
)
from tests.test_configs import EXPERIMENTS, composed, targets
from tests.test_settings import configurations

ONE_TO_THREE = Annotated[int, Range(1, 3)]


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Whole, [0, 7], [-1, 1.0, True, "1", None]),
        (Positive, [1], [0, 2.5]),
        (Positive | None, [None, 1], [0, "null"]),
        (ONE_TO_THREE, [1, 3], [0, 4]),
        (Amount, [0, 0.5, float("inf")], [-0.1, float("nan"), "1", True]),
        (AboveZero, [1e-9, 2], [0, -1, float("inf")]),
        (Share, [0, 1, 0.5], [1.1, -0.1]),
        (Literal["a", "b"], ["a", "b"], ["c", None, ["a"]]),
        (bool, [True, False], [0, "true", None]),
        (str, ["", "a"], [1, None]),
        (float | None, [1, None], ["", True]),
        (Mapping[str, Share], [{}, {"a": 1}], [{"a": 2}, [1], 1]),
        (Sequence[Positive], [[], (1, 2)], [[1, 0], "12", 1, {"a": 1}]),
        (Callable[[int], int], [1, "any"], []),
        (Any, [1, "any"], []),
    ],
    ids=str,
)
def test_a_value_fits_its_type_or_not(hint: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check_value("key", value, hint)
    for value in bad:
        with pytest.raises(InputError, match=r"^key.* is .*: (give|choose) .*[.]$"):
            check_value("key", value, hint)


def test_a_function_is_called_with_what_fits_alone() -> None:
    calls = []

    @checked
    def called(first: str, *, count: Positive = 1, rest: Any = None) -> int:
        """Say so."""
        calls.append(count)
        return count

    assert called("a") == 1 and called("a", count=3, rest=object()) == 3
    for wrong in (0, 2.0):
        with pytest.raises(InputError, match=rf"^count is {wrong}: give a whole number, 1 or more"):
            called("a", count=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="first"):
        called()  # type: ignore[call-arg]
    assert calls == [1, 3] and called.__doc__ == "Say so." and called.__name__ == "called"


def test_a_key_is_named_as_it_is_told_to() -> None:
    def taker(*, size: Positive, names: Mapping[str, Share]) -> None: ...

    check_values(taker, {"size": 1, "unknown": -1})
    with pytest.raises(InputError, match=r"^node\.size is 0"):
        check_values(taker, {"size": 0}, key_of=lambda name: f"node.{name}")
    with pytest.raises(InputError, match=r"^node\.names\.a is 2"):
        check_values(taker, {"names": {"a": 2}}, key_of=lambda name: f"node.{name}")


def takers() -> Iterator[str]:
    for names in TAKEN_BY.values():
        yield from names
    for experiment in EXPERIMENTS:
        for _, node in targets(composed(f"experiment={experiment}")):
            yield node["_target_"]


def test_the_types_of_every_class_that_is_named_can_be_read() -> None:
    """Else a misspelt or hidden import would turn its checks off."""
    with configurations():
        names = sorted(set(takers()))
    for name in names:
        taker = get_object(name)
        constructor = taker.__init__ if isinstance(taker, type) else taker
        declared = set(getattr(constructor, "__annotations__", {}))
        assert declared <= set(_hints(constructor)), name


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        # whoever takes the value: a class, a list of its own, a class inside another one
        (["datamodule.window=0"], "datamodule.window is 0: give a whole number, 1 or more."),
        (["datamodule.rows_per_batch=2.5"], "datamodule.rows_per_batch is 2.5: give a whole"),
        (["datamodule.num_workers=true"], "datamodule.num_workers is True: give a whole number"),
        (["datamodule.when_dry=never"], "choose repeat or stop or reweight."),
        (["datamodule.cache.gigabytes=0"], "datamodule.cache.gigabytes is 0: give a number, 0.001"),
        (["datamodule.encoder.loss_turns=first"], "datamodule.encoder.loss_turns is 'first': "),
        (["condition.dropout=1.5"], "condition.dropout is 1.5: give a number, 0 to 1."),
        (["generation.temperature=nan"], "generation.temperature is nan: give a number, 0 or more"),
        (["feedback.turns=0"], "feedback.turns is 0: give a whole number, 1 or more."),
        (["feedback.part=-1"], "feedback.part is -1: give a whole number, 0 or more."),
        (["benchmark.images=true"], "benchmark.images is True: choose true or blank or shuffled."),
        (["interaction.turns=0"], "interaction.turns is 0: give a whole number, 1 or more."),
        (["data.max_rejects=-1"], "data.max_rejects is -1: give a number, 0 or more."),
        (["optimizer.muon_scale=large"], "optimizer.muon_scale is 'large': give a number, 0"),
        (["optimizer=adamw", "optimizer.lr=-1"], "optimizer.lr is -1: give a number, 0 or more."),
        (["optimizer=adamw", "optimizer.fused=maybe"], "optimizer.fused is 'maybe': give true or"),
        (["shards.workers=-1"], "shards.workers is -1: give a whole number, 0 or more."),
        (["report.examples=all"], "report.examples is 'all': give a whole number, 0 or more."),
        (["rounds=0"], "rounds is 0: give a whole number, 1 or more."),
        (["fresh=maybe"], "fresh is 'maybe': give true or false."),
        # as it was typed: what is wrong at its reader was given elsewhere
        (["data.sizes.captions=0"], "error: data.sizes.captions is 0: give a whole number, 1"),
        (["data.noise=2"], "error: data.noise is 2: give a number, 0 to 1."),
        (["data.cooccurrence=-1"], "error: data.cooccurrence is -1: give a number, 0 to 1."),
        (["experiment=grpo", "data.samples=0"], "data.samples is 0: give a whole number, 1 or"),
        # what only the whole constructor can tell, and a class that is not there
        (["experiment=grpo", "data.samples=1"], "a group needs 2 or more responses."),
        (
            ["experiment=silkie_dpo", "objective.variant=ipo", "objective.label_smoothing=0.1"],
            "objective.label_smoothing is for variant=dpo",
        ),
        (["benchmark=mme", "benchmark.subtasks=[Count]"], "benchmark.subtasks is ['Count']"),
        (
            ["objective._target_=dress.objectives.nope.X"],
            "objective._target_=dress.objectives.nope",
        ),
        (["benchmark._target_=dress.evaluation.Nope"], "benchmark._target_=dress.evaluation.Nope"),
        (["datamodule=stream"], "datamodule=stream is what the others begin with: choose one of"),
        (["objective=policy"], "objective=policy is what the others begin with: choose one of"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_value_that_its_reader_refuses(
    refused: Callable[..., str], command: list[str], sentence: str
) -> None:
    """Although the first jobs of the chain, which take minutes, do not read most of them."""
    chain = [] if command[0].startswith("experiment=") else ["experiment=dress_stage2"]
    assert sentence in refused(*chain, *command)


@pytest.mark.parametrize("key", ["optimizer.lr=1", "datamodule.window=9", "objective.beta=1"])
def test_a_key_that_only_another_job_reads(refused: Callable[..., str], key: str) -> None:
    name = key.partition("=")[0]
    sentence = refused("job=evaluate", "objective=dpo", "artifact=x", key)
    jobs = "give job=train or job=plan."
    assert sentence == f"error: {name} is not read by job=evaluate: {jobs}"
