"""What a client is told instead of an answer, in OpenAI's form of an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

AFTER = 1
"""Seconds after which a client that found no room may come again."""
KINDS = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}
"""The `type` of an error by its status; others below 500 are the request's fault, those from 500 on the server's."""

ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Refusal(Exception):
    """Ends a request with an HTTP status and one line."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    @property
    def error(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        if self.status in (429, 503):
            return {"retry-after": str(AFTER)}
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        return {"connection": "close"} if self.status == 408 else {}

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        return json_response(self.error, self.status, {**self.headers, **(headers or {})})


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """ASCII, so that no string can fail to be sent; ValueError for NaN and infinity, which JSON does not have."""
    return Response(as_json(content), status, headers, media_type="application/json")


def as_json(content: Any) -> bytes:
    return ENCODER.encode(content).encode()


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """The request can never be answered as it stands."""
    return Refusal(400, message, code, param)
