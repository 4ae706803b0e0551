"""What job=export writes: weights, processor, chat templates; and what its card has to say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from transformers import AutoProcessor

from dress.artifact import Artifact
from dress.assistant import Assistant
from dress.chat.images import png
from dress.chat.jinja_template import jinja_of
from dress.errors import InputError
from dress.loading import WEIGHTS, load_artifact
from dress.modeling.checkpoint import saved_adapters
from dress.modeling.hub.adapter_writer import write_adapter
from dress.modeling.hub.llava import LLAVA
from dress.modeling.hub.llava_writer import processor_of, write_model
from dress.modeling.hub.released import family_of, shown_picture
from dress.types import Turn

Form = Literal["merged", "adapter"]
BARE, DEFAULT = "bare", "default"
QUESTION = "What is in the picture?"


def write(
    artifact: Artifact, folder: Path, *, target: str, form: Form, shard_gigabytes: float
) -> dict[str, Any]:
    """Write the folder and return what else the model card names."""
    assistant = load_artifact(artifact)
    model, base = assistant.model, artifact.config["model"].get("name")
    if model.scalar_head is not None:
        raise InputError(f"{artifact.path} is a reward model, which answers nothing: give another.")
    adapters = saved_adapters(artifact.path / WEIGHTS)
    changed = set(model.differs) | ({"language"} if adapters else set())
    if form == "adapter":
        if base is None:
            raise InputError(
                "export.form=adapter needs a released model under it, and this one began "
                "from parts: give export.form=merged."
            )
        write_adapter(model, folder, base=base, changed=set(model.differs), adapters=adapters)
    else:
        size = f"{shard_gigabytes * 1000:.0f}MB"
        write_model(model, folder, base=base, changed=changed, shard_size=size)
    condition = assistant.condition.target(target)
    write_processor(assistant, folder, condition, base=base)
    family = LLAVA if base is None else family_of(base)
    return {"condition": condition, "base": base, "kind": family.kind, "views": family.views}


def write_processor(
    assistant: Assistant, folder: Path, condition: str, *, base: str | None
) -> None:
    """Write tokenizer, image processor and chat templates, which give the tokens of here.

    The begin token stands in the templates, since some servers add none to chats. It is left to the
    tokenizer where that cuts a text otherwise behind it.
    """
    tokenizer = assistant.processor.tokenizer
    begin = "".join(tokenizer.convert_ids_to_tokens(assistant.processor.begin))
    for opening in (begin, ""):
        templates = chat_templates(assistant, condition, begin=opening, base=base)
        vision = assistant.model.vision
        processor_of(vision, tokenizer, templates, base=base).save_pretrained(folder)
        if prompts_agree(assistant, folder, condition):
            return
    raise InputError(
        f"the tokenizer of {tokenizer.name_or_path} gives no prompt that begins with "
        f"{begin or 'nothing'!r} as in training: train with template.begin=auto."
    )


def chat_templates(
    assistant: Assistant, condition: str, *, begin: str, base: str | None
) -> dict[str, str]:
    """Return the template that holds the condition, and the bare one beside it."""
    template, first_only = assistant.processor.template, assistant.condition.turns == "first"
    if base is not None:  # the processor itself writes what stands around image tokens
        plain = template.image.replace(shown_picture(base), template.image_token)
        template = replace(template, image=plain)
    return {
        DEFAULT: jinja_of(template, begin=begin, condition=condition, first_only=first_only),
        BARE: jinja_of(template, begin=begin),
    }


def prompts_agree(assistant: Assistant, folder: Path, condition: str) -> bool:
    """Compare the exported processor's tokens of a question, with and without, with ours.

    It is about two pictures, since there are types that show a single one as several.
    """
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    picture = Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8))
    names, _ = assistant.processor.load_images([png(picture)] * 2)
    images = [{"type": "image", "image": picture}] * 2
    content = [*images, {"type": "text", "text": QUESTION}]
    agree = True
    for template, text in ((DEFAULT, condition), (BARE, "")):
        theirs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=processor.chat_template[template],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        ours = assistant.processor.encode(
            [Turn(QUESTION)], images=names, condition=text, prompt_only=True
        )
        agree &= list(theirs["input_ids"][0]) == ours.input_ids.tolist()
    return agree
