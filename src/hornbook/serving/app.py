"""The HTTP application: its paths, its errors in OpenAI's form, its OpenAPI description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from hornbook import __version__
from hornbook.serving.chat import converse, render
from hornbook.serving.classifying import classify
from hornbook.serving.completions import complete
from hornbook.serving.gate import Gate
from hornbook.serving.inspecting import inspect
from hornbook.serving.refusals import Refusal, invalid, json_response
from hornbook.serving.requests import (
    MOST_TEXTS,
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    InspectRequest,
    RenderRequest,
)
from hornbook.serving.responses import (
    ERRORS,
    ChatCompletion,
    Classification,
    Completion,
    Health,
    Inspection,
    Model,
    Models,
    Rendered,
)
from hornbook.serving.site import Served, Site

PAGE = Path(__file__).with_name("page.html")
"""What a browser gets at /."""
EVENT = {
    "type": "object",
    "description": "With stream: server-sent events, each a piece of the answer as JSON, the last one [DONE].",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}
EVENTS = {"text/event-stream": {"schema": EVENT}}


def application(site: Site) -> ASGIApp:
    """All of it. Its workers start and stop with it."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        site.start()
        yield
        site.stop()

    app = FastAPI(title="Hornbook", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    app.openapi = lambda: described(app, site)  # type: ignore[method-assign]
    add_answers(app, site)
    add_rest(app, site)
    app.add_exception_handler(Refusal, on_refusal)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_mistake)
    outer: ASGIApp = Gate(app, site)
    if site.settings.cors:
        headers = ["authorization", "content-type"]
        outer = CORSMiddleware(outer, site.settings.cors, allow_methods=["GET", "POST"], allow_headers=headers)
    return outer


def locks(site: Site) -> list[Any]:
    """What says in the description that a key is asked for; the gate is what asks."""
    return [Security(HTTPBearer(auto_error=False))] if site.keys else []


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: ERRORS[status] for status in statuses}


def add_answers(app: FastAPI, site: Site) -> None:
    refusals = errors(400, 401, 403, 404, 408, 413, 429, 500, 503, 504)
    shared: dict[str, Any] = {"dependencies": locks(site)}

    @app.post(
        "/v1/completions",
        response_model=Completion,
        responses={200: {"content": EVENTS}, **refusals},
        **shared,
    )
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        """Continue texts."""
        return await complete(site, request.scope["hornbook"], asked)

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={200: {"content": EVENTS}, **refusals},
        **shared,
    )
    async def chat_completions(asked: ChatRequest, request: Request) -> Response:
        """Answer in a conversation. Only for models with a chat template."""
        return await converse(site, request.scope["hornbook"], asked)

    @app.post("/v1/chat/render", response_model=Rendered, responses=refusals, **shared)
    async def chat_render(asked: RenderRequest, request: Request) -> Response:
        """What the model's chat template makes of messages."""
        return await render(site, request.scope["hornbook"], asked)

    @app.post("/v1/classify", response_model=Classification, responses=refusals, **shared)
    async def tell_apart(asked: ClassifyRequest, request: Request) -> Response:
        """Which class each text is of. Only for models that were taught classes."""
        return await classify(site, request.scope["hornbook"], asked)

    @app.post("/v1/inspect", response_model=Inspection, responses=refusals, **shared)
    async def look_inside(asked: InspectRequest, request: Request) -> Response:
        """What each layer would say next, and where a head looks, for the last 128 tokens of a text."""
        return await inspect(site, request.scope["hornbook"], asked)


def add_rest(app: FastAPI, site: Site) -> None:
    shared: dict[str, Any] = {"dependencies": locks(site)}

    @app.get("/v1/models", response_model=Models, responses=errors(401, 403, 503), **shared)
    async def models() -> Response:
        """What is served."""
        return json_response({"object": "list", "data": [listed(site, served) for served in site.served.values()]})

    @app.get("/v1/models/{name}", response_model=Model, responses=errors(400, 401, 403, 404, 503), **shared)
    async def model(name: str) -> Response:
        return json_response(listed(site, site.find(name)))

    @app.get("/health", response_model=Health, responses={503: {"model": Health}, **errors(403)})
    async def health() -> Response:
        """503 while shutting down, or where a model's engine does not run."""
        up = {name: served.worker.alive for name, served in site.served.items()}
        status = "shutting down" if site.draining else "ok" if all(up.values()) else "failing"
        return json_response({"status": status, "models": up}, 200 if status == "ok" else 503)

    plain = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    shown: Any = {**plain, **errors(401, 403, 503)}

    @app.get("/metrics", response_class=Response, responses=shown, **shared)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(site.figures(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        if not PAGE.is_file():
            raise Refusal(404, "this server has no page: its interface is at /v1")
        return Response(PAGE.read_bytes(), media_type="text/html", headers=PAGE_HEADERS)


PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def listed(site: Site, served: Served) -> dict[str, Any]:
    config = served.model.config
    return {
        "id": served.name,
        "object": "model",
        "created": site.began,
        "owned_by": "hornbook",
        "family": config.family,
        "context": config.context,
        "chat": served.chat,
        "lens": served.lens,
        "attention": served.attention,
        "classes": list(config.labels) or None,
    }


async def on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    request.scope["hornbook"].notes["error"] = error.message
    return error.response()


async def on_mistake(request: Request, error: Exception) -> Response:
    """Whatever nobody expected; the gate writes it into the log."""
    return Refusal(500, "the server made a mistake; its log says more").response()


async def on_http(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown paths, other methods, bodies that are no JSON."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return await on_refusal(request, invalid("the body is no JSON that can be read"))
    refusal = Refusal(error.status_code, f"{request.method} {request.scope['path'][:200]}: {error.detail}")
    request.scope["hornbook"].notes["error"] = str(error.detail)
    return refusal.response(error.headers)


async def on_invalid(request: Request, error: Exception) -> Response:
    """A body of another shape: what is wrong with the first field that is."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(step) for step in first["loc"][1:]]
    if first["type"] == "json_invalid":
        return await on_refusal(request, invalid("the body is no JSON"))
    if not place:
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] in ("model_attributes_type", "missing", "bytes_type"):
            message = "the body must be a JSON object, sent as application/json"
        return await on_refusal(request, invalid(message))
    field = place[0]
    if field == "prompt" and first["type"] != "missing":
        return await on_refusal(request, invalid("prompt: a text, token ids, or a list of either", field))
    if field == "input" and first["type"] != "missing":
        return await on_refusal(request, invalid(f"input: a text, or a list of up to {MOST_TEXTS}", field))
    if field == "text" and first["type"] != "missing":
        return await on_refusal(request, invalid("text: a text, or its token ids", field))
    return await on_refusal(request, invalid(f"{field}: {first['msg']}", field))


def described(app: FastAPI, site: Site) -> dict[str, Any]:
    """The OpenAPI description, of what this server has: its models by name, and none of the framework's own errors."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        parts, names = schema["components"]["schemas"], list(site.served)
        for name in ("HTTPValidationError", "ValidationError"):
            parts.pop(name, None)
        for shape in (parts[name] for name in parts if name.endswith("Request")):
            if not site.keys:  # without a key, this description can be read, and the names cannot
                shape["properties"]["model"]["anyOf"][0]["enum"] = names
            if len(names) > 1:
                del shape["properties"]["model"]["anyOf"][1]
                shape["required"].append("model")
        app.openapi_schema = schema
    return app.openapi_schema
