"""Errors as pages, for browsers; `api.problems` asks for one whenever the answer goes to somebody who reads HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from api.console.i18n import Translator
from api.console.pages import render, translator_of
from api.console.session import SignInNeededError, StaleFormError, WrongRoleError, session_of, sign_in_path


def error_page(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """The page for a problem document; who has to sign in first is sent there and comes back afterwards."""
    if problem["code"] == SignInNeededError.code and request.method == "GET":
        return RedirectResponse(sign_in_path(request), 303)
    t = translator_of(request)
    status = int(problem["status"])
    return render(
        request,
        "error.html",
        status=status,
        headers=headers,
        title=t.maybe(f"error.{status}", t("error.title")),
        help=_help(request, t, problem),
        problem=problem,
    )


def _help(request: Request, t: Translator, problem: Mapping[str, Any]) -> str:
    """What to do, in the reader's language where we have a sentence of our own, else as the service said it."""
    session = session_of(request)
    if problem["code"] == WrongRoleError.code and session is not None:
        return t("error.wrong_role", role=t.maybe(f"base.role.{session.kind}", session.kind))
    if problem["code"] == StaleFormError.code:
        return t("error.stale_form")
    said = t.maybe(f"base.problem.{problem['code']}", str(problem["detail"]))
    return t.maybe(f"error.{problem['status']}.help", said)
