"""/docs: the API on one page, rendered from its own OpenAPI document, without scripts and without other hosts."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.errors import STATUS_BY_CODE

router = APIRouter(include_in_schema=False)

_STYLE = """
:root{color-scheme:light dark;--line:#8883;--soft:#8881;--accent:#2a6f6f}
body{font:15px/1.55 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin:2.2rem 0 .4rem;border-bottom:1px solid var(--line)}
article{padding:.7rem 0;border-bottom:1px solid var(--soft)}
code,.path{font-family:ui-monospace,monospace;font-size:.92em}
.method{display:inline-block;min-width:3.6rem;font-weight:600;color:var(--accent)} .scope{float:right;opacity:.75}
table{border-collapse:collapse;margin:.4rem 0 0 3.6rem} td{padding:.1rem .9rem .1rem 0;vertical-align:top}
p{margin:.2rem 0} .lead{white-space:pre-line;opacity:.85} .sum{margin-left:3.6rem;opacity:.85}
"""


@router.get("/docs", response_class=HTMLResponse)
def docs(request: Request) -> HTMLResponse:
    document = request.app.openapi()
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(document, method, path, operation))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(operations)}" for tag, operations in by_tag.items())
    rows = "".join(f"<tr><td><code>{escape(c)}</code></td><td>{s}</td></tr>" for c, s in sorted(STATUS_BY_CODE.items()))
    info = document["info"]
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
        f'<p class="lead">{escape(info.get("description", ""))}</p>'
        f'<p>Machine-readable: <a href="/openapi.json">openapi.json</a></p>{sections}'
        f"<h2>error codes</h2><p>A code has the status of its own row, or of its longest prefix.</p>"
        f"<table>{rows}</table></html>"
    )


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    scopes = ", ".join(scope for need in operation.get("security", []) for names in need.values() for scope in names)
    rows = [
        (parameter["name"], parameter["in"], parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(document, content.get("schema", {}))
        fields = schema.get("properties", {})
        rows += [(name, media_type, str(field.get("description", ""))) for name, field in fields.items()]
        if not fields:
            rows.append(("body", media_type, str(schema.get("description", ""))))
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(place)}</td><td>{escape(text)}</td></tr>"
        for name, place, text in rows
    )
    return (
        f'<article><span class="scope"><code>{escape(scopes)}</code></span>'
        f'<span class="method">{escape(method.upper())}</span><span class="path">{escape(path)}</span>'
        f'<p class="sum">{escape(operation.get("summary", ""))}</p>'
        f"{f'<table>{cells}</table>' if cells else ''}</article>"
    )


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return document["components"]["schemas"].get(reference.rpartition("/")[2], {}) if reference else schema
