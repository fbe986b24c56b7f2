"""Files at an address that fsspec knows (s3://bucket/folder, https://..., memory://...), asked for with patience.

Who may read what is the affair of the address's own library: s3fs takes keys and endpoint from AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ~/.aws and the like. Nothing of that passes through here.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hornbook.errors import PassingError, UserError, missing_extra, visible
from hornbook.progress import duration, say

Found = TypeVar("Found")

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0)
"""Seconds between two times that an address which does not answer is asked: four minutes in all."""
CONNECTIONS = 40
"""To one server at once: one for each thread that fetches, and some."""
LASTING = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, getattr(errno, "EREMCHG", errno.EINVAL))
"""What an answer of S3 becomes that will be the same the next time."""
PASSING = (408, 425, 429)
"""Codes of HTTP from 400 to 499 that will not."""


def is_address(name: str) -> bool:
    """Whether a name is that of something elsewhere."""
    return "://" in name


class Stopped(UserError):
    """What was being read is not wanted any more."""


class Store:
    """The files below an address. Any number of threads."""

    def __init__(self, address: str, pauses: Sequence[float] | None = None) -> None:
        """`pauses` default to PAUSES. UserError where no library for such an address is installed."""
        self.address, self.pauses = address.rstrip("/"), PAUSES if pauses is None else pauses
        self.system, root = file_system(self.address)
        self.root = root.rstrip("/")
        self.away, self.talking = False, threading.Lock()

    def read(self, file: str, stopped: threading.Event | None = None) -> bytes:
        """All of a file. UserError where it is not there, may not be read, or its server stays away."""
        return self.patiently(file, lambda path: self.system.cat_file(path, start=0), stopped)

    def read_span(self, file: str, begin: int, end: int, stopped: threading.Event | None = None) -> bytes:
        """Some bytes of a file. UserError also where it has not got them."""
        found = self.patiently(file, lambda path: self.system.cat_file(path, start=begin, end=end), stopped)
        if len(found) < end - begin:
            raise UserError(f"{self.address}/{file} ends at byte {begin + len(found):,} and should have {end:,}")
        if len(found) > end - begin:
            raise UserError(f"{self.address} sends whole files where parts are asked for: copy the folder here")
        return found

    def size(self, file: str, stopped: threading.Event | None = None) -> int | None:
        """Bytes of a file; None where its server does not say."""
        return self.patiently(file, lambda path: self.system.size(path), stopped)

    def patiently(self, file: str, ask: Callable[[str], Found], stopped: threading.Event | None = None) -> Found:
        """What `ask` finds at a file's path; it is asked again, with growing pauses, while the server is away.

        Raises UserError as `read` does, and Stopped once that event is set.
        """
        stopped = stopped or threading.Event()
        for pause in (*self.pauses, None):
            if stopped.is_set():
                raise Stopped(f"{self.address}: reading was stopped")
            try:
                found = ask(f"{self.root}/{file}")
            except Exception as error:
                if refused(error):
                    raise UserError(f"cannot read {self.address}/{file}: {reason(error)}{hint(error)}") from error
                if not passing(error):
                    raise
                if pause is None:
                    waited = duration(sum(self.pauses))
                    raise PassingError(
                        f"{self.address} has not answered for {waited} ({reason(error)}): the same command carries on "
                        "once it does"
                    ) from error
                self.tell(error)
                stopped.wait(pause)
            else:
                self.answered()
                return found
        raise AssertionError

    def tell(self, error: Exception) -> None:
        """Say once that the server is away, however many ask."""
        with self.talking:
            if not self.away:
                waited = duration(sum(self.pauses))
                say(f"{self.address} does not answer ({reason(error)}): it is asked again for {waited}")
            self.away = True

    def answered(self) -> None:
        if self.away:
            with self.talking:
                if self.away:
                    say(f"{self.address} answers again")
                self.away = False


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it. UserError where there is none."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise missing_extra("fsspec", "cluster", f"reading {address}") from None
    options: dict[str, Any] = {}
    if address.startswith(("s3://", "s3a://")):  # our patience in the place of botocore's
        options = {"config_kwargs": {"retries": {"total_max_attempts": 1}, "max_pool_connections": CONNECTIONS}}
    try:
        system, root = url_to_fs(address, **options)
        if options:
            system.retries = 1
        return system, root
    except ImportError as error:
        if options or address.startswith("http"):
            raise missing_extra("s3fs", "cluster", f"reading {address}") from None
        raise UserError(f"cannot read {address}: {reason(error)}") from None
    except ValueError as error:
        raise UserError(f"cannot read {address}: {reason(error)}") from None


def refused(error: Exception) -> bool:
    """Whether the answer will be the same the next time: not there, not allowed, no credentials, no such request."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return True
    if isinstance(error, OSError) and error.errno in LASTING:
        return True
    status = getattr(error, "status", None)  # of aiohttp
    if isinstance(status, int) and 400 <= status < 500 and status not in PASSING:
        return True
    name = type(error).__name__
    return any(word in name for word in ("Credential", "Profile", "Token", "SSL", "Certificate", "Param", "InvalidURL"))


def passing(error: Exception) -> bool:
    """Whether it may be gone the next time: anything that a network or a server does."""
    origin = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | EOFError) or origin in ("botocore", "aiobotocore", "aiohttp", "http", "urllib3")


def hint(error: Exception) -> str:
    """What to do about a refusal, behind a colon."""
    if isinstance(error, FileNotFoundError):
        return ": give the address of a folder that hornbook prepare has finished"
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        return ": for S3, the right keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or into ~/.aws"
    return ""


def reason(error: Exception) -> str:
    """What went wrong, on one line."""
    text = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0]
    if isinstance(error, FileNotFoundError) and "does not exist" not in text:
        text = f"there is no such file ({text})" if text else "there is no such file"
    return visible(text or type(error).__name__)
