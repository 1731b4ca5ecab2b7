"""The document around the views: for the server with links to its parts, for a file with the parts inside and a policy that names them."""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from sonew.errors import SonewError

STATIC: Final = Path(__file__).with_name("static")
SHELL: Final = "index.html"
SCRIPTS, STYLES = "scripts.txt", "styles.txt"  # the files that make up the script and the style, in order, a name per line
SERVER_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class PageError(SonewError, ValueError):
    """The packaged page cannot be put together."""


@cache
def _part(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@cache
def _joined(order: str) -> str:
    return "\n".join(_part(name) for name in _part(order).split())


def script() -> str:
    """The pages' own script."""
    return _joined(SCRIPTS)


def style() -> str:
    """The pages' style."""
    return _joined(STYLES)


@cache
def plotly() -> str:
    """The library that draws, as the installed package carries it."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  # large: only who shows a page pays for it

    return str(get_plotlyjs())


@cache
def plotly_name() -> str:
    """Of the file under which the server has the library: another one whenever its content differs, so that a browser may keep it."""
    return f"plotly-{hashlib.sha256(plotly().encode()).hexdigest()[:12]}.js"


def _filled(**parts: str) -> str:
    text = _part(SHELL)
    for name, part in parts.items():
        place = f"<!-- {name} -->"
        if text.count(place) != 1:
            msg = f"{SHELL} has {text.count(place)} places {place}, expected one. Install the package again."
            raise PageError(msg)
        text = text.replace(place, part)
    return text


def server_page() -> str:
    """The shell that asks the server for everything; its script loads the library once there is something to draw."""
    scripts = f'<script src="/static/app.js" data-plotly="/static/{plotly_name()}" defer></script>'
    return _filled(policy="", styles='<link rel="stylesheet" href="/static/app.css">', data="", scripts=scripts)


def _source(text: str) -> str:
    """An inline script's source in the policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _inline(text: str) -> str:
    """An inline script."""
    if "</script" in text.lower() or "<!--" in text:
        msg = "A packaged script holds markup that ends an inline script. Install the package again."
        raise PageError(msg)
    return f"<script>{text}</script>"


@cache
def _packed_script(text: str) -> str:
    return packed(text.encode())


def _holder(name: str, content: str) -> str:
    """An element that nothing runs, for what the script unpacks."""
    return f'<script type="application/octet-stream" id="{name}" data-encoding="gzip">{content}</script>'


def packed(data: bytes) -> str:
    """Data as base64 of gzip, the same for the same data."""
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode("ascii")


def file_page(data: bytes) -> str:
    """The document that needs nothing but itself.

    Only the scripts whose hashes its policy names can run, and nothing can be loaded from anywhere: a mistake in escaping shows text.

    Args:
        data: what the script reads from the element "data", as JSON. The library that draws is packed in another one.
    """
    sources = " ".join(_source(text) for text in (plotly(), script()))
    policy = (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    page = _filled(
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        styles=f"<style>\n{style()}\n</style>",
        data=f"{_holder('data', packed(data))}\n{_holder('plotly', _packed_script(plotly()))}",
        scripts=_inline(script()),
    )
    return page.replace('data-mode="server"', 'data-mode="export"', 1)
