"""A model with its processor and its conditions: the one path by which anything is generated."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor

from dress.chat.condition import AUTO, Condition, chosen_target
from dress.chat.images import decode_image, png
from dress.chat.processor import Processor
from dress.data.collate import TreeCollator, stacked_images
from dress.data.sources.photographs import read_photograph
from dress.distributed import gather, place
from dress.errors import InputError, Reject
from dress.generation import GENERATED
from dress.modeling.decoding import Heard
from dress.modeling.lvlm import LVLM
from dress.records import Prompt
from dress.settings import Amount, Positive, Share, checked
from dress.types import Encoded, Turn


@dataclass(frozen=True)
class PromptBatch:
    """Left-padded prompts, each distinct image once."""

    input_ids: Int[Tensor, "row seq"]
    attention_mask: Bool[Tensor, "row seq"]
    image_slot: Int[Tensor, "row seq"]
    pixels: UInt8[Tensor, "image height width 3"]


class Assistant:
    """Generate responses in batches of prompts of similar length."""

    def __init__(self, *, model: LVLM, processor: Processor, condition: Condition) -> None:
        self.model, self.processor, self.condition = model, processor, condition
        self.generated_tokens = 0  # end tokens included

    def respond(
        self,
        image: str | Path | bytes | Image.Image,
        question: str,
        *,
        condition: str = AUTO,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str:
        """Answer one question about one image under a target such as best, none, 1 or 4/1/4.

        `auto` is best where the model has learned from conditions, else none.
        """
        target = chosen_target(condition, learned=self.condition.learned)
        prompt = Prompt(
            images=(read_image(image),),
            turns=(Turn(user=question),),
            condition=self.condition.target(target),
        )
        ((response,),) = self.generate(
            [prompt], max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        return response

    @checked
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: Positive = 128,
        temperature: Amount = 0.0,
        top_p: Share = 1.0,
        num_samples: Positive = 1,
        batch_size: Positive = 128,
        guidance: Amount = 0.0,
        contrast: str = "",
        seed: int = 0,
        on_batch: Callable[[int], None] | None = None,
        rejects: dict[int, Reject] | None = None,
        together: bool = False,
        on_tokens: Heard | None = None,
    ) -> list[list[str]]:
        """Return `num_samples` responses per prompt; `on_batch` hears how many prompts are done.

        A prompt longer than the context or with an unreadable image raises Reject, or, where
        `rejects` is given, is noted there by its number and gets no response. With `guidance`
        greedy decoding moves away from what the prompt under the condition `contrast` suggests.
        Processes that answer the same prompts `together` take turns in the batches, which are the
        same however many they are, and all get all responses. `on_tokens` hears of each batch the
        tokens as they are chosen.
        """
        if guidance and temperature > 0:
            raise InputError("generation.guidance needs greedy decoding: set temperature=0.")
        self._check_answers()
        encoded, pixels = self._encode(prompts, rejects=rejects)
        others = [replace(prompt, condition=contrast) for prompt in prompts] if guidance else []
        contrasts, _ = self._encode(others, rejects=rejects)
        asked = [i for i in encoded if i in contrasts or not guidance]
        responses: list[list[str]] = [[] for _ in prompts]
        before = self.generated_tokens
        order = sorted(asked, key=lambda i: len(encoded[i].input_ids))
        number, processes = place() if together else (0, 1)
        for start in range(number * batch_size, len(order), processes * batch_size):
            rows = order[start : start + batch_size]
            contrasted = [contrasts[i] for i in rows] if guidance else []
            batch = self.collate([*(encoded[i] for i in rows), *contrasted], pixels)
            tokens = self.model.generate(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                image_slot=batch.image_slot,
                pixels=batch.pixels,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                num_return_sequences=num_samples,
                guidance=guidance,
                seed=seed + start,
                on_tokens=on_tokens,
            )
            texts = self._texts(tokens[: len(rows) * num_samples])  # behind them, the contrasts
            for row, i in enumerate(rows):
                responses[i] = texts[row * num_samples : (row + 1) * num_samples]
            if on_batch:
                on_batch(len(rows))
        return self._joined(responses, before=before, on_batch=on_batch) if together else responses

    def _joined(
        self, responses: list[list[str]], *, before: int, on_batch: Callable[[int], None] | None
    ) -> list[list[str]]:
        """Hear from the other processes what this one has not answered, and count their tokens."""
        if on_batch:
            on_batch(sum(not own for own in responses))
        heard = gather((responses, self.generated_tokens - before))
        self.generated_tokens = before + sum(count for _, count in heard)
        shares = (share for share, _ in heard)
        return [next(filter(None, found), []) for found in zip(*shares, strict=True)]

    def metrics(self) -> dict[str, float]:
        return {GENERATED: float(self.generated_tokens)}

    def _check_answers(self) -> None:
        if self.model.scalar_head is not None:
            raise InputError(
                "this is a reward model, which scores answers and gives none: take a "
                "model of another experiment."
            )

    def _texts(self, tokens: Int[Tensor, "row new"]) -> list[str]:
        """Decode answers, and count their tokens up to and with the first end token of each."""
        ended = (tokens == self.model.eos_token_id).long()
        self.generated_tokens += int((ended.cumsum(dim=1) - ended == 0).sum())
        return [self.processor.decode(row) for row in tokens.tolist()]

    def _encode(
        self, prompts: Sequence[Prompt], *, rejects: dict[int, Reject] | None = None
    ) -> tuple[dict[int, Encoded], dict[Hashable, Tensor]]:
        encoded, pixels = {}, {}
        for number, prompt in enumerate(prompts):
            try:
                names, loaded = self.processor.load_images(prompt.images)
                encoded[number] = self.processor.encode(
                    prompt.turns, images=names, condition=prompt.condition, prompt_only=True
                )
                pixels.update(loaded)
            except Reject as reject:
                if rejects is None:
                    raise
                rejects[number] = reject
        return encoded, pixels

    def collator(
        self,
        *,
        share_prefixes: bool = True,
        rows_per_batch: int | None = None,
        row_tokens: int | None = None,
        pad_to_multiple: int = 1,
        one_row: bool = False,
        answer_gap: int = 0,
    ) -> TreeCollator:
        """Return what makes batches of groups for this model; trees only if it can run them."""
        return TreeCollator(
            pad_token_id=self.model.pad_token_id,
            image_token_id=self.model.image_token_id,
            num_image_tokens=self.processor.num_image_tokens,
            share_prefixes=share_prefixes and self.model.trees,
            rows_per_batch=rows_per_batch,
            row_tokens=row_tokens,
            pad_to_multiple=pad_to_multiple,
            one_row=one_row,
            answer_gap=answer_gap,
        )

    def collate(self, rows: Sequence[Encoded], pixels: dict[Hashable, Tensor]) -> PromptBatch:
        """Pad on the left and point every placeholder at its patch."""
        names = list(dict.fromkeys(name for row in rows for name in row.images))
        patches = self.processor.num_image_tokens
        shape = (len(rows), max(len(row.input_ids) for row in rows))
        ids = np.full(shape, self.model.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=bool)
        slot = np.full(shape, -1, dtype=np.int64)
        for r, row in enumerate(rows):
            begin = shape[1] - len(row.input_ids)
            ids[r, begin:], mask[r, begin:] = row.input_ids, True
            places = begin + np.flatnonzero(row.input_ids == self.processor.image_token_id)
            starts = [names.index(name) * patches for name in row.images]
            slot[r, places] = (np.array(starts)[:, None] + np.arange(patches)).reshape(-1)
        device = self.model.device
        return PromptBatch(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            image_slot=torch.from_numpy(slot).to(device),
            pixels=stacked_images([pixels[name] for name in names]).to(device),
        )


def read_image(image: str | Path | bytes | Image.Image) -> bytes:
    """Return the bytes of an image file, or of a PIL image as PNG; Reject for what is neither."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return png(decode_image(image))
    return read_photograph(Path(image), key=Path(image).name)
