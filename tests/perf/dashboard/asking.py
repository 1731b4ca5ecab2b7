"""Asks a server without a network: each request runs in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from sonew_perf.dashboard.server import App

ADDRESS = "http://127.0.0.1:8765"


@dataclass(frozen=True)
class Client:
    """A browser's part."""

    app: App

    def ask(self, method: str, path: str, **parts: Any) -> httpx.Response:
        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
                return await client.request(method, path, **parts)

        return asyncio.run(sent())

    def get(self, path: str, **parts: Any) -> httpx.Response:
        return self.ask("GET", path, **parts)

    def post(self, path: str, **parts: Any) -> httpx.Response:
        return self.ask("POST", path, **parts)


@contextmanager
def asking(app: App) -> Iterator[Client]:
    """A client of an app, which is told to end afterwards."""
    yield Client(app)
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    said: list[str] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        said.append(message["type"])

    asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))  # type: ignore[arg-type]  # a coroutine
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
