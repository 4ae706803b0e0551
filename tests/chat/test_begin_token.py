"""A sequence begins as the tokenizer itself begins a text, in training, in rollouts and at test."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AddedToken, PreTrainedTokenizerFast

from dress.chat.processor import begin_text
from dress.chat.template import ChatTemplate
from dress.errors import InputError, Reject
from dress.jobs.job import Job
from dress.jobs.resolved import resolved_template
from dress.jobs.train import fingerprinted
from dress.modeling.tokenizer import load_tokenizer
from dress.types import Turn
from tests.chat.tiny_chat import make_processor, tokenizer

CONF = Path(__file__).parents[2] / "conf"
LETTERS = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:?!'"
TURNS = [Turn("How many?", "Two."), Turn("Sure?", "Yes, two.")]


def beginning(single: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE that makes of a text `single`, in which $A is the text's own tokens."""
    backend = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    specials = [(name, backend.token_to_id(name)) for name in ("<pad>", "<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def llama(*, old: bool = False, normalized: bool = False) -> PreTrainedTokenizerFast:
    """Llama's kind of BPE, which gives a blank to a text's first word, or to each after a special.

    The older files have it from a normalizer, some of them with special tokens subject to that.
    """
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS]
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    if old:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    bos, eos = (AddedToken(name, special=True, normalized=normalized) for name in ("<s>", "</s>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, unk_token="<unk>"
    )


def loaded(made: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    made.save_pretrained(folder)
    return load_tokenizer(str(folder))


KINDS = {
    "llama": (llama(), ["<s>"]),
    "llama-1": (llama(old=True), ["<s>"]),
    "opt": (beginning("</s> $A"), ["</s>"]),
    "two": (beginning("<pad> <s> $A </s>"), ["<pad>", "<s>"]),
    "gpt2": (tokenizer(), []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_what_the_tokenizer_makes_of_its_text(kind: str, tmp_path: Path) -> None:
    made, begin = KINDS[kind]
    own = loaded(made, tmp_path)
    assert begin_text(own) == "".join(begin)
    processor = make_processor(tokenizer=own)
    encoded = processor.encode(TURNS, images=[], supervised={0, 1})
    text = "USER: How many? ASSISTANT: Two.</s>USER: Sure? ASSISTANT: Yes, two.</s>"
    expected = own(text).input_ids  # its own special tokens included
    assert encoded.input_ids.tolist() == expected[: len(encoded.input_ids)]
    rest = len(expected) - len(encoded.input_ids)
    assert rest == (1 if kind == "two" else 0)  # which also puts an end token behind a text
    assert own.convert_ids_to_tokens(encoded.input_ids[: len(begin)].tolist()) == begin
    assert not encoded.loss_mask[: len(begin)].any()
    plain = make_processor(tokenizer=own, template=ChatTemplate(begin=""))
    without = plain.encode(TURNS, images=[], supervised={0, 1})
    assert encoded.loss_mask[len(begin) :].tolist() == without.loss_mask.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_rollout_prompt_is_the_training_prompt(kind: str, tmp_path: Path) -> None:
    processor = make_processor(tokenizer=loaded(KINDS[kind][0], tmp_path))
    train = processor.encode(TURNS, images=["h"], condition="honesty 4", supervised={1})
    opened = [TURNS[0], Turn("Sure?")]
    prompt = processor.encode(opened, images=["h"], condition="honesty 4", prompt_only=True)
    first = train.loss_mask.tolist().index(True)
    assert prompt.input_ids.tolist() == train.input_ids[:first].tolist()
    assert processor.decode(train.input_ids[first:]) == "Yes, two."


def test_the_begin_token_counts_and_stays_when_old_turns_go() -> None:
    own = beginning("<s> $A")
    whole = make_processor(tokenizer=own).encode(TURNS[1:], images=[], supervised={0})
    length = len(whole.input_ids)
    shorter = make_processor(tokenizer=own, max_length=length)
    kept = shorter.encode(TURNS, images=[], supervised={0, 1})
    assert kept.input_ids.tolist() == whole.input_ids.tolist()
    with pytest.raises(Reject, match="too long"):
        make_processor(tokenizer=own, max_length=length - 1).encode(
            TURNS, images=[], supervised={0, 1}
        )


def test_no_text_forges_it() -> None:
    own = beginning("<s> $A")
    processor = make_processor(tokenizer=own)
    encoded = processor.encode([Turn("<s>", "<s> is text")], images=[], supervised={0})
    assert (encoded.input_ids == own.bos_token_id).sum() == 1


@pytest.mark.parametrize(
    ("own", "template", "count", "said"),
    [
        ("<s> $A", ChatTemplate(), 1, None),
        ("<s> $A", ChatTemplate(begin="<s>"), 1, None),
        ("<s> $A", ChatTemplate(system="<s>Be kind. "), 1, None),  # no second one
        ("<s> $A", ChatTemplate(begin=""), 0, "begins with '', but the tokenizer .* puts '<s>'"),
        ("$A", ChatTemplate(), 0, None),
        ("$A", ChatTemplate(begin="<s>"), 1, "begins with '<s>', but the tokenizer .* puts ''"),
        ("$A", ChatTemplate(system="<s>"), 1, "begins with '<s>', but the tokenizer .* puts ''"),
    ],
)
def test_a_template_that_differs_is_said_in_one_line(
    own: str,
    template: ChatTemplate,
    count: int,
    said: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        processor = make_processor(tokenizer=beginning(own), template=template)
    assert len(caplog.records) == (said is not None)
    if said:
        assert re.search(said, caplog.records[0].message)
    encoded = processor.encode(TURNS, images=[], supervised={1})
    assert (encoded.input_ids == processor.tokenizer.bos_token_id).sum() == count


def test_an_end_token_that_is_not_seen_behind_text_is_refused(tmp_path: Path) -> None:
    own = loaded(llama(old=True, normalized=True), tmp_path)
    with pytest.raises(InputError, match="does not see '</s>' behind other text"):
        make_processor(tokenizer=own)


def job(*overrides: str) -> Job:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Job(cfg=compose("run", list(overrides)), overrides=overrides)


def test_what_was_found_is_recorded(tmp_path: Path) -> None:
    """A template without the key has no begin token: so are the artifacts of older versions."""
    llama().save_pretrained(tmp_path / "llama")
    tokenizer().save_pretrained(tmp_path / "gpt2")
    named = f"model.tokenizer.name={tmp_path}"
    assert resolved_template(job(f"{named}/llama"))["begin"] == "<s>"
    assert "begin" not in resolved_template(job(f"{named}/gpt2"))
    assert "begin" not in resolved_template(job(f"{named}/llama", "template.begin=''"))
    assert "begin" not in resolved_template(job(f"{named}/llama", "template.system='<s>Hi. '"))
    assert resolved_template(job("template.begin='<s>'"))["begin"] == "<s>"
    world = job("experiment=dress_stage2")
    recorded = fingerprinted(world)
    assert recorded["template"] == {k: v for k, v in world.node("template").items() if k != "begin"}
    assert recorded["model"]["vision"] == world.node("model")["vision"]
