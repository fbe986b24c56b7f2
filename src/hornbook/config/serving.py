"""`hornbook serve`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from hornbook.config.checks import require, require_words
from hornbook.errors import UserError


@dataclass(frozen=True)
class Serve:
    """Models behind OpenAI's HTTP interface: hornbook serve runs/x runs/y"""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Run folders, or anything else that can be loaded, each served by its folder's name; NAME=RUN chooses another."""
    host: str = "127.0.0.1"
    """The address to serve at; one that others can reach needs API keys, or --open."""
    port: int = 8000
    """0 takes a free one."""
    api_key_file: str | None = None
    """A file with one API key a line, or sha256:HEX for its hash; HORNBOOK_API_KEYS may hold some too."""
    open: bool = False
    """Serve anybody who can reach the address, without a key."""
    cors: UseAppendAction[tuple[str, ...]] = ()
    """An origin, such as https://example.org, whose pages may use the server; may be given several times."""
    device: str | None = None
    """cpu, cuda or mps; default the best there is."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format that the weights are loaded in; bfloat16 is half the memory, and twice as fast."""
    bits: Literal[8, 4] | None = None
    """Quantise the weights while they are loaded."""
    rows: int = 16
    """Answers that each model works on at the same time."""
    queue: int = 64
    """Further answers that may wait for their turn, each model; beyond them requests are refused with 429."""
    memory: float | None = None
    """Gigabytes for the caches of all models together; default half of what is free."""
    reuse: float = 0.25
    """Gigabytes, beside these, for caches of prompts that may come again; 0 for none."""
    max_body: float = 2.0
    """Megabytes of a request's body."""
    max_prompt: int | None = None
    """Tokens of a prompt; default the model's context."""
    max_tokens: int | None = None
    """New tokens of an answer; default the model's context."""
    queue_timeout: float = 30.0
    """Seconds that a request may wait for its turn."""
    timeout: float = 300.0
    """Seconds that a request may take altogether."""
    read_timeout: float = 20.0
    """Seconds in which a request must have come."""
    write_timeout: float = 20.0
    """Seconds that a client may leave what was sent to it unread."""
    grace: float = 20.0
    """Seconds that answers may still take after SIGTERM or Ctrl-C."""
    connections: int = 2000
    """Connections at the same time."""
    log_prompts: bool = False
    """Write prompts into the log too."""

    def __post_init__(self) -> None:
        require_words(self)
        if not self.runs:
            raise UserError("serve needs a run: hornbook serve runs/x")
        above = ("rows", "memory", "max_body", "max_prompt", "max_tokens", "connections")
        times = ("queue_timeout", "timeout", "read_timeout", "write_timeout")
        require(self, (*above, *times), lambda x: 0 < x < math.inf, "above 0")
        require(self, ("queue", "reuse", "grace"), lambda x: 0 <= x < math.inf, "0 or more")
        require(self, ("port",), lambda x: 0 <= x < 65536, "between 0 and 65535")
