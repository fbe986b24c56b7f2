"""Parts of a stream that lie elsewhere: read in blocks, each once, through the cache, those wanted soon beforehand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hornbook.data.blocks import Cache
from hornbook.data.pieces import AGAIN, PartFacts, Tokens, grouped
from hornbook.data.remote import Stopped, Store
from hornbook.errors import UserError

LARGE, SMALL = 2**20, 2**16
"""Bytes of a block: of a corpus that fits into the cache, so that all of a block will be used, and of one that does
not, of which a block is often deleted before another row in it is asked for."""
THREADS = 16
"""Blocks that are fetched at once."""
AHEAD = 4
"""The part of the cache, a quarter, that may be wanted beforehand: what is used now must not give way to it."""


class Fetcher:
    """Fetches blocks for all parts of a corpus."""

    def __init__(self, store: Store, cache: Cache, block: int) -> None:
        self.store, self.cache, self.block = store, cache, block
        self.pools = {now: ThreadPoolExecutor(THREADS, "fetcher") for now in (False, True)}
        """For blocks that are wanted soon, and for those that are waited for, which do not queue behind the others."""
        self.stopped = threading.Event()
        self.cause: UserError | None = None
        self.lock = threading.Lock()
        self.under_way: dict[str, tuple[Future[bytes], bool]] = {}
        """Block -> who brings it, and whether somebody waits for it."""
        self.most = max(THREADS, cache.bound // (AHEAD * block))

    def want(self, part: RemotePart, number: int, now: bool = False) -> Future[bytes] | None:
        """Begin to fetch a block of a part, unless it is there; None also where enough is wanted that is not waited
        for `now`."""
        name = part.name_of(number)
        with self.lock:
            if name in self.under_way:
                future, urgent = self.under_way[name]
                if urgent or not now or not future.cancel():  # what waits in the one queue goes over to the other
                    return future
            if self.cache.holds(name) or (not now and len(self.under_way) >= self.most):
                return None
            future = self.pools[now].submit(self.fetch, part, number, self.stopped)
            self.under_way[name] = future, now
        future.add_done_callback(lambda done: self.forget(name, done))
        return future

    def forget(self, name: str, done: Future[bytes]) -> None:
        if name in self.under_way and self.under_way[name][0] is done:
            self.under_way.pop(name, None)

    def fetch(self, part: RemotePart, number: int, stopped: threading.Event) -> bytes:
        """A block of a part, from wherever it is."""
        name = part.name_of(number)

        def wait(seconds: float) -> None:
            if stopped.wait(seconds):
                raise Stopped("reading was stopped")

        with self.cache.claimed(name, wait):
            data = self.cache.read(name)
            if data is None:  # else another process, or thread, was there first
                part.prove(stopped)
                begin = number * self.block
                data = self.store.read_span(part.facts.file, begin, min(begin + self.block, part.facts.size), stopped)
                self.cache.store(name, data)
        part.came(number, stopped)
        return data

    def span(self, part: RemotePart, number: int, begin: int, end: int) -> bytes:
        """Bytes of a block of a part, counted in the block. Raises UserError."""
        found = self.cache.read(part.name_of(number), begin, end)
        if found is None:
            found = self.whole(part, number)[begin:end]
        else:
            part.came(number, self.stopped)
        if part.wrong is not None:
            raise part.wrong
        return found

    def whole(self, part: RemotePart, number: int) -> bytes:
        """A block that is not in the cache."""
        try:
            future = self.want(part, number, now=True)
            return self.fetch(part, number, self.stopped) if future is None else future.result()
        except (CancelledError, Stopped):
            raise self.cause or Stopped("reading was stopped") from None
        except BaseException as error:  # Ctrl-C too: threads that wait for a server would hold the program's end up
            self.stop(error if isinstance(error, UserError) else None)
            raise

    def stop(self, cause: UserError | None = None) -> None:
        """Give up whatever is being fetched, for that `cause`, which whoever waits for it is told."""
        with self.lock:
            self.cause = cause
            given_up, self.under_way = self.under_way, {}
            waiting, self.stopped = self.stopped, threading.Event()
        waiting.set()
        for future, _ in given_up.values():
            future.cancel()


class RemotePart:
    """A file in a store."""

    far = True

    def __init__(self, fetcher: Fetcher, facts: PartFacts, tokenizer: str) -> None:
        self.fetcher, self.facts, self.tokenizer = fetcher, facts, tokenizer
        self.count = -(-facts.size // fetcher.block)
        self.lock, self.summing = threading.Lock(), threading.RLock()
        self.proven = self.begun = self.summed = False
        self.wrong: UserError | None = None
        self.lacking = {number for number, _, _ in self.blocks("tokens", 0, facts.tokens)}
        """Blocks of tokens that have not come to this process yet: after the last the sum of the file is checked."""

    def name_of(self, number: int) -> str:
        """What the cache calls a block: by its content, so that copies of a corpus share it."""
        return f"{self.facts.sha256[:40]}-{self.fetcher.block}-{number}"

    def prove(self, stopped: threading.Event) -> None:
        """UserError where the file is not what corpus.json says, as far as its size and its header tell."""
        with self.lock:
            if self.proven:
                return
            store, file = self.fetcher.store, self.facts.file
            size = store.size(file, stopped)
            if size not in (None, self.facts.size):
                raise UserError(
                    f"{store.address}/{file} has {size:,} bytes, and corpus.json says {self.facts.size:,}: {AGAIN}"
                )
            raw = store.read_span(file, 0, self.facts.header, stopped)
            self.facts.check_header(raw, f"{store.address}/{file}", self.tokenizer)
            self.proven = True

    def came(self, number: int, stopped: threading.Event) -> None:
        """Take note of a block; with the last of them the sum of the file is checked, once on a machine."""
        if self.summed:
            return
        with self.summing:  # others wait, so that nobody goes on with what is wrong
            self.lacking.discard(number)
            if self.lacking or self.begun:
                return
            self.begun = True  # for this very thread, when it fetches what lies around the tokens
            try:
                self.check_sum(stopped)
            finally:
                self.summed = True

    def check_sum(self, stopped: threading.Event) -> None:
        """Find out whether the file is the one that is meant."""
        mark = f"{self.facts.sha256[:40]}-whole"
        if self.fetcher.cache.holds(mark) or (found := self.sum(stopped)) is None:
            return
        if found == self.facts.sha256:
            self.fetcher.cache.store(mark, b"")
            return
        for block in range(self.count):
            self.fetcher.cache.drop(self.name_of(block))
        where = f"{self.fetcher.store.address}/{self.facts.file}"
        self.wrong = UserError(f"{where} has not the SHA-256 that corpus.json says: {AGAIN}")

    def sum(self, stopped: threading.Event) -> str | None:
        """The SHA-256 of the file, what lies around the tokens fetched for it; None where a block of tokens has left
        the cache."""
        digest, used = hashlib.sha256(), {number for number, _, _ in self.blocks("tokens", 0, self.facts.tokens)}
        for number in range(self.count):
            data = self.fetcher.cache.read(self.name_of(number))
            if data is None:
                if number in used:
                    return None
                data = self.fetcher.fetch(self, number, stopped)
            digest.update(data)
        return digest.hexdigest()

    def blocks(self, name: str, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(number, first byte in it, last one and one) of each block that a span of a tensor has a share in."""
        dtype, first, _ = self.facts.place(name)
        at, stop, size = first + begin * dtype.itemsize, first + end * dtype.itemsize, self.fetcher.block
        for number in range(at // size, -(-stop // size)):
            yield number, max(0, at - number * size), min(size, stop - number * size)

    def want(self, name: str, begin: int, end: int) -> None:
        for number, _, _ in self.blocks(name, begin, end):
            self.fetcher.want(self, number)

    def want_places(self, index: NDArray[np.int64]) -> None:
        for number in np.unique(self.numbers(index)).tolist():
            self.fetcher.want(self, number, now=True)

    def stop(self) -> None:
        self.fetcher.stop()

    def numbers(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """The blocks in which tokens lie. None lies in two: tensors begin, and blocks end, at multiples of 8."""
        dtype, first, _ = self.facts.place("tokens")
        return (first + index * dtype.itemsize) // self.fetcher.block

    def tensor(self, name: str, begin: int = 0, end: int | None = None) -> NDArray[Any]:
        dtype, _, count = self.facts.place(name)
        end = count if end is None else end
        blocks, spans = list(self.blocks(name, begin, end)), []
        for at, block in enumerate(blocks):
            for number, _, _ in blocks[at : at + THREADS] if len(blocks) > 1 else ():
                self.fetcher.want(self, number, now=True)
            spans.append(self.fetcher.span(self, *block))
        return np.frombuffer(b"".join(spans), dtype)

    def take(self, index: NDArray[np.int64]) -> Tokens:
        dtype, first, _ = self.facts.place("tokens")
        found = np.empty(len(index), dtype)
        for number, rows in grouped(self.numbers(index)):
            inside = first + index[rows] * dtype.itemsize - number * self.fetcher.block
            begin, end = int(inside.min()), int(inside.max()) + dtype.itemsize
            raw = np.frombuffer(self.fetcher.span(self, number, begin, end), dtype)
            found[rows] = raw[(inside - begin) // dtype.itemsize]
        return found
