"""A released model's chat template, which is a program, as the literal pieces of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.records import Turn

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], bool], str]  # messages and whether to open an answer
TEXTS = ("Ae", "Bi", "Co", "Du")  # which stand in no template
INSTEAD = "give template=plain or vicuna, or the pieces, such as template.user='USER: '"


def pieces_of(
    render: Render, *, end_token: str, bos_token: str | None, image: str
) -> dict[str, Any]:
    """Find the pieces by writing two turns and looking at what stands around their texts.

    The prompt of one turn is what counts (`check_pieces`). Where no end token stands behind an
    answer, the answer ends with it here all the same: a model that is trained without would never
    stop. InputError where pieces cannot do that.
    """
    first, said, second, again = TEXTS
    dialogue = [user(first, images=1), answer(said), user(second), answer(again)]
    whole, opened = render(dialogue, False), render(dialogue[:3], True)
    places = [whole.find(text) for text in TEXTS]
    if -1 in places or places != sorted(places) or image not in whole[: places[0]]:
        raise InputError(f"the chat template leaves out or moves what is said: {INSTEAD}.")
    before, _, rest = whole.partition(first)
    to_answer, _, rest = rest.partition(said)
    between, _, rest = rest.partition(second)
    end = rest.partition(again)[2]
    opening, marker = before.partition(image)[0], opened.partition(second)[2]
    shown, turn = before.removeprefix(opening), between.removeprefix(end)
    cut = _cut(turn, opening=opening, shown=shown, image=image)
    if not between.startswith(end) or cut is None:
        raise InputError(f"the chat template writes its turns in several ways: {INSTEAD}.")
    turn_begin, no_image, question = cut
    system = opening.removesuffix(turn_begin)
    begins = bos_token is not None and system.startswith(bos_token)
    return {
        **({"begin": str(bos_token)} if begins else {}),
        "system": system.removeprefix(str(bos_token)) if begins else system,
        "user": turn_begin,
        "image": shown.removesuffix(question),
        **({"no_image": no_image} if no_image else {}),
        **({"question": question} if question else {}),
        "model": marker,
        "response_prefix": to_answer.removeprefix(marker) if to_answer.startswith(marker) else "",
        "end": end if end_token in end else end_token,
    }


def _cut(turn: str, *, opening: str, shown: str, image: str) -> tuple[str, str, str] | None:
    """Cut the beginning of a turn without images by one with an image.

    It has a part before the images, one that stands there for want of an image, which is as short
    as can be, and one behind them.
    """
    for missing in range(len(turn)):
        for cut in range(len(turn) - missing, 0, -1):
            behind = turn[cut + missing :]
            fits = shown.endswith(behind) and image in shown.removesuffix(behind)
            if fits and opening.endswith(turn[:cut]):
                return turn[:cut], turn[cut : cut + missing], behind
    return None


def check_pieces(template: ChatTemplate, render: Render) -> None:
    """Compare what both write of one turn with no, one and two images."""
    for images in range(3):
        theirs = render([user("Ae bi?", images=images)], True)
        ours = template.render([Turn("Ae bi?")], num_images=images, prompt_only=True).text
        begin = "" if template.begin == "auto" else template.begin
        if theirs != begin + ours:
            raise InputError(
                f"the chat template writes {theirs!r:.200} where its pieces give "
                f"{begin + ours!r:.200}: {INSTEAD}."
            )


def user(text: str, *, images: int = 0) -> Message:
    content: list[dict[str, str]] = [{"type": "image"}] * images
    return {"role": "user", "content": [*content, {"type": "text", "text": text}]}


def answer(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
