"""The pages on this machine: a small server that answers only to names of the loopback interface."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sonew.documents import DocumentError, parse_json
from sonew.errors import SonewError
from sonew_perf.dashboard.catalogue import Catalogue
from sonew_perf.dashboard.documents import UnknownViewError
from sonew_perf.dashboard.page import SERVER_POLICY, plotly, plotly_name, script, server_page, style
from sonew_perf.history.tickets import STATES, State

LOOPBACK: Final = "127.0.0.1"
NAMES: Final = ("127.0.0.1", "localhost", "[::1]")  # whom a browser must have asked for: another name may be an attack by DNS
ASKED_BY_PAGE: Final = "x-sonew"  # a header that a form or a foreign page cannot send
LARGEST_BODY: Final = 65536  # bytes of a ticket
LONGEST_NOTE: Final = 4000  # characters
HEADERS: Final = {
    "content-security-policy": SERVER_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
PARTS: Final[Mapping[str, tuple[Callable[[], str], str]]] = {
    "app.js": (script, "text/javascript"),
    "app.css": (style, "text/css"),
}
FOR_EVER: Final = "private, max-age=31536000, immutable"
T = TypeVar("T")
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]


class PortError(SonewError, OSError):
    """The server cannot listen where it was asked to."""


class SecurityHeaders:
    """Puts the headers on every response, errors among them."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Pass everything on, headers added."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            await send(message)

        await self._app(scope, receive, sending)


def _error(message: str, status: int) -> JSONResponse:
    return JSONResponse({"error": message}, status, {"cache-control": "no-store"})


async def _refused(request: Request, error: Exception) -> Response:
    return _error(error.detail, error.status_code) if isinstance(error, HTTPException) else await _broken(request, error)


async def _broken(_request: Request, error: Exception) -> Response:
    return _error(f"This view could not be made ({type(error).__name__}); the terminal of the server says more.", 500)


async def _failed(_request: Request, error: Exception) -> Response:
    return _error(str(error), 404 if isinstance(error, UnknownViewError) else 500)


class Pages:
    """The answers, each from the catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def _asked(self, work: Callable[[], T]) -> T:
        """An answer of the catalogue, which analyses histories from the first answer on."""
        answer = await run_in_threadpool(work)
        await run_in_threadpool(self._catalogue.analyse_meanwhile)
        return answer

    async def shell(self, _request: Request) -> Response:
        """The page around every view."""
        return Response(server_page(), media_type="text/html; charset=utf-8", headers={"cache-control": "no-store"})

    async def static(self, request: Request) -> Response:
        """The page's script and style, and the library that draws."""
        name = request.path_params["name"]
        if name == plotly_name():
            return Response(plotly(), media_type="text/javascript; charset=utf-8", headers={"cache-control": FOR_EVER})
        if name not in PARTS:
            raise HTTPException(404, f"There is no file {name!r}. Files: {', '.join((*PARTS, plotly_name()))}.")
        make, media_type = PARTS[name]
        return Response(make(), media_type=f"{media_type}; charset=utf-8", headers={"cache-control": "no-cache"})

    async def revision(self, _request: Request) -> Response:
        """Whether there is something new."""
        return JSONResponse(await self._asked(self._catalogue.revision), headers={"cache-control": "no-store"})

    async def view(self, request: Request) -> Response:
        """A view; 304 where the browser has it."""
        tag, body = await self._asked(lambda: self._catalogue.body(request.path_params["name"]))
        headers = {"cache-control": "private, no-cache", "etag": f'"{tag}"'}
        if request.headers.get("if-none-match") == f'"{tag}"':
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def ticket(self, request: Request) -> Response:
        """Change what is said about a regression: only for this server's own pages."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json" or ASKED_BY_PAGE not in request.headers:
            raise HTTPException(403, "Only the dashboard's own pages may change a ticket: send JSON and the header X-SONew.")
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.headers['host']}":
            raise HTTPException(403, f"Only the dashboard's own pages may change a ticket, not one of {origin[:200]!r}.")
        state, note = _ticket(await _limited(request))
        row = await self._asked(lambda: self._catalogue.say(request.path_params["ticket"], state, note, os.environ.get("USER", "")))
        return JSONResponse({"regression": row}, headers={"cache-control": "no-store"})


async def _limited(request: Request) -> bytes:
    """The body, not more than a ticket needs."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"A ticket has at most {LARGEST_BODY} bytes.")
    return body


def _ticket(body: bytes) -> tuple[State, str]:
    try:
        said = parse_json(body, strict=True)
        state, note = said["state"], said.get("note", "")
    except (DocumentError, KeyError, TypeError, AttributeError) as error:
        raise HTTPException(400, 'The body is not JSON like {"state": "accepted", "note": "why"}.') from error
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        raise HTTPException(400, f"The note must be text of at most {LONGEST_NOTE} characters.")
    for allowed in STATES:
        if state == allowed:
            return allowed, note
    raise HTTPException(400, f"The state {str(state)[:40]!r} is not one of {list(STATES)}.")


def make_app(store: Path, baselines: Path | None) -> App:
    """The server of a store, to be run by any ASGI server on the loopback interface.

    Args:
        store: the folder of the store. baselines: the folder of committed records, where there is one.

    Raises:
        RecordError: the store cannot be read.
    """
    catalogue = Catalogue(store, baselines)
    pages = Pages(catalogue)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        catalogue.close()

    app = Starlette(
        routes=[
            Route("/", pages.shell),
            Route("/static/{name}", pages.static),
            Route("/api/revision.json", pages.revision),
            Route("/api/{name:path}.json", pages.view),
            Route("/api/tickets/{ticket}", pages.ticket, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(NAMES), www_redirect=False)],
        exception_handlers={HTTPException: _refused, SonewError: _failed, Exception: _broken},
        lifespan=lifespan,
    )
    return SecurityHeaders(app)


def _listen(port: int) -> socket.socket:
    """A socket that listens on the loopback interface.

    Raises:
        PortError: something else does already, or the system forbids it.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        msg = f"port {port} cannot be used ({error}). Pass another --port, or 0 for one that is free."
        raise PortError(msg) from error
    return listening


def serve(app: App, port: int, ready: Callable[[str], None]) -> None:
    """Serve on 127.0.0.1 until interrupted.

    Args:
        app: of `make_app`. port: 0 for one that is free. ready: told the address once it can be asked.

    Raises:
        PortError: the port cannot be used.
    """
    import uvicorn  # noqa: PLC0415  # only who serves needs it

    with _listen(port) as listening:
        ready(f"http://{LOOPBACK}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", server_header=False)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
