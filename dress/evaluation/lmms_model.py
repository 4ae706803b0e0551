"""By this model lmms-eval evaluates an artifact: `--model dress --model_args artifact=DIR`.

Written against lmms-eval 0.7, which finds it by the entry point `lmms_eval.models` and hands over
requests (context, generation settings, images of a document, its number, task, split).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image
from tqdm import tqdm

from dress.assistant import read_image
from dress.chat.condition import AUTO, chosen_target
from dress.errors import InputError
from dress.fingerprint import canonical_json
from dress.loading import load
from dress.records import Prompt
from dress.types import Turn

MANIFEST = ModelManifest(model_id="dress", simple_class_path=f"{__name__}.DressModel")
BATCHES = 8  # of prompts whose images are held at a time
_WITHOUT_EFFECT = {"image_aspect_ratio", "use_cache"}  # of settings that tasks give
_DEFAULTS: Mapping[str, Any] = {
    "max_new_tokens": 128,
    "temperature": 0.0,
    "top_p": 1.0,
    "num_beams": 1,
    "until": [],
}


class DressModel(lmms):
    """An artifact under a condition; one process, greedy unless a task samples."""

    def __init__(
        self,
        artifact: str,
        condition: str = AUTO,
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError("the model dress runs in one process: start lmms-eval without others.")
        if not str(batch_size).isdecimal() or not int(batch_size):
            raise InputError(f"batch_size is {batch_size!r}: give a whole number, 1 or more.")
        self.assistant = load(artifact)
        self.assistant.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # a score such as 1 arrives as a number
        target = chosen_target(condition, learned=self.assistant.condition.learned)
        self.condition = self.assistant.condition.target(target)
        self.batch_size = min(int(batch_size), int(max_batch_size or batch_size))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests in their order; those of the same settings together."""
        said: dict[int, str] = {}
        told = [settings(request.args[1]) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: canonical_json(told[i]))
        with tqdm(total=len(requests), desc="dress") as shown:
            for _, group in groupby(order, key=lambda i: canonical_json(told[i])):
                for numbers in _chunks(group, BATCHES * self.batch_size):
                    prompts = [self._prompt(requests[i].args) for i in numbers]
                    texts = self._answers(prompts, told[numbers[0]], shown)
                    said |= dict(zip(numbers, texts, strict=True))
        for i, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args[:2], said[i])
        return [said[i] for i in range(len(requests))]

    def _prompt(self, arguments: Sequence[Any]) -> Prompt:
        context, _, images_of, number, task, split = arguments
        images = images_of(self.task_dict[task][split][number]) or ()
        for image in images:
            if not isinstance(image, Image.Image):
                raise InputError(
                    f"{task} shows {type(image).__name__}: the model dress reads images only."
                )
        return Prompt(tuple(map(read_image, images)), (Turn(context),), self.condition)

    def _answers(
        self, prompts: Sequence[Prompt], told: Mapping[str, Any], shown: tqdm
    ) -> Iterator[str]:
        answers = self.assistant.generate(
            prompts,
            max_new_tokens=told["max_new_tokens"],
            temperature=told["temperature"],
            top_p=told["top_p"],
            batch_size=self.batch_size,
            on_batch=shown.update,
        )
        for (text,) in answers:
            ends = [text.find(end) for end in told["until"] if end in text]
            yield text[: min(ends)] if ends else text

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise InputError("the model dress generates only: choose tasks of output generate_until.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise InputError("the model dress answers one turn: choose tasks of output generate_until.")


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that is needed of a task's generation settings; InputError at one we lack."""
    unknown = set(given) - set(_DEFAULTS) - _WITHOUT_EFFECT - {"do_sample"}
    told = {**_DEFAULTS} | {k: v for k, v in given.items() if k in _DEFAULTS and v is not None}
    if unknown or told["num_beams"] != 1:
        name = min(unknown, default="num_beams")
        raise InputError(
            f"the task sets {name}={given[name]!r}, which the model dress does not have: override "
            "it in the task, or choose another one."
        )
    if given.get("do_sample") is False:
        told["temperature"] = 0.0
    until = told["until"]
    told["until"] = [end for end in ([until] if isinstance(until, str) else until) if end]
    return told


def _chunks(numbers: Iterator[int], size: int) -> Iterator[list[int]]:
    while chunk := list(islice(numbers, size)):
        yield chunk
