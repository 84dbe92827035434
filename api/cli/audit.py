"""`placet audit`: read the log where it lies, search it, check every byte, hand it to others. No server needed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.audit import AuditDesk, desk_for
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.cli.places import Home, settings_for
from api.witnessing import COSIGNED_FILE
from policy.bundle import export_bundle
from policy.cosignature import WitnessKey
from policy.fsck import fsck, verify_bundle
from policy.index import MAX_LIMIT, Query
from policy.keys import KeyRing
from policy.note import LogKeys, parse_verifier_key

app = typer.Typer(help="The audit log: read, search, replay, verify, export.", no_args_is_help=True)

_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
Entry = Annotated[int, typer.Argument(min=0, help="Number of the entry.")]


@app.command()
def tail(
    num: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many entries.")] = 10,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The newest entries."""
    with reporting(as_json), _desk(home) as desk:
        log = desk.log
        found = log.entries(max(0, log.size - num), num)
        emit(as_json, {"entries": found, "size": log.size}, "\n".join(map(_line, found)))


@app.command()
def show(index: Entry, home: Home = None, as_json: Json = False) -> None:
    """One entry with its inclusion proof."""
    with reporting(as_json), _desk(home) as desk:
        result = {"entry": desk.log.entry(index), "evidence": desk.log.evidence(index).to_json()}
        emit(as_json, result, json.dumps(result, indent=2))


@app.command()
def search(
    since: Annotated[datetime | None, typer.Option(formats=_MOMENTS, help="From this moment on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_MOMENTS, help="Up to, not including, UTC.")] = None,
    subject: Annotated[str, typer.Option(help="Pseudonym, subject:….")] = "",
    client: Annotated[str, typer.Option(help="Pseudonym, client:….")] = "",
    kind: Annotated[str, typer.Option(help="A kind, or its first words and a dot: render.")] = "",
    decision: Annotated[Literal["allowed", "refused"] | None, typer.Option(help="Outcome of a decision.")] = None,
    reason: Annotated[str, typer.Option(help="Reason of a refusal, or code of a failure.")] = "",
    policy: Annotated[str, typer.Option(help="Policy hash.")] = "",
    limit: Annotated[int, typer.Option("-n", min=1, max=MAX_LIMIT, help="Most entries to show.")] = 20,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Entries that fit, newest first."""
    with reporting(as_json), _desk(home) as desk:
        query = Query(
            since_s=_seconds(since),
            until_s=_seconds(until),
            names=tuple(name for name in (subject, client) if name),
            kind=kind,
            allowed=None if decision is None else decision == "allowed",
            reason=reason,
            policy_sha256=policy,
        )
        found, entries = desk.search(query, limit)
        result = {"entries": entries, "total": found.total, "size": desk.log.size}
        emit(as_json, result, "\n".join([*map(_line, entries), f"{len(entries)} of {found.total}"]))


@app.command()
def replay(index: Entry, home: Home = None, as_json: Json = False) -> None:
    """Make a logged decision again, by the policies of its time. Status 1 if it comes out differently."""
    with reporting(as_json), _desk(home) as desk:
        made = desk.replay(index)
        decision = made.decision
        result = {
            "index": index,
            "same": made.same,
            "allowed": None if decision is None else decision.allowed,
            "reasons": [] if decision is None else [reason.to_json() for reason in decision.reasons],
            "policy_sha256": made.policy_sha256,
            "sentence": made.sentence,
        }
        if decision is None:
            stop_negative(as_json, result, made.sentence)
        outcome = "allowed" if decision.allowed else "refused: " + ", ".join(decision.codes)
        emit(as_json, result, f"{outcome}. {made.sentence}")


@app.command()
def verify(
    bundle: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="An exported bundle, instead of this home's log.")
    ] = None,
    log_key: Annotated[str, typer.Option(help="With --bundle: the log's key, from elsewhere than the bundle.")] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A checkpoint that was kept from earlier.")
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="With --bundle: key of a witness that must have cosigned; repeatable.")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Read everything again. Status 1 if any byte is not what was signed; the first bad entry is named."""
    with reporting(as_json):
        earlier = checkpoint.read_bytes() if checkpoint is not None else None
        witnesses = [WitnessKey.parse(text) for text in witness or []]
        with progress_bar("reading every entry") as tell:
            if bundle is not None:
                keys: LogKeys = parse_verifier_key(log_key)[1] if log_key else _own_keys(home)
                report = verify_bundle(bundle, keys, earlier_checkpoint=earlier, witnesses=witnesses, progress=tell)
            else:
                place = settings_for(home).home / "log"
                report = fsck(place, _own_keys(home), earlier_checkpoint=earlier, progress=tell)
        missing = sorted({each.name for each in witnesses} - set(report.cosigned_by))
        result = {**report.to_json(), "clean": report.is_clean, "witnesses_missing": missing}
        if not report.is_clean or missing:
            sentences = [problem.sentence for problem in report.problems]
            sentences += [f"{name} has not cosigned it." for name in missing]
            stop_negative(as_json, result, "\n".join(sentences))
        text = f"{report.size} entries, every byte as signed; root {report.root_hash}"
        if report.cosigned_by:
            text += f"\n{report.cosigned_size} of them cosigned by {', '.join(report.cosigned_by)}"
        emit(as_json, result, text)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Where to write the bundle.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write everything that an outsider needs to verify the log into one file."""
    with reporting(as_json), _desk(home) as desk:
        cosigned = settings_for(home).witnesses_dir / COSIGNED_FILE
        with progress_bar("exporting") as tell:
            checkpoint = export_bundle(
                desk.log, out, cosigned=cosigned.read_text() if cosigned.is_file() else None, progress=tell
            )
        result = {"file": out, "size": checkpoint.size, "log_key": desk.log.verifier_key}
        emit(as_json, result, f"{out}: {checkpoint.size} entries; key {desk.log.verifier_key}")


@app.command()
def alarms(home: Home = None, as_json: Json = False) -> None:
    """What must be looked into: clocks, gaps, other histories. Status 1 if there is an alarm.

    Whether the witnesses keep up is known to the server: /readyz, /v1/audit/alarms and the page /audit/alarms.
    """
    with reporting(as_json), _desk(home) as desk:
        found = desk.alarms()
        result = {"alarms": [each.to_json() for each in found]}
        text = "\n".join(f"{each.severity:<8} {each.code:<12} {each.sentence}" for each in found) or "No alarms."
        if any(each.severity == "alarm" for each in found):
            stop_negative(as_json, result, text)
        emit(as_json, result, text)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="Policy hash, or its first digits.")] = "",
    new: Annotated[str, typer.Argument(help="Another; by default the policies in use.")] = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """What changed between two policy sets. Without arguments: which there are, and what they decided."""
    with reporting(as_json), _desk(home) as desk:
        current = desk.current_policy
        if not old:
            used = desk.index.policies()
            known = [
                {"policy_sha256": sha256, "entries": used.get(sha256), "current": sha256 == current}
                for sha256 in desk.archive.known()
            ]
            lines = [
                f"{each['policy_sha256']}  entries {each['entries'] or '-'}{'  in use' if each['current'] else ''}"
                for each in known
            ]
            emit(as_json, {"policies": known}, "\n".join(lines))
            return
        found = desk.archive.diff(desk.archive.named(old), desk.archive.named(new) if new else current)
        emit(as_json, found.to_json(), "\n".join((*found.schema, *found.policies)) or "No difference.")


@contextmanager
def _desk(home: Path | None) -> Iterator[AuditDesk]:
    settings = settings_for(home)
    desk = desk_for(settings.home, time.time, settings.key_access)
    try:
        yield desk
    finally:
        desk.close()


def _line(entry: dict[str, Any]) -> str:
    return f"{entry['index']:>6}  {entry['time']}  {entry['kind']:<20} {json.dumps(entry['body'])[:90]}"


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()


def _own_keys(home: Path | None) -> LogKeys:
    settings = settings_for(home)
    return KeyRing.load(settings.home / "keys", settings.key_access).log_publics
