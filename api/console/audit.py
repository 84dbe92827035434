"""/audit: the log for those who watch over it. Search, entry by entry with its proof, policies, alarms, export.

What stands here is pseudonymous. Looking behind a pseudonym asks for a reason, is logged first, and is shown to the
person (`api.audit`). Filters live in the address, so that a view can be kept and sent.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, HTMLResponse

from api.console.audit_view import REVEALABLE, diff_lines, draw_proof, fields_of, fired_rules, row_of, timeline_of
from api.console.pages import render
from api.console.session import ConsoleForm, Session, SignedIn, at_named_origin
from api.deps import ServiceDep
from api.errors import NotFoundError
from api.routes.audit import bundle_response
from api.service import Service
from policy.archive import PolicyTexts
from policy.errors import ArchiveError
from policy.gate import DECISION_KIND
from policy.index import Query as SearchQuery
from policy.index import names_in

router = APIRouter(include_in_schema=False, dependencies=[Depends(at_named_origin)])

Auditor = Annotated[Session, Depends(SignedIn("auditor", "operator"))]
PAGE_NUM_ENTRIES = 40


@router.get("/audit", response_class=HTMLResponse)
def overview(
    request: Request,
    service: ServiceDep,
    session: Auditor,
    since: Annotated[str, Query(max_length=10)] = "",
    until: Annotated[str, Query(max_length=10)] = "",
    who: Annotated[str, Query(max_length=80)] = "",
    kind: Annotated[str, Query(max_length=64)] = "",
    decision: Annotated[str, Query(max_length=10)] = "",
    reason: Annotated[str, Query(max_length=64)] = "",
    policy: Annotated[str, Query(max_length=64)] = "",
    before: Annotated[str, Query(max_length=16)] = "",
) -> HTMLResponse:
    """Timeline, filters and table. What a filter cannot be is left out of the search, and said."""
    filters = {
        "since": since,
        "until": until,
        "who": who.strip(),
        "kind": kind,
        "decision": decision,
        "reason": reason,
        "policy": policy,
    }
    from_s, to_s = _midnight(since), _midnight(until, days=1)
    query = SearchQuery(
        since_s=from_s,
        until_s=to_s,
        names=(filters["who"],) if filters["who"] else (),
        kind=kind,
        allowed={"allowed": True, "refused": False}.get(decision),
        reason=reason,
        policy_sha256=policy,
        before=int(before) if before.isdecimal() and len(before) < 16 else None,
    )
    found, entries = service.audit.search(query, PAGE_NUM_ENTRIES)
    index = service.audit.index
    kept = {name: value for name, value in filters.items() if value}
    return render(
        request,
        "audit/overview.html",
        rows=[row_of(entry, index.names(entry["index"])) for entry in entries],
        total=found.total,
        older=urlencode({**kept, "before": found.next_before}) if found.next_before is not None else "",
        newest=urlencode(kept),
        is_newest=query.before is None,
        filters=filters,
        is_filtered=bool(kept),
        bad_dates=bool((since and from_s is None) or (until and to_s is None)),
        kinds=sorted(index.kinds()),
        reasons=sorted(index.reasons()),
        timeline=timeline_of(index.histogram(query)),
        alarms=service.audit.alarms(),
        state=_log_state(service),
    )


@router.get("/audit/entries/{index}", response_class=HTMLResponse)
def entry(request: Request, service: ServiceDep, session: Auditor, index: int, replay: str = "") -> HTMLResponse:
    found = service.log.entry(index)
    body = found["body"]
    evidence = service.witnessing.evidence(index)
    is_decision = found["kind"] == DECISION_KIND
    texts = _texts(service, body) if is_decision else None
    made = service.audit.replay(index) if is_decision and replay and texts is not None else None
    parts = dict(body)
    if is_decision:
        parts.pop("reasons", None)
        facts = dict(parts.pop("facts", {}))
        groups = {"request": parts.pop("request", {}), "consent": facts.pop("consent", None) or {}, "facts": facts}
    else:
        groups = {}
    names = names_in(body)
    cosignatures = service.witnessing.cosignatures(evidence.checkpoint)
    seen_by = {each.name for each in cosignatures}
    claim = {  # what the browser checks for itself
        "entry": found,
        "evidence": evidence.to_json(),
        "log": service.log.verifier_key,
        "witnesses": [key.text for key in service.witnessing.keys if key.name in seen_by],
    }
    return render(
        request,
        "audit/entry.html",
        entry=found,
        row=row_of(found, names),
        size=service.log.size,
        is_decision=is_decision,
        groups=[(name, list(fields_of(fields))) for name, fields in {"body": parts, **groups}.items()],
        rules=fired_rules(body, texts) if is_decision else [],
        texts=texts,
        replayed=made,
        about=body.get("decision_index"),
        names=[name for name in names if name.startswith(REVEALABLE)],
        evidence=evidence,
        drawing=draw_proof(evidence),
        cosignatures=cosignatures,
        claim=claim,
        has_witnesses=service.witnessing.is_configured,
        origin=service.log.origin,
        log_key=service.log.verifier_key,
    )


@router.post("/audit/reveal", response_class=HTMLResponse)
def reveal(request: Request, service: ServiceDep, session: Auditor, form: ConsoleForm) -> HTMLResponse:
    """Break the glass. The answer is a page and not a redirect: who was found belongs into no address."""
    org = service.clients.find(session.account_id).org
    try:
        found = service.audit.reveal(
            form.get("pseudonym", ""), form.get("reason", ""), by=session.account_id, by_org=org
        )
    except NotFoundError:
        return render(request, "audit/revealed.html", status=404, found=None, back=form.get("entry", ""))
    return render(request, "audit/revealed.html", found=found, back=form.get("entry", ""))


@router.get("/audit/policies", response_class=HTMLResponse)
def policies(
    request: Request,
    service: ServiceDep,
    session: Auditor,
    old: Annotated[str, Query(max_length=64)] = "",
    new: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    used = service.audit.index.policies()
    current = service.gate.engine.policy_sha256
    known = sorted(service.audit.archive.known(), key=lambda sha256: used.get(sha256, (1 << 53, 0)))
    diff = service.audit.archive.diff(old, new) if old and new else None
    return render(
        request,
        "audit/policies.html",
        known=[(sha256, used.get(sha256), sha256 == current) for sha256 in known],
        current=current,
        old=old or (known[-2] if len(known) > 1 else ""),
        new=new or current,
        diff=diff,
        lines=diff_lines(diff.schema + diff.policies) if diff is not None else [],
    )


@router.get("/audit/policies/{policy_sha256}", response_class=HTMLResponse)
def policy(request: Request, service: ServiceDep, session: Auditor, policy_sha256: str) -> HTMLResponse:
    texts = service.audit.archive.texts(policy_sha256)
    return render(request, "audit/policy.html", texts=texts)


@router.get("/audit/alarms", response_class=HTMLResponse)
def alarms(request: Request, service: ServiceDep, session: Auditor) -> HTMLResponse:
    return _alarms_page(request, service, None)


@router.post("/audit/alarms", response_class=HTMLResponse)
def compare(request: Request, service: ServiceDep, session: Auditor, form: ConsoleForm) -> HTMLResponse:
    """Hold a checkpoint that was seen elsewhere against this log."""
    note = form.get("checkpoint", "").replace("\r\n", "\n").strip("\n") + "\n"  # as browsers send text areas
    return _alarms_page(request, service, service.audit.compare(note, by=session.account_id))


@router.get("/audit/export", response_class=HTMLResponse)
def export(request: Request, service: ServiceDep, session: Auditor) -> HTMLResponse:
    return render(
        request,
        "audit/export.html",
        log_key=service.log.verifier_key,
        size=service.log.size,
        witnesses=service.witnessing.states(),
        prefix=f"{service.settings.base_url}/tlog",
    )


@router.get("/audit/export/audit-bundle.tar")
def bundle(service: ServiceDep, session: Auditor) -> FileResponse:
    return bundle_response(service)


def _alarms_page(request: Request, service: Service, compared: object) -> HTMLResponse:
    return render(
        request,
        "audit/alarms.html",
        alarms=service.audit.alarms(),
        compared=compared,
        state=_log_state(service),
        witnesses=service.witnessing.states(),
        required=service.witnessing.required,
    )


def _log_state(service: Service) -> dict[str, Any]:
    """How the log stands: its size, and how far witnesses have cosigned it."""
    witnessing = service.witnessing
    checkpoint = witnessing.checkpoint()
    return {
        "size": service.log.size,
        "num_witnesses": len(witnessing.states()),
        "cosigned_size": checkpoint.size if checkpoint else 0,
        "lag": witnessing.lag_entries,
        "lag_s": round(witnessing.lag_s),
    }


def _texts(service: Service, body: dict[str, Any]) -> PolicyTexts | None:
    """The policies of a decision; None where they are not kept (the page says so)."""
    try:
        found: PolicyTexts = service.audit.archive.texts(str(body.get("policy_sha256", "")))
    except ArchiveError:
        return None
    return found


def _midnight(date: str, days: int = 0) -> float | None:
    """Start of a day in UTC, `days` later; None where it is no date."""
    try:
        return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() + days * 86_400
    except (ValueError, OverflowError):
        return None
