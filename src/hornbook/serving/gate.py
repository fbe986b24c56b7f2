"""What stands before every request: the Host, the key, the body's size and time, the client that goes away."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hornbook.serving.refusals import Refusal
from hornbook.serving.site import Case, Site

OPEN = {"/", "/health", "/openapi.json"}
"""Paths that ask for no key."""
BODIES = 32
"""Largest bodies that may be on their way at the same time."""


class Gone(Exception):
    """The client has closed the connection."""


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self.app, self.site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        client = scope.get("client") or ("", 0)
        case = scope["hornbook"] = Case(scope["method"], scope["path"], str(client[0]))
        self.site.cases.add(case)
        try:
            await self.pass_on(case, scope, receive, noting(case, send))
        finally:
            self.site.close(case)

    async def pass_on(self, case: Case, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.admit(case, scope)
            if scope["method"] != "POST":
                return await self.app(scope, receive, send)
            body = await self.body(receive)
            await self.watched(case, scope, body, receive, send)
        except Refusal as refusal:
            case.notes["error"] = refusal.message
            await refusal.response()(scope, receive, send)
        except Gone:
            case.status = 499
        except Exception as error:
            self.site.log.error(error)
            if not case.complete:  # too late for another answer: the connection is closed
                raise

    def admit(self, case: Case, scope: Scope) -> None:
        """Refusal for who may not come in."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self.site.draining and case.path != "/health":
            raise Refusal(503, "the server is shutting down", "shutting_down")
        if self.site.keys:
            if case.path not in OPEN:
                self.identify(case, headers)
        elif not self.site.settings.open and not is_local(headers.get(b"host", ""), self.site.settings.host):
            # A page of another site can have its name lead here (DNS rebinding), but not hide that name.
            raise Refusal(403, "without API keys, this server answers to its own address and localhost only")

    def identify(self, case: Case, headers: Mapping[bytes, str]) -> None:
        holder = self.site.keys.holder(headers.get(b"authorization", ""))
        if holder is None:
            raise Refusal(401, "no API key, or a wrong one: send Authorization: Bearer KEY", "invalid_api_key")
        case.notes["key"] = holder

    async def body(self, receive: Receive) -> bytes:
        """The whole body. Refusal for one that is too large, or too slow; Gone where the client has left."""
        settings, found = self.site.settings, bytearray()
        most = int(settings.max_body * 1e6)
        try:
            async with asyncio.timeout(settings.read_timeout):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Gone
                    part, more = message.get("body", b""), message.get("more_body", False)
                    found += part
                    self.site.body_bytes += len(part)
                    if len(found) > most:
                        raise Refusal(413, f"the body has more than {most:,} bytes", "body_too_large")
                    if self.site.body_bytes > BODIES * most:
                        raise Refusal(503, "the server is busy: too much is being sent", "overloaded")
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {settings.read_timeout:g} seconds") from None
        finally:
            self.site.body_bytes -= len(found)
        return bytes(found)

    async def watched(self, case: Case, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application until it is done, or the client gone: then it is broken off, and its places are free."""
        work = asyncio.create_task(run(self.app, scope, body, send))
        gone = asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not case.complete:
                raise Gone
            await work
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


async def run(app: ASGIApp, scope: Scope, body: bytes, send: Send) -> None:
    """The application, with a body that is already here."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()  # whether the client is still there is the gate's business
        return parts.pop()

    await app(scope, receive, send)


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def noting(case: Case, send: Send) -> Send:
    """`send`, with the request's id in the headers and what was sent noted in the case."""

    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            case.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", case.id.encode())]
        elif not message.get("more_body", False):
            case.complete = True
        await send(message)

    return noted


def is_local(host: str, own: str) -> bool:
    """Whether a Host header names this machine itself, or the address that the server was given."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]").lower()
    if name in ("localhost", own.lower()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
