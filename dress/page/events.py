"""What joins a control to the method that it calls; a failure becomes a sentence in the page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import gradio as gr
from anyio import from_thread

from dress.errors import InputError, Reject
from dress.files import no_space
from dress.page import cards

AT_ONCE = 16  # events of one kind that are worked on together
Values = Mapping[Any, Any]  # of the controls that a method reads, as the browser sent them
Updates = dict[Any, Any]  # of the controls that it changes

logger = logging.getLogger(__name__)


def connect(
    blocks: gr.Blocks,
    method: Callable[[Values], Updates | Iterator[Updates]],
    *triggers: Callable[..., Any],
    reads: Iterable[Any],
    changes: Iterable[Any],
    status: gr.HTML,
) -> None:
    """Call a method at each of the triggers. What it raises is shown in `status`."""

    def handle(values: Values, request: gr.Request | None = None) -> Iterator[Updates]:
        if request is not None:
            from_thread.run_sync(drop_copies, blocks, request.session_hash)
        try:
            updates = method(values)
            yield from (updates if isinstance(updates, Iterator) else [updates])
        except Exception as error:
            yield {status: cards.status(sentence(error))}

    handle.__name__ = method.__name__  # by which clients call it
    for trigger in triggers:
        trigger(
            handle,
            inputs={*reads},
            outputs=[*changes, status],
            preprocess=False,  # it refuses choices of which a server that began anew knows nothing
            show_progress="hidden",
            concurrency_limit=AT_ONCE,
            api_visibility="private",
        )


def drop_copies(blocks: gr.Blocks, session: str | None) -> None:
    """Drop the controls of a tab that Gradio holds under numbers which the page does not have.

    Gradio 6.31 makes a control anew, with a new number, at each event that updates it or leaves it
    as it is, and its next event keeps that one under the new number too, for ever.
    """
    if (state := blocks.state_holder.session_data.get(session or "")) is not None:
        for held in (state.blocks_config.blocks, state.config_values):
            for number in held.keys() - blocks.blocks.keys():
                del held[number]


def sentence(error: Exception) -> str:
    """Say what went wrong in one sentence; of a fault of ours the log has more."""
    if isinstance(error, InputError | Reject):
        text = str(error).partition(": ")[2] if isinstance(error, Reject) else str(error)
        return text[:300]
    if full := no_space(error):
        return f"{full.filename or 'the folder'} cannot be written ({full.strerror}): make room."
    logger.exception("the chat page")
    return f"The model failed ({type(error).__name__}): the terminal of the page says more."
