"""torchrun on two hosts: network namespaces joined by a bridge, with a web server on a third."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, which

import pytest
import torch

from dress.artifact import Artifact
from dress.files import read_lines
from tests.integration import test_policy_ranks as policies
from tests.integration.test_devices import ENVIRONMENT, ROOT, STAGE_0, in_this_process, weights
from tests.lit import test_sharded as sharded

pytestmark = pytest.mark.slow
LIMIT_S = 600
FIRST, SECOND, WEB = "10.77.0.1", "10.77.0.2", "10.77.0.3"
SGD = [
    "optimizer._target_=torch.optim.SGD",
    "~optimizer.betas",
    "~optimizer.eps",
    "optimizer.fused=false",
    "optimizer.lr=0.05",
]
FOUR = ["trainer.devices=2", "trainer.num_nodes=2"]
SERVE = """
import sys, threading
from pathlib import Path
from tests.data.stores.web_server import WebServer
with WebServer(Path(sys.argv[1]), address=sys.argv[2]) as web:
    print(web.url, flush=True)
    threading.Event().wait()
"""
Popen = subprocess.Popen[str]


class Network:
    """Three hosts and the bridge between them, each a namespace."""

    def __init__(self) -> None:
        self.hub = f"dress-{os.getpid()}"
        self.hosts = {address: f"{self.hub}-{address[-1]}" for address in (FIRST, SECOND, WEB)}

    def open(self) -> None:
        for name in (self.hub, *self.hosts.values()):
            ip("netns", "add", name)
        ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.hub, "link", "set", "bridge", "up")
        for address, name in self.hosts.items():
            port = f"port{address[-1]}"
            ends = ("type", "veth", "peer", "name", port, "netns", self.hub)
            ip("-n", name, "link", "add", "eth0", *ends)
            ip("-n", self.hub, "link", "set", port, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")

    def close(self) -> None:
        for address, name in self.hosts.items():
            self.lose(address)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.hub], check=False, capture_output=True)

    def start(self, address: str, *command: str) -> Popen:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.hosts[address], *command],
            cwd=ROOT,
            env={k: v for k, v in ENVIRONMENT.items() if not k.lower().endswith("_proxy")}
            | {"GLOO_SOCKET_IFNAME": "eth0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def torchrun(self, address: str, *typed: str, blind: Path | None = None) -> Popen:
        """Start two processes on a host; in a `blind` folder it sees nothing of the others."""
        number = "0" if address == FIRST else "1"
        place = ["--nnodes=2", "--nproc-per-node=2", f"--node-rank={number}"]
        place += [f"--master-addr={FIRST}", "--master-port=29500", "run.py"]
        hidden = ["sh", "-c", f'mount -t tmpfs none {blind} && exec "$@"', "sh"] if blind else []
        launcher = [*hidden, sys.executable, "-m", "torch.distributed.run", *place]
        return self.start(address, *launcher, *STAGE_0, *SGD, *FOUR, *typed)

    def lose(self, address: str) -> None:
        """End a host as a power cut does."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.hosts[address]], capture_output=True, text=True
        )
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    made = Network()
    try:
        made.open()
    except subprocess.CalledProcessError as error:
        made.close()
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return in_this_process(tmp_path_factory.mktemp("alone"), *SGD)


def end(*processes: Popen) -> list[tuple[int, str, str]]:
    try:
        outputs = [process.communicate(timeout=LIMIT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def on_both(network: Network, *typed: str) -> Artifact:
    """Train on two hosts and return what they made."""
    first, second = end(*(network.torchrun(host, *typed) for host in (FIRST, SECOND)))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    (path,) = re.findall(r"^artifact: (.*)$", first[1], re.MULTILINE)
    return Artifact.open(path)


def same(one: Artifact, other: Artifact) -> None:
    assert one.name == other.name
    there = weights(other)
    for name, value in weights(one).items():
        torch.testing.assert_close(there[name], value, rtol=0, atol=1e-6, msg=name)


def test_they_build_the_parents_and_equal_one_process(
    network: Network, tmp_path: Path, alone: Artifact
) -> None:
    same(alone, on_both(network, f"paths.artifacts={tmp_path}"))
    assert list(tmp_path.glob("dress_captions-*"))


def test_shares_on_two_hosts_read_shards_from_a_third(
    network: Network, tmp_path: Path, alone: Artifact
) -> None:
    (captions,) = alone.path.parent.glob("dress_captions-*[0-9a-f]")
    copytree(captions, tmp_path / "served" / "shelf")
    server = network.start(WEB, sys.executable, "-c", SERVE, str(tmp_path / "served"), WEB)
    try:
        assert server.stdout is not None
        there = f"datamodule.shards={server.stdout.readline().strip()}/shelf"
        artifacts = f"paths.artifacts={tmp_path / 'made'}"
        same(alone, on_both(network, "trainer.strategy=fsdp", there, artifacts))
    finally:
        server.kill()
    assert not list((tmp_path / "made").glob("dress_captions*"))


def test_a_lost_host_that_comes_back_goes_on(
    network: Network, tmp_path: Path, alone: Artifact
) -> None:
    artifacts = f"paths.artifacts={tmp_path}"
    first, second = (network.torchrun(host, artifacts) for host in (FIRST, SECOND))
    began = time.monotonic()
    while not any(
        "train/loss" in line
        for file in tmp_path.glob("dress_stage0-*.partial/metrics.jsonl")
        for line in read_lines(file)
    ):
        assert time.monotonic() - began < LIMIT_S and first.poll() is None, end(first, second)
        time.sleep(0.1)
    network.lose(SECOND)
    (code, _, _), _ = end(first, second)
    assert code != 0
    assert list(tmp_path.glob("dress_stage0-*.partial"))
    same(alone, on_both(network, artifacts))


def test_hosts_that_do_not_share_the_artifacts_are_refused(
    network: Network, tmp_path: Path
) -> None:
    artifacts = f"paths.artifacts={tmp_path}"
    first = network.torchrun(FIRST, artifacts)
    second = network.torchrun(SECOND, artifacts, blind=tmp_path)
    for code, _, errors in end(first, second):
        assert code == 1 and "give paths.artifacts in a folder that all hosts share" in errors


OBJECTIVES = ("sft", "critique", "dpo", "dpo_lora", "reward", "sdpo")


def ranks_on_both(network: Network, module: str, *arguments: str) -> None:
    """Run a module in two processes on each of two hosts, which know their rank."""
    ranks = [
        network.start(
            host,
            *("env", f"RANK={rank}", f"LOCAL_RANK={rank % 2}", "WORLD_SIZE=4"),
            f"PYTHONPATH={ROOT / 'tests' / 'integration'}",
            *(sys.executable, "-m", module, *arguments),
        )
        for rank, host in enumerate((FIRST, FIRST, SECOND, SECOND))
    ]
    for code, output, errors in end(*ranks):
        assert code == 0, output + errors


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_every_objective_on_two_hosts_equals_one_process(
    network: Network, tmp_path: Path, strategy: str
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    ranks_on_both(network, sharded.__name__, str(there), strategy, str(sharded.STEPS), *OBJECTIVES)
    for kind in OBJECTIVES:
        sharded.train(kind, tmp_path / kind)
        sharded.same_weights(tmp_path / kind, there / kind, within=1e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ppo_and_grpo_on_two_hosts_equal_one_process(
    network: Network, tmp_path: Path, strategy: str
) -> None:
    ranks_on_both(network, policies.__name__, str(tmp_path), strategy, "float32")
    policies.equal_one(tmp_path, world=4, dtype="float32")
