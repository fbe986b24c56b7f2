"""Two hosts at one run, and the link between them cut for a while."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hornbook.checkpoint import load
from hosts import PORT, Host, impossible, two_hosts
from test_parallel import HERE, command, finished, kill_children_of, near, several, until, write_text

pytestmark = pytest.mark.slow
CUT = 25.0
"""Seconds without a link: longer than --timeout, so that the workers give up, and than torchrun waits for a host that
is silent (15 s), so that it is struck off."""
STEPS = 160


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    if why := impossible():
        pytest.skip(why)
    with two_hosts() as both:
        yield both


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture(scope="module")
def one_host(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by two processes of this machine."""
    run = tmp_path_factory.mktemp("one") / "run"
    finished(several(2, asked(text, run)))
    return run


def asked(text: Path, run: Path) -> list[str]:
    return [*command(text, run, STEPS), "--parallel=shard", "--timeout=8"]


def node(host: Host, first: Host, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """torchrun on a host, as docs/many.md has it."""
    conf = f"is_host={int(host is first)},read_timeout=600,join_timeout=600"
    words = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=test"]
    words += [f"--rdzv-endpoint={first.address}:29500", f"--rdzv-conf={conf}", f"--local-addr={host.address}"]
    path = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    surroundings = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": PORT}
    start = host.command(sys.executable, "-m", "torch.distributed.run", *words, "-m", "hornbook", *arguments)
    with open(log, "wb") as out:
        return subprocess.Popen(start, env=surroundings, stdout=out, stderr=out, start_new_session=True)


@pytest.fixture
def started(hosts: tuple[Host, Host], text: Path, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    nodes = [node(host, hosts[0], asked(text, tmp_path / "run"), tmp_path / host.address) for host in hosts]
    yield nodes
    for each in nodes:
        if each.poll() is None:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait()
    kill_children_of(tmp_path / "run")


def ended(nodes: list[subprocess.Popen[bytes]], hosts: tuple[Host, Host], folder: Path) -> str:
    """What the first host said, once both have ended well."""
    codes = [each.wait(timeout=300) for each in nodes]
    told = [(folder / host.address).read_text() for host in hosts]
    assert codes == [0, 0], "\n".join(text[-3000:] for text in told)
    return told[0]


def equal(one: Path, other: Path) -> None:
    """Bit for bit: as many processes, the same sums."""
    near(one, other)
    pairs = zip(load(one / "last").parameters(), load(other / "last").parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_two_hosts_learn_what_one_does(
    started: list[subprocess.Popen[bytes]], hosts: tuple[Host, Host], one_host: Path, tmp_path: Path
) -> None:
    ended(started, hosts, tmp_path)
    equal(one_host, tmp_path / "run")


def test_a_link_that_is_cut_costs_time_and_nothing_else(
    started: list[subprocess.Popen[bytes]], hosts: tuple[Host, Host], one_host: Path, tmp_path: Path
) -> None:
    until(lambda: any((tmp_path / "run" / "checkpoints").glob("[0-9]*")), started[0])
    hosts[1].set_link("down")
    time.sleep(CUT)
    assert all(each.poll() is None for each in started), "a node gave up"
    assert not (tmp_path / "run" / "summary.json").exists()
    hosts[1].set_link("up")
    told = ended(started, hosts, tmp_path)
    assert re.search(r"process 0 waited \d+ s at step \d+", told)
    assert "carrying on at step" in told
    equal(one_host, tmp_path / "run")
