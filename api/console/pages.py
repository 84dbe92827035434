"""Makes pages: `render(request, template, **context)`. Templates are Jinja with autoescape on, headers are strict.

Every template gets, besides its own context:

    t(key, **values)   the reader's words (api.console.i18n)      lang        "en" or "de"
    session            who is signed in, or None                  csrf        token for forms and fetches
    asset("me.js")     address of a file in static/               path        of this page, for links
    value | when       a moment as <time>, local with UTC on hover (accepts Unix seconds, datetime, RFC 3339)
    value | short_id   an identifier that can be copied whole      value | number   with the language's separators

The Content-Security-Policy allows nothing inline: no `style=`, no `on…=`, no `<script>` with a body. What a script must
know goes into `data-` attributes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from api.console.i18n import LANGUAGE_COOKIE, LANGUAGES, Translator, asked_language, language_of, translator
from api.console.session import csrf_token, is_secure, session_of, set_visit_cookie
from policy.errors import PolicyError

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), publickey-credentials-create=(self), publickey-credentials-get=(self), "
    "geolocation=(), microphone=(), payment=(), usb=()",
    # not no-referrer: with it, browsers would send forms with `Origin: null` (Fetch §3.2.5)
    "Referrer-Policy": "same-origin",
    "Vary": "Accept, Accept-Language, Cookie",
    "X-Frame-Options": "DENY",
}


def render(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: object,
) -> HTMLResponse:
    """A page.

    Args:
        template: path below `templates/`.
        context: what the template shows; escaped.
    """
    t = translator(language_of(request))
    html = (
        _environment()
        .get_template(template)
        .render(
            {
                "t": t,
                "lang": t.language,
                "languages": [(code, name, _switch(request, code)) for code, name in LANGUAGES.items()],
                "session": session_of(request),
                "csrf": csrf_token(request),
                "path": request.url.path,
                "asset": asset,
                "log": _log_state(request),
                **context,
            }
        )
    )
    response = HTMLResponse(html, status, {**PAGE_HEADERS, "Content-Language": t.language, **(headers or {})})
    if is_secure(request):
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    set_visit_cookie(request, response)
    if asked := asked_language(request):
        response.set_cookie(
            LANGUAGE_COOKIE, asked, max_age=31_536_000, secure=is_secure(request), httponly=True, samesite="lax"
        )
    return response


def translator_of(request: Request) -> Translator:
    """The reader's words, for what a route has to say itself."""
    return translator(language_of(request))


def wants_page(request: Request) -> bool:
    """Whether whoever asks is a browser that wants to show the answer, and not a program."""
    return "text/html" in request.headers.get("accept", "")


def asset(name: str) -> str:
    """Address of a file in `static/`. It changes with the files, so that browsers may keep them for ever."""
    return f"/static/{static_version()}/{name}"


@cache
def static_version() -> str:
    """Twelve hex digits of a hash over every static file."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(STATIC).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _switch(request: Request, language: str) -> str:
    """This page in another language."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
    return f"?{urlencode([*kept, ('lang', language)])}"


def _log_state(request: Request) -> dict[str, Any] | None:
    """What the footer says about the log; None where it cannot be read."""
    log = request.app.state.service.log
    try:
        origin, size, root = log.checkpoint().split("\n", 3)[:3]
    except PolicyError:
        return None
    return {"origin": origin, "size": int(size), "root": root}


# -- filters


def when(moment: float | datetime | str) -> Markup:
    """A moment as `<time>`: UTC in the page; the script puts it into the reader's zone and leaves UTC on hover."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    moment = moment.astimezone(UTC)
    machine = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" data-local>{} UTC</time>').format(machine, f"{moment:%Y-%m-%d %H:%M}")


def short_id(identifier: str, label: str = "") -> Markup:
    """An identifier, shown short, with a button that copies it whole (the script reveals the button)."""
    return Markup(
        '<span class="id"><code title="{0}">{0}</code>'
        '<button type="button" class="copy" data-copy="{0}" data-what="{1}" hidden></button></span>'
    ).format(identifier, label)


def number(value: float, language: str = "en") -> str:
    """A number with the language's separators."""
    text = f"{value:,}"
    return text.translate(str.maketrans(",.", ".,")) if language == "de" else text


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(when=when, short_id=short_id, number=number, json_text=json.dumps)
    return environment
