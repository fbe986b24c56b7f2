"""`hornbook serve`: models loaded, an address bound, and the server until it is told to end."""

from __future__ import annotations

import contextlib
import functools
import gc
import ipaddress
import logging
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from hornbook import machine
from hornbook.checkpoint import load
from hornbook.config import Serve
from hornbook.errors import UserError
from hornbook.evaluation.wanted import taught
from hornbook.generation.engine import Engine
from hornbook.generation.swift import quicken
from hornbook.layers.model import LanguageModel
from hornbook.serving.app import application
from hornbook.serving.connections import KEEP_ALIVE, Connection
from hornbook.serving.keys import VARIABLE, Keys, read_keys
from hornbook.serving.logs import Handler, Log
from hornbook.serving.site import Served, Site
from hornbook.serving.threads import dismiss
from hornbook.serving.worker import NoEngine, Worker

BACKLOG = 1024
"""Connections that the system holds until they are taken."""


class Server(uvicorn.Server):
    """uvicorn, with connections swept once a second and an end that lets answers finish. `ready` is called when it
    can be reached."""

    def __init__(self, config: uvicorn.Config, site: Site, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.site, self.ready = site, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                connection.sweep(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.site.log("shutdown", open=len(self.site.cases))
        self.site.drain()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the server, not the process: that ends as any program whose work is done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def opened(name: str, run: str, settings: Serve) -> LanguageModel:
    """A model, ready to generate. UserError, with its name, where it cannot be."""
    device = settings.device or machine.pick_device()
    try:
        model = load(run, device, settings.dtype, text=True, bits=settings.bits)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    quicken(model)
    return model


def serve(settings: Serve) -> None:
    """Serve until SIGTERM or SIGINT. UserError for what cannot be served, before anything is loaded where possible."""
    keys, runs = read_keys(settings.api_key_file), named(settings.runs)
    may_bind(settings, keys)
    with listening(settings) as listener:
        allow_connections(settings.connections)
        models = {name: opened(name, run, settings) for name, run in runs.items()}
        site = site_of(models, settings, keys, Log(sys.stderr), {name: taught(run) for name, run in runs.items()})
        dismiss()
        gc.freeze()  # or now and then the collector would look through all of it, a tenth of a second for every stream
        server_of(site, functools.partial(announce, site, listener)).run([listener])
        site.log.close()


def announce(site: Site, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    site.log("start", url=url, models=list(site.served))
    print(f"hornbook: {', '.join(site.served)} at {url} (Ctrl-C ends)", flush=True)


def site_of(
    models: dict[str, LanguageModel],
    settings: Serve,
    keys: Keys,
    log: Log,
    taught: Mapping[str, Mapping[str, Any]] | None = None,
) -> Site:
    """Models with an engine each; they share what memory is set aside for caches. `taught`: by what settings, if by
    any."""
    known, served = taught or {}, {}
    writers = sum(not model.config.labels for model in models.values())
    for name, model in models.items():
        served[name] = Served(name, model, worker_of(model, writers, settings, log), known.get(name, {}))
    return Site(served, settings, keys, log)


def worker_of(model: LanguageModel, writers: int, settings: Serve, log: Log) -> Worker:
    """`writers`: how many models share the caches."""
    if model.config.labels:
        return Worker(model, functools.partial(NoEngine, model), settings.rows + settings.queue, log.error)
    total = machine.available_memory(model.device) // 2 if settings.memory is None else int(settings.memory * 1e9)
    kept = int(settings.reuse * 1e9) // writers
    make = functools.partial(Engine, model, rows=settings.rows, memory=total // writers, kept=kept)
    return Worker(model, make, settings.rows + settings.queue, log.error)


def server_of(site: Site, ready: Callable[[], None] = lambda: None) -> Server:
    """The HTTP server around a site; `run` it with a listening socket."""
    settings, logger = site.settings, logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [Handler(site.log)], False
    protocol: Any = functools.partial(Connection, settings=settings)
    config = uvicorn.Config(
        application(site),
        loop="asyncio",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.grace) + 5,
    )
    return Server(config, site, ready)


def named(runs: tuple[str, ...]) -> dict[str, str]:
    """Run by the name that it is served by: NAME=RUN, or the last part of its path."""
    found: dict[str, str] = {}
    for run in runs:
        name, equals, rest = run.partition("=")
        if not equals or Path(run).exists():
            name, rest = short(run), run
        if not re.fullmatch(r"[\w.:@+-]+", name, re.ASCII):
            raise UserError(f"'{name}' cannot be a model's name: choose one of letters and digits, as in x={rest}")
        if name in found:
            raise UserError(f"two runs are called {name}: choose names, as in {name}-2={rest}")
        found[name] = rest
    return found


def short(run: str) -> str:
    """runs/x -> x, hf:owner/x@revision -> x, x.gguf -> x."""
    if run.startswith("hf:"):
        return run.removeprefix("hf:").split("@")[0].rsplit("/", 1)[-1]
    return Path(run).expanduser().resolve().name.removesuffix(".gguf")


def may_bind(settings: Serve, keys: Keys) -> None:
    """UserError for an address that others can reach, where anybody could use the server."""
    if keys or settings.open or is_loopback(settings.host):
        return
    raise UserError(
        f"{settings.host} can be reached by others, and there are no API keys: give --api-key-file or {VARIABLE}, "
        "or --open to let anybody in"
    )


def is_loopback(host: str) -> bool:
    try:
        return all(ipaddress.ip_address(str(a[4][0]).split("%")[0]).is_loopback for a in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def listening(settings: Serve) -> Iterator[socket.socket]:
    """A socket with the address, on which nobody is heard yet. UserError where that is not to be had."""
    place = f"port {settings.port} of {settings.host}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"cannot serve at {place}: {error.strerror or error}") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise UserError(f"cannot serve at {place}: {error.strerror or error}; --port 0 takes a free one") from None
        yield listener


def allow_connections(count: int) -> None:
    """Raise this process's limit of open files to what so many connections need, as far as the system lets it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
