"""The HTTP interface: routes, bodies of bounded size, keys, JSON errors. What is asked and answered
is ``service``'s.

Contract: every response is JSON but that of ``/metrics``; an error says ``message``, ``detail`` and
``code``. A request is counted as inside before its body is read, so that memory is bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rank_rl.serve.answers import Origin
from rank_rl.serve.keys import Keys
from rank_rl.serve.limits import Limits, Refused
from rank_rl.serve.requests import RerankRequest
from rank_rl.serve.service import GONE, Service

log = logging.getLogger(__name__)

CLOSE = {"Connection": "close"}
PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")


def make_app(service: Service, keys: Keys) -> FastAPI:
    """The application that answers for a service to whoever has one of the keys."""
    # The pages of FastAPI load scripts from elsewhere; the schema itself is at /openapi.json.
    app = FastAPI(title="rank-rl", docs_url=None, redoc_url=None)

    async def rerank(request: Request) -> Response:
        return await _rerank(request, service, keys)

    async def models(request: Request) -> Response:
        try:
            keys.check(request.headers)
        except Refused as error:
            return _refusal(error)
        named = {"id": service.name, "object": "model", "created": 0, "owned_by": "rank_rl"}
        return _json({"object": "list", "data": [named]})

    async def health() -> Response:
        return _health(service, service.ready)

    async def live() -> Response:
        return _health(service, service.batcher.alive)

    async def metrics() -> Response:
        telemetry = service.telemetry
        return Response(telemetry.text(), media_type=telemetry.content_type)

    schema = RerankRequest.model_json_schema()
    body = {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}
    for path in PATHS:
        app.add_api_route(path, rerank, methods=["POST"], response_model=None, openapi_extra=body)
    pages: dict[str, Any] = {"/v1/models": models, "/metrics": metrics, "/health/live": live}
    pages |= {"/health": health, "/health/ready": health}
    for path, page in pages.items():
        app.add_api_route(path, page, methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, _not_here)
    return app


async def _rerank(request: Request, service: Service, keys: Keys) -> Response:
    """Answer a request, count it, and turn whatever goes wrong into JSON."""
    started = time.monotonic()
    status = 200
    try:
        keys.check(request.headers)
        with service.gate.entered():
            response = await _inside(request, service)
            service.gate.took(time.monotonic() - started)
    except Refused as error:
        status, response = error.status, _refusal(error)
    except Exception:  # a bug must not end in a page without a reason
        log.exception("a request failed")
        failed = Refused(503, "internal_error", "the server failed; its log says more")
        status, response = failed.status, _refusal(failed)
    service.telemetry.request(status, time.monotonic() - started)
    return response


async def _inside(request: Request, service: Service) -> Response:
    body = await _read(request, service.limits)
    version = "2" if request.url.path.startswith("/v2") else "1"
    origin = Origin(id=str(uuid.uuid4()), model=service.name, version=version)

    async def gone() -> None:
        # With its body read, the next that comes of a client is that it has left.
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return _json(await service.answer(body, origin, gone))


async def _read(request: Request, limits: Limits) -> bytes:
    """The body, of which no more than the limit is ever held.

    Raises:
        Refused: 400, 408, 413 or 415.
    """
    if request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise Refused(415, "encoded_body", "the body must not be compressed")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise _too_large(limits)
    parts: list[bytes] = []

    async def take() -> None:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limits.body_bytes:
                raise _too_large(limits)
            parts.append(part)

    try:
        await asyncio.wait_for(take(), limits.upload_seconds)
    except asyncio.TimeoutError:
        raise Refused(408, "upload_too_slow", "the body took too long", CLOSE) from None
    except ClientDisconnect:
        raise Refused(GONE, "client_gone", "the client left before its body was read") from None
    return b"".join(parts)


def _too_large(limits: Limits) -> Refused:
    return Refused(413, "body_too_large", f"the body has more than {limits.body_bytes} bytes")


def _health(service: Service, well: bool) -> Response:
    status = "ok" if well else "shutting_down" if service.batcher.alive else "failed"
    told = {"status": status, "ready": service.ready, "live": service.batcher.alive}
    state = {"model": service.name, "requests": service.gate.inside}
    return _json(told | state, status=200 if well else 503)


async def _not_here(request: Request, error: Exception) -> Response:
    """An unknown path or method, in the form of all errors."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    told = f"{'no such path' if status == 404 else 'not with this method'}; try POST /v1/rerank"
    return _refusal(Refused(status, "not_found" if status == 404 else "not_allowed", told))


def _refusal(error: Refused) -> Response:
    return _json(error.body(), status=error.status, headers=dict(error.headers))


def _json(
    content: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode(), status, headers, media_type="application/json")
