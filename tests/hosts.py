"""Two hosts on one machine: network namespaces, each with its own address, joined by a cable that can be pulled."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

PORT = "eth0"
"""The name of each host's end of the cable."""


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str
    address: str

    def command(self, *words: str) -> list[str]:
        """What runs `words` there."""
        return ["ip", "netns", "exec", self.name, *words]

    def set_link(self, state: str) -> None:
        """Pull the cable out (down), or put it in again (up)."""
        ip("-n", self.name, "link", "set", PORT, state)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def impossible() -> str:
    """Why there can be no such hosts here; nothing where there can."""
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    try:
        with two_hosts():
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces do not work here: {(error.stderr or str(error)).strip()}"


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """They reach each other, and nothing else."""
    hosts = tuple(Host(f"hornbook-{os.getpid()}-{n}", f"10.77.0.{n}") for n in (1, 2))
    try:
        for host in hosts:
            ip("netns", "add", host.name)
        one, other = hosts
        ip("link", "add", PORT, "netns", one.name, "type", "veth", "peer", "name", PORT, "netns", other.name)
        for host in hosts:
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", PORT)
            ip("-n", host.name, "link", "set", "lo", "up")
            host.set_link("up")
        yield one, other
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)
