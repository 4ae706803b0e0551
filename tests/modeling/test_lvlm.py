import pytest
import torch
from modeling_helpers import (
    GPT2,
    LLAMA,
    LORA,
    VOCAB_SIZE,
    gradients,
    image,
    plain_loss,
    random_pixels,
    randomize_adapter,
    sequence_logits,
    tiny_lvlm,
    tree_batch,
    tree_loss,
    words,
)
from torch import nn

from dress.errors import InputError
from dress.modeling.build import build_lvlm
from dress.modeling.language import causal_lm
from dress.modeling.projector import linear_projector
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.tree_attention import Ways
from dress.modeling.vision import open_clip_tower
from dress.types import EncodedImagesBatch

PIXELS = random_pixels(2)
PROMPT = [*words(1, 10, 11), *image(0), *words(12)]
OTHER = [*words(1), *image(1), *words(13)]
ROWS = [
    [
        [*PROMPT, *words(14, 15, 2)],
        [*PROMPT, *words(14, 16, 17, 2)],
        [*PROMPT, *words(18)],
        [*OTHER, *words(14, 15, 2)],
    ],
    [[*OTHER, *words(20, 21, 22, 23, 2)]],
]
SEQUENCES = [sequence for row in ROWS for sequence in row]
QWEN3 = LLAMA | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8}


# Llama and Qwen3 compute their RMS norm in float32 even inside a float64 model.
@pytest.mark.parametrize(
    ("config", "tolerance"),
    [(GPT2, 1e-11), (LLAMA, 1e-6), (QWEN3, 1e-6)],
    ids=["gpt2", "llama", "qwen3"],
)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_tree_equals_sequences_alone(config: dict, tolerance: float, lora: dict | None) -> None:
    model = tiny_lvlm(config, lora=lora).double()
    if lora:
        randomize_adapter(model)
    batch = tree_batch(ROWS, pixels=PIXELS, supervised_from=7)
    assert batch.input_ids.numel() < sum(map(len, SEQUENCES))  # prefixes are really shared

    loss = tree_loss(model, batch)
    loss.backward()
    tree_gradients = gradients(model)
    model.zero_grad()
    expected = plain_loss(model, SEQUENCES, PIXELS, supervised_from=7)
    expected.backward()

    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    plain_gradients = gradients(model)
    assert tree_gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(
            tree_gradients[name],
            gradient,
            rtol=0,
            atol=tolerance * scale,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_logits_of_every_node_equal_the_sequence_alone() -> None:
    model = tiny_lvlm(GPT2).double()
    sequences = ROWS[0][:3]
    batch = tree_batch([sequences], pixels=PIXELS, supervised_from=1)
    with torch.no_grad():
        logits = model(batch)
        for number, sequence in enumerate(sequences):
            rows = batch.target_logit[batch.target_seq == number]
            expected = sequence_logits(model, sequence, PIXELS)[:-1]
            torch.testing.assert_close(logits[rows], expected, rtol=0, atol=1e-12)


def test_eager_attention_gives_the_same_loss() -> None:
    torch.set_float32_matmul_precision("highest")
    batch = tree_batch(ROWS, pixels=PIXELS, supervised_from=7)
    losses = [tree_loss(tiny_lvlm(attention=name), batch) for name in ("eager", "sdpa")]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "extra",
    [
        {
            "model_type": "gemma2",
            "final_logit_softcapping": 0.5,
            "layer_types": ["full_attention"] * 2,
            "head_dim": 8,
            "num_key_value_heads": 4,
        },
        {"model_type": "cohere", "logit_scale": 0.0625, "num_key_value_heads": 4},
        {"model_type": "llama", "tie_word_embeddings": True},
    ],
    ids=["softcapping", "logit_scale", "tied"],
)
def test_gathered_logits_keep_the_head_path(extra: dict) -> None:
    model = tiny_lvlm(LLAMA | extra, attention="eager").eval()
    sequence = words(1, *range(10, 20))
    none = random_pixels(0)
    batch = tree_batch([[sequence]], pixels=none, supervised_from=4)
    with torch.no_grad():
        full = sequence_logits(model, sequence, none)[3:-1]
        torch.testing.assert_close(model(batch), full, rtol=1e-4, atol=1e-5)
    assert model(batch).shape == (7, VOCAB_SIZE)
    if extra["model_type"] == "gemma2":
        assert full.abs().max() <= 0.5


def test_text_only_batch_gives_the_projector_and_tower_a_zero_gradient() -> None:
    model = tiny_lvlm()
    batch = tree_batch([[words(1, 10, 11, 2)]], pixels=random_pixels(0), supervised_from=2)
    tree_loss(model, batch).backward()
    for part in (model.vision, model.projector):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert not parameter.grad.any()
    assert model.language.get_input_embeddings().weight.grad.any()


def test_batch_without_targets_has_a_zero_gradient_everywhere() -> None:
    model = tiny_lvlm()
    batch = tree_batch([[words(1)]], pixels=random_pixels(0), supervised_from=1)
    assert model(batch).shape == (0, VOCAB_SIZE)
    model(batch).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_every_weight_of_the_model_takes_part() -> None:
    model = tiny_lvlm()
    tree_loss(model, tree_batch(ROWS, pixels=PIXELS, supervised_from=7)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_frozen_tower_keeps_no_graph() -> None:
    model = tiny_lvlm()
    model.vision.requires_grad_(False)
    model.projector.requires_grad_(False)
    assert not model.image_features(PIXELS).requires_grad


def test_images_encoded_before_are_not_encoded_again() -> None:
    model = tiny_lvlm().double()
    batch = tree_batch(ROWS, pixels=PIXELS, supervised_from=7)
    assert model.with_patches(batch) is batch  # the tower trains: each pass has its own
    model.vision.requires_grad_(False)
    encoded = model.with_patches(batch)
    assert isinstance(encoded, EncodedImagesBatch) and encoded.pixels is batch.pixels
    assert encoded.patches.shape[0] == len(PIXELS) and not encoded.patches.requires_grad
    expected = tree_loss(model, batch)
    model.vision.forward = None  # type: ignore[assignment, method-assign]
    loss = tree_loss(model, encoded)
    assert loss.item() == expected.item()
    loss.backward()
    assert model.projector.weight.grad is not None
    moved = encoded.to("meta")
    assert moved.patches.is_meta and moved.group_ids == batch.group_ids


def test_half_precision_language_model_takes_float_features() -> None:
    model = tiny_lvlm()
    model.language.to(torch.bfloat16)
    logits = model(tree_batch(ROWS, pixels=PIXELS, supervised_from=7))
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert model.projector.weight.grad is not None


def test_padded_rows_where_trees_are_refused() -> None:
    config = LLAMA | {"model_type": "mistral", "sliding_window": 4, "num_key_value_heads": 4}
    model = tiny_lvlm(config).double()
    model.ways = Ways(trees=False)
    rows = [[sequence] for sequence in SEQUENCES]
    loss = tree_loss(model, tree_batch(rows, pixels=PIXELS, supervised_from=7))
    expected = plain_loss(model, SEQUENCES, PIXELS, supervised_from=7)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=0)
    with pytest.raises(AssertionError, match="one sequence per row"):
        model(tree_batch(ROWS, pixels=PIXELS, supervised_from=7))


def test_build_lvlm_reports_a_refusal_once(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = train_tokenizer(["a red circle"], vocab_size=300)
    language = causal_lm(
        config=LLAMA | {"model_type": "mistral", "num_key_value_heads": 4},
        vocab_size=len(tokenizer),
        random_init=True,
    )
    vision = open_clip_tower(name="ViT-S-32-alt", random_init=True)
    model = build_lvlm(
        vision=vision, language=language, projector=linear_projector, tokenizer=tokenizer
    )
    assert not model.trees
    assert [record.message for record in caplog.records if "mistral" in record.message]
    assert isinstance(model.projector, nn.Linear)
    assert (model.projector.in_features, model.projector.out_features) == (vision.dim, 32)
    assert model.image_token_id == tokenizer.convert_tokens_to_ids("<image>")


def test_build_lvlm_refuses_a_too_small_vocabulary() -> None:
    tokenizer = train_tokenizer(["a red circle"], vocab_size=300)
    model = tiny_lvlm()
    with pytest.raises(InputError, match="vocab_size=2"):
        build_lvlm(
            vision=model.vision,
            language=model.language,
            projector=linear_projector,
            tokenizer=tokenizer,
        )
