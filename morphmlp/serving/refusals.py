"""Every fault as a status and a JSON object with one line, and every answer counted."""

import logging
import time
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from morphmlp.errors import MorphMLPError
from morphmlp.serving.limits import RefusedError
from morphmlp.serving.predictor import HungUpError, Meter

_HUNG_UP = 499
_COUNTED = "/predict"
_log = logging.getLogger(__name__)


class Metered:
    """Counts what requests for predictions are answered with, and how long they take from their first byte on."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or not scope["path"].startswith(_COUNTED):
            await self._app(scope, receive, send)
            return
        status, began_s = _HUNG_UP, time.monotonic()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._meter.answered(status=status, seconds=time.monotonic() - began_s)


def add_refusals(app: FastAPI) -> None:
    """Let every fault be answered with its status and one line."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)
        return _fault(error.status, str(error), error.headers)

    @app.exception_handler(MorphMLPError)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s", error)
        return _fault(500, str(error))

    @app.exception_handler(RequestValidationError)
    async def misspelt(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _fault(400, "; ".join(f"{_field(fault['loc'])}: {fault['msg']}" for fault in error.errors()))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _fault(error.status_code, f"{request.method} {request.url.path}: {error.detail}", error.headers)

    @app.exception_handler(HungUpError)
    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Exception) -> JSONResponse:
        return _fault(_HUNG_UP, "the sender hung up")

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        return _fault(500, "the server failed; its log has the cause")


def _fault(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(line.split())}, status, headers)


def _field(place: tuple[int | str, ...]) -> str:
    names = [str(part) for part in place if part not in ("query", "body")]
    return ".".join(names) or "body"
