"""Two processes with different shares of every step train what one process does."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from test_alignment import reference
from toys import make_module, make_rows

from tests.processes import Process

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    processes = [
        Process(
            HERE / "two_ranks.py",
            [str(folder / "result"), str(folder)],
            environment=os.environ | where | {"LOCAL_RANK": str(rank)},
            join_errors=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=180)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
    return [json.loads((folder / f"result.{rank}").read_text()) for rank in range(2)]


def test_ranks_with_different_counts_equal_one_process(ranks):
    expected = reference(make_rows(4, 8))
    for result in ranks:
        trained = torch.tensor(result["weights"], dtype=torch.float64)
        torch.testing.assert_close(trained, expected, rtol=1e-6, atol=1e-6)
    assert ranks[0]["weights"] == ranks[1]["weights"]


def test_figures_are_those_of_all_ranks(ranks):
    rows = make_rows(4, 8)
    model = make_module().model.eval()
    head = torch.tensor(ranks[0]["weights"], dtype=torch.float64)
    with torch.no_grad():
        model.head.weight.copy_(head[:4][None])
        model.head.bias.copy_(head[4:])
        inputs = torch.cat([rows[0].inputs, rows[1].inputs])
        errors = model(inputs) - torch.cat([rows[0].targets, rows[1].targets])
    for result in ranks:
        assert result["figures"]["val/loss"] == pytest.approx(errors.square().mean().item())
        assert result["figures"]["train/loss"] == ranks[0]["figures"]["train/loss"]


def test_resuming_restores_the_random_stream_of_each_rank(ranks):
    assert ranks[0]["whole"] != ranks[0]["weights"]
    for result in ranks:
        assert result["resumed"] == result["whole"]


def test_a_bad_loss_on_one_rank_stops_both_before_the_update(ranks):
    assert "step 3 is not finite" in ranks[0]["refused"]
    assert "rank 0: g2.0, g2.1, g2.2, g2.3, g2.4, g2.5" in ranks[0]["refused"]
    assert "rank 1: g2.6, g2.7" in ranks[1]["refused"]
