"""A made dashboard on a port of this machine, as the server gives it, and as one file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from sonew_perf.dashboard.content import Content
from sonew_perf.dashboard.documents import UnknownViewError, document, names
from sonew_perf.dashboard.page import SERVER_POLICY, file_page, plotly, plotly_name, script, server_page, style
from sonew_perf.dashboard.sharing import shared
from sonew_perf.dashboard.views.meta import meta

AUTHOR = "who changed it"
GENERATED = "2026-11-01T12:00:00+00:00"
STATIC = {"/": (server_page, "text/html"), "/static/app.js": (script, "text/javascript"), "/static/app.css": (style, "text/css")}
ALL_PARTS = STATIC | {f"/static/{plotly_name()}": (plotly, "text/javascript")}


class Site:
    """What the handler answers from.

    Attributes:
        content: what the views are made of. revision: what the page is told when it asks for news. told: bodies of changed tickets, by id.
        broken: names of views that the server fails to make. address: where it is served.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.address = ""
        self.revision: dict[str, Any] = {"revision": content.revision, "runs": len(content.runs)}
        self.told: dict[str, dict[str, str]] = {}
        self.broken: set[str] = set()

    def view(self, name: str) -> Any:
        """Raises UnknownViewError."""
        return meta(self.content, mode="server", generated=GENERATED) if name == "meta" else document(self.content, name)


class Handler(BaseHTTPRequestHandler):
    """Answers with the real parts, under the real policy."""

    site: Site

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
        """Keeps quiet."""

    def _send(self, status: int, body: str, kind: str) -> None:
        sent = body.encode()
        self.send_response(status)
        self.send_header("content-security-policy", SERVER_POLICY)
        self.send_header("content-type", f"{kind}; charset=utf-8")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def do_GET(self) -> None:
        """A part of the page, or a view."""
        path = self.path.partition("?")[0]
        if path in ALL_PARTS:
            make, kind = ALL_PARTS[path]
            self._send(200, make(), kind)
            return
        name = re.sub(r"^/api/|\.json$", "", path)
        if name in self.site.broken:
            self._send(500, json.dumps({"error": "This view could not be made."}), "application/json")
            return
        try:
            found = self.site.revision if name == "revision" else self.site.view(name)
        except UnknownViewError as error:
            self._send(404, json.dumps({"error": str(error)}), "application/json")
            return
        self._send(200, json.dumps(found, allow_nan=False), "application/json")

    def do_POST(self) -> None:
        """A ticket."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        ticket = self.path.rpartition("/")[2]
        if self.headers.get("x-sonew") is None:
            self._send(403, "{}", "application/json")
            return
        self.site.told[ticket] = body
        row = next(row for row in self.site.view("regressions") if row["id"] == ticket)
        self._send(200, json.dumps({"regression": {**row, **body, "author": AUTHOR}}), "application/json")


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The address of a site while it is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": site}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def exported(content: Content, path: Path) -> str:
    """The address of a file that holds everything."""
    views = {name: document(content, name) for name in names(content)}
    views["meta"] = meta(content, mode="export", generated=GENERATED, rule="Of each series this file keeps everything.")
    path.write_text(file_page(json.dumps(shared(views), allow_nan=False).encode()), encoding="utf-8")
    return path.as_uri()
