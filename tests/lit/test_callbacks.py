"""Throughput counts tokens by hand-made trees; the sample page stands alone; two signals stop."""

import html.parser
import io
import os
import signal
import types
from dataclasses import replace

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from toys import ToyData, cut, make_module, make_rows, make_trainer

from dress.chat.images import thumbnail
from dress.data.rejects import Rejects
from dress.files import read_lines
from dress.interrupts import Interrupted, StopSignals
from dress.types import TokenBatch
from lit_modules.callbacks import consumption
from lit_modules.callbacks.consumption import RejectedGroups, Throughput, count_tokens
from lit_modules.callbacks.fixed_prompts import ConditionRatings
from lit_modules.callbacks.sample_page import render_page
from lit_modules.callbacks.sample_table import MAX_SIDE, SampleTable, TablePrompt


def one_tree() -> TokenBatch:
    """A prefix of two tokens with branches of two and one, and three tokens of padding."""
    none = torch.zeros(0, dtype=torch.long)
    return TokenBatch(
        input_ids=torch.tensor([[5, 6, 7, 8, 9, 0, 0, 0]]),
        position_ids=torch.tensor([[0, 1, 2, 3, 2, 0, 0, 0]]),
        subtree_end=torch.tensor([[5, 5, 4, 4, 5, 6, 7, 8]]),
        image_slot=torch.full((1, 8), -1),
        pixels=torch.zeros(0, 4, 4, 3, dtype=torch.uint8),
        logit_node=none,
        target_node=none,
        target_logit=none,
        target_seq=none,
        sequence_end=torch.tensor([3, 4]),
        sequence_group=torch.tensor([0, 0]),
        sequence_turn=torch.tensor([0, 0]),
        pairs=torch.zeros(0, 2, dtype=torch.long),
        image_pairs=torch.zeros(0, 2, dtype=torch.long),
        chain_bounds=none,
        group_ids=("g",),
    )


def test_tokens_are_counted_with_and_without_sharing():
    assert count_tokens(one_tree()).tolist() == [5, 4 + 3]


def test_a_gap_between_positions_holds_no_tokens():
    tree = one_tree()
    gap = torch.tensor([0, 0, 90, 90, 90, 0, 0, 0])
    moved = replace(tree, position_ids=tree.position_ids + gap)
    assert count_tokens(moved).tolist() == count_tokens(tree).tolist()


def test_throughput_divides_by_the_time_of_its_window(monkeypatch):
    clock = iter([10.0, 11.0, 14.0, 15.0, 17.0, 20.0])
    monkeypatch.setattr(consumption.time, "perf_counter", lambda: next(clock))
    logged = {}
    module = types.SimpleNamespace(
        log_dict=lambda values, **_: logged.update(values),
        log=lambda name, value, **_: logged.update({name: value}),
    )
    loop = types.SimpleNamespace(epoch_loop=types.SimpleNamespace(total_batch_idx=0))
    trainer = types.SimpleNamespace(fit_loop=loop, log_every_n_steps=3)
    callback = Throughput()
    for index in range(3):
        loop.epoch_loop.total_batch_idx = index
        callback.on_train_batch_start(trainer, module, None, index)
        callback.on_train_batch_end(trainer, module, None, (one_tree(), one_tree()), index)
        assert bool(logged) == (index == 2)
        if index == 1:
            callback.on_validation_start(trainer, module)
    # worked 1 + 1 + 3; waited 3 before the second step; the pause for the validation is left out
    assert logged == {
        "train/tokens_per_second": 30 / 8,
        "train/logical_tokens_per_second": 42 / 8,
        "train/samples_per_second": 12 / 8,
        "train/stall_fraction": 3 / 8,
    }


def test_throughput_in_a_trainer(monkeypatch):
    monkeypatch.setattr(consumption, "count_tokens", lambda batch: torch.tensor([3, 4]))
    trainer = make_trainer(callbacks=[Throughput()], log_every_n_steps=2)
    trainer.fit(make_module(), ToyData([cut(batch, [2, 2]) for batch in make_rows(4, 4)]))
    figures = trainer.callback_metrics
    ratio = figures["train/logical_tokens_per_second"] / figures["train/tokens_per_second"]
    assert ratio == pytest.approx(4 / 3)
    assert 0 <= figures["train/stall_fraction"] < 1


def picture(colour, size=(400, 200)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


PROMPTS = [
    TablePrompt(picture("red"), "What <b>shape</b>?", "best", "score: 4", "a & b"),
    TablePrompt(picture("blue"), "How many?", "none", "", '"two"'),
]


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


def test_thumbnails_are_small_jpegs():
    image = Image.open(io.BytesIO(thumbnail(picture("red"), MAX_SIDE)))
    assert image.format == "JPEG" and image.size == (192, 96)


def run_table(tmp_path, answers, **options):
    table = SampleTable(
        prompts=PROMPTS,
        respond=lambda prompts: answers[: len(prompts)],
        directory=tmp_path,
        **options,
    )
    rows = make_rows(2, 4)
    trainer = make_trainer(callbacks=[table], max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(make_module(), ToyData([cut(rows[0], [4])], [cut(rows[1], [4])]))
    return table


def test_the_page_holds_every_validation_escaped_and_by_itself(tmp_path):
    run_table(tmp_path, ["<script>alert(1)</script>", "2"])
    text = (tmp_path / "samples.html").read_text()
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"}
    assert "http" not in text.split("base64", 1)[0] and text.count("data:image/jpeg") == 2
    assert any(a.get("name") == "viewport" for tag, a in page.tags if tag == "meta")
    first = ["2", "", "What <b>shape</b>?", "best", "score: 4"]
    assert page.cells[:7] == [*first, "<script>alert(1)</script>", "a & b"]
    assert page.cells[7:14] == ["2", "", "How many?", "none", "", "2", '"two"']
    assert page.cells[::7] == ["2", "2", "1", "1"]
    assert [line["step"] for line in read_lines(tmp_path / "samples.jsonl")] == [1, 1, 2, 2]


def test_the_table_can_be_short(tmp_path):
    run_table(tmp_path, ["a", "b"], max_rows=1)
    assert [line["step"] for line in read_lines(tmp_path / "samples.jsonl")] == [1, 2]


def test_a_repeated_step_shows_its_last_answer():
    record = {"step": 1, "image": 0, "question": "q", "condition": "", "critique": "", "truth": "t"}
    page = render_page([record | {"response": "old"}, record | {"response": "new"}], [b"x"])
    assert "new" in page and "old" not in page


def test_wandb_gets_one_growing_table(tmp_path):
    logged = []

    class Run:
        def log(self, values):
            logged.append((values["trainer/global_step"], len(values["val/samples"].data)))

    class Offline(WandbLogger):
        def __init__(self):
            L.pytorch.loggers.Logger.__init__(self)

        experiment = Run()

    table = SampleTable(prompts=PROMPTS, respond=lambda _: ["a", "b"], directory=tmp_path)
    trainer = types.SimpleNamespace(
        sanity_checking=False, is_global_zero=True, global_step=7, loggers=[Offline()]
    )
    module = torch.nn.ModuleDict({"model": torch.nn.Identity()})
    table.on_validation_end(trainer, module)
    trainer.global_step = 9
    table.on_validation_end(trainer, module)
    assert logged == [(7, 2), (9, 4)]
    assert table._wandb_table.columns[:2] == ["step", "image"]


def test_the_second_signal_stops_at_once(capfd):
    signals = StopSignals()
    before = signal.getsignal(signal.SIGINT)
    signals.install()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received
        assert "once more to stop at once" in capfd.readouterr().err
        with pytest.raises(Interrupted, match="the same command resumes"):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    finally:
        signals.uninstall()
    assert signal.getsignal(signal.SIGINT) == before


def test_rejects_are_logged_by_reason():
    rejects = Rejects(max_rejects=10)
    rows = make_rows(2, 4)
    trainer = make_trainer(callbacks=[RejectedGroups(rejects=rejects)])
    for key, reason in (("a", "too long"), ("b", "too long"), ("c", "unreadable JSON")):
        rejects.add("shard", key, reason)
    trainer.fit(make_module(), ToyData([cut(rows[0], [4])], [cut(rows[1], [4])]))
    logged = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("data/")}
    assert logged == {
        "data/read_retries": 0,
        "data/rejects": 3,
        "data/rejects/too_long": 2,
        "data/rejects/unreadable_JSON": 1,
    }


def test_ratings_are_logged_at_every_validation():
    rows, asked = make_rows(2, 4), []

    def rate():
        asked.append(len(asked))
        return {"best/mean": 3.0 + len(asked) / 4}

    trainer = make_trainer(callbacks=[ConditionRatings(rate)], max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(make_module(), ToyData([cut(rows[0], [4])], [cut(rows[1], [4])]))
    assert asked == [0, 1]
    assert float(trainer.callback_metrics["val/rating/best/mean"]) == 3.5
