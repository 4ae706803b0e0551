from itertools import zip_longest

import pytest
import torch
from modeling_helpers import (
    EOS,
    GPT2,
    LLAMA,
    LORA,
    PAD,
    Sequences,
    image,
    random_pixels,
    randomize_adapter,
    sequence_logits,
    tiny_lvlm,
    words,
)
from torch import Tensor

from dress.modeling.lvlm import LVLM

PIXELS = random_pixels(2)
PROMPTS = [
    [*words(1, 10, 11), *image(0), *words(12)],
    [*words(1), *image(1), *words(13, 14, 15, 16, 17)],
    words(1, 20),
]
SAMPLING = {"temperature": 1.0, "top_p": 0.95, "num_return_sequences": 3}


def left_padded(prompts: Sequences) -> dict[str, Tensor]:
    width = max(map(len, prompts))
    ids = [[PAD] * (width - len(p)) + [token for token, _ in p] for p in prompts]
    slots = [[-1] * (width - len(p)) + [slot for _, slot in p] for p in prompts]
    mask = [[False] * (width - len(p)) + [True] * len(p) for p in prompts]
    return {
        "input_ids": torch.tensor(ids),
        "image_slot": torch.tensor(slots),
        "attention_mask": torch.tensor(mask),
    }


@torch.no_grad()
def greedy(model: LVLM, prompt: list[tuple[int, int]], limit: int) -> list[int]:
    """Decode without a cache: the most likely token after each unpadded forward pass."""
    sequence = list(prompt)
    while len(sequence) < len(prompt) + limit:
        token = sequence_logits(model, sequence, PIXELS)[-1].argmax().item()
        sequence.append((int(token), -1))
        if token == model.eos_token_id:
            break
    return [token for token, _ in sequence[len(prompt) :]]


def padded(rows: list[list[int]]) -> list[list[int]]:
    return [list(row) for row in zip(*zip_longest(*rows, fillvalue=PAD), strict=True)]


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_greedy_in_a_batch_equals_each_prompt_alone(config: dict, attention: str) -> None:
    torch.set_float32_matmul_precision("highest")
    model = tiny_lvlm(config, attention=attention).eval()
    expected = [greedy(model, prompt, limit=8) for prompt in PROMPTS]
    tokens = model.generate(**left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=8)
    assert tokens.tolist() == padded(expected)


def test_greedy_with_an_adapter() -> None:
    model = tiny_lvlm(lora=LORA).eval()
    plain = model.generate(**left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=6)
    randomize_adapter(model)
    tokens = model.generate(**left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=6)
    assert tokens.tolist() == padded([greedy(model, prompt, limit=6) for prompt in PROMPTS])
    assert tokens.tolist() != plain.tolist()


def test_a_row_ends_with_the_end_token_and_is_padded_after_it() -> None:
    model = tiny_lvlm().eval()
    free = greedy(model, PROMPTS[0], limit=8)
    model.eos_token_id = free[2]  # what the first prompt says third now ends a row
    expected = [greedy(model, prompt, limit=8) for prompt in PROMPTS]
    assert len(expected[0]) <= 3 < max(map(len, expected))
    tokens = model.generate(**left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=8)
    assert tokens.tolist() == padded(expected)


def test_sampling_depends_on_the_seed_alone() -> None:
    model = tiny_lvlm()
    prompts = left_padded(PROMPTS)

    def sample(seed: int) -> Tensor:
        return model.generate(**prompts, pixels=PIXELS, max_new_tokens=6, seed=seed, **SAMPLING)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = sample(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(sample(seed=1), first)
    assert first.shape[0] == 9
    assert not torch.equal(sample(seed=2), first)
    assert not torch.equal(first[0], first[1])


def test_answers_of_a_prompt_are_neighbours_at_temperature_zero() -> None:
    model = tiny_lvlm().eval()
    once = model.generate(**left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=4)
    twice = model.generate(
        **left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=4, num_return_sequences=2
    )
    assert torch.equal(twice[0::2], once)
    assert torch.equal(twice[1::2], once)


def test_generation_restores_the_training_state() -> None:
    model = tiny_lvlm().train()
    model.vision.requires_grad_(False)
    model.train()
    model.generate(**left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=2)
    assert model.language.training
    assert not model.vision.training


def test_images_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_lvlm()
    seen = []
    encode = model.vision.forward
    monkeypatch.setattr(model.vision, "forward", lambda p: seen.append(len(p)) or encode(p))
    prompts = left_padded([PROMPTS[0], PROMPTS[0]])
    model.generate(**prompts, pixels=PIXELS[:1], max_new_tokens=4, **SAMPLING)
    assert seen == [1]


def test_low_top_p_is_greedy() -> None:
    model = tiny_lvlm()
    prompts = left_padded(PROMPTS)
    greedy_tokens = model.generate(**prompts, pixels=PIXELS, max_new_tokens=5)
    sampled = model.generate(
        **prompts, pixels=PIXELS, max_new_tokens=5, temperature=1.0, top_p=1e-6, seed=0
    )
    assert torch.equal(sampled, greedy_tokens)
    assert EOS == model.eos_token_id
