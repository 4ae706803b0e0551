"""Rollouts of several turns, with a model whose answers are written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from dress.chat.condition import Condition
from dress.errors import InputError, Reject
from dress.feedback.oracle import OracleAnnotator
from dress.feedback.refinement import RefinementRollout
from dress.generation import Sampling
from dress.records import Prompt
from dress.types import Dialogue, Sample, Turn
from dress.world.questions import Question
from dress.world.scene import Scene, Thing

SCENE = Scene((Thing(cell=0, colour="red", shape="circle", size="small"),))
RIGHT, WRONG = "There is one object.", "There are two objects."
HINT, HINT_MORE = "There are fewer objects than that.", "There are more objects than that."
CONDITION = Condition(form="score")


class Scripted:
    """Answers by a function of the prompt, and remembers what it was asked."""

    condition = CONDITION

    def __init__(self, answer: Callable[[Prompt], Sequence[str]]) -> None:
        self.answer, self.asked = answer, list[Prompt]()

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, **_: float | None
    ) -> list[list[str]]:
        self.asked += prompts
        return [list(self.answer(prompt))[:num_samples] for prompt in prompts]


def sample(name: str, *, reference: bool = True) -> Sample:
    question = Question("count", "How many objects are there?", "1")
    annotations = {"scene": SCENE.to_json(), "question": question.to_json(), "task": "count"}
    if reference:
        annotations["reference"] = RIGHT
    return Sample(name, (b"image",), (Dialogue((Turn(question.text),)),), annotations)


def rollout(answer: Callable[[Prompt], Sequence[str]], **options: object) -> RefinementRollout:
    settings = {
        "targets": ["none"],
        "samples": 1,
        "max_turns": 3,
        "candidates": 3,
        "revisions": "heard",
        "relapse_share": 0.0,
        "first_candidates": 1,
        "false_share": 0.0,
        "false_feedback": ["other"],
        "sampling": Sampling(),
    }
    return RefinementRollout(
        sampler=Scripted(answer),  # type: ignore[arg-type]
        annotator=OracleAnnotator(),
        **(settings | options),  # type: ignore[arg-type]
    )


def said(dialogue: Dialogue) -> list[tuple[str, str | None]]:
    return [(turn.user, turn.model) for turn in dialogue.turns]


def test_a_faulty_response_hears_its_refinement_and_the_best_revision_is_kept() -> None:
    def answer(prompt: Prompt) -> Sequence[str]:
        return [WRONG] if len(prompt.turns) == 1 else ["Three.", RIGHT, WRONG]

    run = rollout(answer)
    (made,) = run([sample("a")], seed=0)
    (dialogue,) = made.dialogues
    assert said(dialogue) == [("How many objects are there?", WRONG), (HINT, RIGHT)]
    first, last = (turn.feedback for turn in dialogue.turns)
    assert first and last and last.is_perfect
    assert [j.rating for j in first.judgements.values()] == [2, 2, 4]
    opening, revision = run.sampler.asked  # type: ignore[attr-defined]
    assert opening.condition == "" and revision.condition == CONDITION.target("best")
    assert run.metrics() == {
        "rollout/dialogues": 1,
        "rollout/faulty": 1,
        "rollout/repaired": 1,
        "rollout/closed_by_reference": 0,
        "rollout/false_feedback": 0,
    }


def test_a_model_that_saw_no_conditions_revises_under_none() -> None:
    run = rollout(lambda prompt: [WRONG] if len(prompt.turns) == 1 else [RIGHT] * 3)
    run.sampler.condition = Condition(form="both", learned=False)
    list(run([sample("a")], seed=0))
    asked = run.sampler.asked  # type: ignore[attr-defined]
    assert [prompt.condition for prompt in asked] == ["", ""]


def test_what_is_never_repaired_ends_with_the_reference() -> None:
    run = rollout(lambda prompt: [WRONG] * 3)
    with_reference, without = run([sample("a"), sample("b", reference=False)], seed=0)
    assert [model for _, model in said(with_reference.dialogues[0])] == [WRONG] * 3 + [RIGHT]
    assert [model for _, model in said(without.dialogues[0])] == [WRONG] * 3
    metrics = run.metrics()
    assert metrics["rollout/repaired"] == 0 and metrics["rollout/closed_by_reference"] == 0.5


def test_fresh_revisions_answer_the_question_anew() -> None:
    """The model only ever repeats itself within a dialogue, and is right when it is asked anew."""
    asked_anew = [WRONG]

    def answer(prompt: Prompt) -> Sequence[str]:
        if prompt.condition == "":
            return asked_anew
        return ["Three.", RIGHT] if len(prompt.turns) == 1 else [WRONG] * 3

    heard, fresh = (rollout(answer, revisions=kind) for kind in ("heard", "fresh"))
    (repeated,), (repaired,) = heard([sample("a")], seed=0), fresh([sample("a")], seed=0)
    assert [model for _, model in said(repeated.dialogues[0])] == [WRONG] * 3 + [RIGHT]
    assert said(repaired.dialogues[0]) == [("How many objects are there?", WRONG), (HINT, RIGHT)]
    assert heard.metrics()["rollout/closed_by_reference"] == 1
    assert fresh.metrics()["rollout/closed_by_reference"] == 0


def test_some_revisions_are_as_faulty_as_first_responses() -> None:
    """Half relapse before each of two hints; the last revision never does, so that all end well."""
    run = rollout(
        lambda prompt: [RIGHT if prompt.condition else WRONG] * 3,
        revisions="fresh",
        relapse_share=0.5,
        max_turns=4,
    )
    made = list(run([sample(str(number)) for number in range(100)], seed=0))
    lengths = [len(group.dialogues[0].turns) for group in made]
    # half hear one hint, a quarter two, a quarter three: within three standard deviations
    assert abs(lengths.count(2) - 50) < 16 and abs(lengths.count(3) - 25) < 14
    assert sum(map(lengths.count, (2, 3, 4))) == 100
    for group in made:
        responses = [model for _, model in said(group.dialogues[0])]
        assert responses == [WRONG] * (len(responses) - 1) + [RIGHT]
    with pytest.raises(InputError, match=r"relapse_share is 2: give a number, 0 to 1"):
        rollout(lambda prompt: [RIGHT], relapse_share=2)


@pytest.mark.parametrize(("kind", "told"), [("empty", {""}), ("wrong", {HINT, HINT_MORE})])
def test_false_feedback_may_be_false_or_nothing(kind: str, told: set[str]) -> None:
    run = rollout(lambda prompt: [RIGHT], false_share=1.0, false_feedback=[kind])
    made = list(run([sample(str(number)) for number in range(20)], seed=0))
    turns = [group.dialogues[0].turns for group in made]
    assert {said.user for _, said in turns} == told
    assert all(after.model == first.model for first, after in turns)


def test_an_annotator_that_knows_nothing_false_says_the_other_kinds() -> None:
    class Plain:
        annotate = OracleAnnotator().annotate

    run = RefinementRollout(
        sampler=Scripted(lambda prompt: [RIGHT]),  # type: ignore[arg-type]
        annotator=Plain(),
        targets=["none"],
        samples=1,
        max_turns=2,
        first_candidates=1,
        candidates=1,
        revisions="heard",
        relapse_share=0.0,
        false_share=1.0,
        false_feedback=["wrong", "empty"],
        sampling=Sampling(),
    )
    made = list(run([sample("a"), sample("b")], seed=0))
    assert [group.dialogues[0].turns[1].user for group in made] == ["", ""]


def test_false_feedback_comes_from_another_sample_and_changes_nothing() -> None:
    def answer(prompt: Prompt) -> Sequence[str]:
        right = prompt.images == (b"image",) or len(prompt.turns) > 1
        return [RIGHT if right else WRONG] * 3

    other = Sample("b", (b"other",), sample("b").dialogues, sample("b").annotations)
    run = rollout(answer, false_share=1.0)
    perfect, repaired = run([sample("a"), other], seed=0)
    assert said(perfect.dialogues[0]) == [("How many objects are there?", RIGHT), (HINT, RIGHT)]
    assert perfect.dialogues[0].turns[1].feedback == perfect.dialogues[0].turns[0].feedback
    # the only advice there is was meant for this sample itself
    assert [model for _, model in said(repaired.dialogues[0])] == [WRONG, RIGHT]
    assert run.metrics()["rollout/false_feedback"] == 0.5


def test_what_another_sample_heard_is_no_false_feedback_where_it_is_true() -> None:
    # both say two where there is one: what the other one hears, each should hear itself
    run = rollout(lambda prompt: [WRONG, RIGHT], false_share=1.0, false_feedback=["other"])
    made = list(run([sample("a"), sample("b")], seed=0))
    assert run.metrics()["rollout/false_feedback"] == 0
    assert all(said(group.dialogues[0])[1] == (HINT, RIGHT) for group in made)


def test_the_worst_rated_first_response_opens_the_dialogue() -> None:
    def answer(prompt: Prompt) -> Sequence[str]:
        return [RIGHT, WRONG, RIGHT, RIGHT]

    run = rollout(answer, first_candidates=4, candidates=4)
    (made,) = run([sample("a")], seed=0)
    assert said(made.dialogues[0]) == [("How many objects are there?", WRONG), (HINT, RIGHT)]


def test_advice_on_another_question_is_heard_and_not_obeyed() -> None:
    run = rollout(lambda prompt: [WRONG], false_share=1.0, false_feedback=["aside"])
    told = {run([sample(str(n))], seed=0).__next__().dialogues[0].turns[1].user for n in range(9)}
    assert told and not told & {HINT, HINT_MORE, ""}


def test_false_feedback_is_a_share_of_all_dialogues() -> None:
    def answer(prompt: Prompt) -> Sequence[str]:
        return [WRONG if prompt.images == (b"faulty",) else RIGHT] * 3

    faulty = [
        Sample(f"f{n}", (b"faulty",), sample("f").dialogues, sample("f").annotations)
        for n in range(5)
    ]
    run = rollout(answer, false_share=0.2)
    made = list(run([*faulty, *(sample(f"p{n}") for n in range(15))], seed=0))
    misled = [g for g in made if unchanged(g.dialogues[0])]
    assert len(misled) == 4 and run.metrics()["rollout/false_feedback"] == 0.2


def unchanged(dialogue: Dialogue) -> bool:
    """Whether the dialogue ends with its first response once more, whatever was said."""
    return len(dialogue.turns) == 2 and dialogue.turns[0].model == dialogue.turns[1].model


def test_a_faulty_response_stands_again_where_nothing_was_said() -> None:
    run = rollout(lambda prompt: [WRONG] * 3, false_share=1.0, false_feedback=["empty"])
    (made,) = run([sample("a")], seed=0)
    assert said(made.dialogues[0]) == [("How many objects are there?", WRONG), ("", WRONG)]
    assert run.metrics()["rollout/closed_by_reference"] == 0


@pytest.mark.parametrize(("targets", "samples"), [(["none"], 2), (["best", "none"], 1)])
def test_a_group_keeps_its_dialogues_together_and_in_order(
    targets: list[str], samples: int
) -> None:
    run = rollout(lambda prompt: [RIGHT], targets=targets, samples=samples)
    groups = list(run([sample("a"), sample("b")], seed=0))
    assert [group.id for group in groups] == ["a", "b"]
    assert [len(group.dialogues) for group in groups] == [2, 2]
    conditions = [prompt.condition for prompt in run.sampler.asked]  # type: ignore[attr-defined]
    assert conditions == [CONDITION.target(t) for t in targets for _ in range(samples)] * 2


def test_earlier_turns_of_the_record_stay_in_front() -> None:
    plain = sample("a")
    opening = Turn("What do you see?", "A red circle.")
    longer = Sample("a", plain.images, (Dialogue((opening, *plain.dialogues[0].turns)),))
    longer = Sample("a", longer.images, longer.dialogues, plain.annotations)
    run = rollout(lambda prompt: [WRONG if len(prompt.turns) == 2 else RIGHT] * 3)
    (made,) = run([longer], seed=0)
    assert [turn.model for turn in made.dialogues[0].turns] == ["A red circle.", WRONG, RIGHT]


def test_a_prompt_that_is_too_long_rejects_its_group_alone() -> None:
    class Short(Scripted):
        def generate(self, prompts, *, rejects, **rest):  # type: ignore[no-untyped-def, override]
            for number, prompt in enumerate(prompts):
                if prompt.images == (b"long",):
                    rejects[number] = Reject("too long")
            answers = super().generate(prompts, **rest)
            return [[] if n in rejects else answer for n, answer in enumerate(answers)]

    run = rollout(lambda prompt: [RIGHT])
    run.sampler = Short(lambda prompt: [RIGHT])  # type: ignore[assignment]
    plain = sample("a")
    long = Sample("b", (b"long",), plain.dialogues, plain.annotations)
    kept, reject = run([plain, long], seed=0)
    assert isinstance(kept, Sample) and isinstance(reject, Reject)
    assert (reject.where, reject.key, reject.reason) == ("prompts", "b", "too long")
    assert run.metrics()["rollout/faulty"] == 0
