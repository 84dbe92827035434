"""`placet policy`: the rules as they are, a table of cases put to them, and what changed between two sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import NEGATIVE, Json, emit, reporting, stop_negative
from api.cli.places import Home, settings_for
from policy.archive import PolicyArchive, PolicyTexts, diff_texts
from policy.cases import CASES_FILE, DEFAULT_CASES, load_cases, run_cases, uncovered_rules
from policy.decision import DEFAULT_DIRECTORY, PolicyEngine
from policy.instance import Instance

app = typer.Typer(help="The rules: show, test, compare.", no_args_is_help=True)

Policies = Annotated[
    Path | None, typer.Option("--policies", help="Directory with Cedar files; by default as the setting says.")
]


@app.command("test")
def test_cases(
    cases: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Table of cases, JSON or YAML.")
    ] = None,
    policies: Policies = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Put a table of cases to the policies. Status 1 if any comes out otherwise than it should."""
    with reporting(as_json):
        directory = policies or settings_for(home).policies
        engine = PolicyEngine.load(directory)
        beside = None if directory is None else directory / CASES_FILE
        table = cases or (beside if beside is not None and beside.is_file() else DEFAULT_CASES)
        loaded = load_cases(table)
        results = run_cases(engine, loaded)
        uncovered = uncovered_rules(engine, loaded)
        lines = []
        for each in results:
            mark = typer.style("✓", fg="green") if each.is_as_expected else typer.style("✗", fg="red")
            got = ", ".join(each.got) or "allowed"
            lines.append(f"{mark} {each.case.name:<52} {typer.style(got, dim=each.is_as_expected)}")
            if not each.is_as_expected:
                lines.append(f"    expected {', '.join(each.case.expect) or 'allowed'}")
        num_wrong = sum(not each.is_as_expected for each in results)
        lines.append(f"{len(results)} cases, {num_wrong} not as expected; policies {engine.policy_sha256[:16]}")
        if uncovered:
            lines.append(f"without a refusing and an allowing case: {', '.join(uncovered)}")
        result = {
            "policy_sha256": engine.policy_sha256,
            "num_cases": len(results),
            "num_wrong": num_wrong,
            "uncovered_rules": list(uncovered),
            "cases": [each.to_json() for each in results],
        }
        if num_wrong:
            stop_negative(as_json, result, "\n".join(lines))
        emit(as_json, result, "\n".join(lines))


@app.command("show")
def show(
    which: Annotated[str, typer.Argument(help="A kept hash, or its beginning; by default what is in force.")] = "",
    policies: Policies = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The rules in force, or those behind a hash in the log: each code with its sentence, then the text."""
    with reporting(as_json):
        settings = settings_for(home)
        if which:
            texts = _texts(which, home)
            engine = PolicyEngine(texts.schema_text, texts.policy_text)
        else:
            engine = PolicyEngine.load(policies or settings.policies)
        lines = [f"{reason.code:<24} {reason.sentence}" for reason in engine.reasons]
        result = {
            "policy_sha256": engine.policy_sha256,
            "rules": [reason.to_json() for reason in engine.reasons],
            "policies": engine.policy_text,
            "schema": engine.schema_text,
        }
        emit(as_json, result, "\n".join([f"policies {engine.policy_sha256}", "", *lines, "", engine.policy_text]))


@app.command("diff")
def diff(
    old: Annotated[
        str, typer.Argument(help="A directory with Cedar files, or a hash that was kept (a prefix will do).")
    ],
    new: Annotated[str, typer.Argument(help="The same; “current” for what is in force.")] = "current",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Which rules were added, removed or changed. Status 1 if any."""
    with reporting(as_json):
        difference = diff_texts(_texts(old, home), _texts(new, home))
        lines = [
            *(typer.style(f"+ {code}", fg="green") for code in difference.added),
            *(typer.style(f"- {code}", fg="red") for code in difference.removed),
            *(typer.style(f"~ {code}", fg="yellow") for code in difference.changed),
            *difference.schema,
            *difference.policies,
        ]
        is_same = difference.old_sha256 == difference.new_sha256
        emit(as_json, difference.to_json() | {"is_same": is_same}, "\n".join(lines) or "no difference")
        if not is_same:
            raise typer.Exit(NEGATIVE)


@app.command("accept-clock")
def accept_clock(home: Home = None, as_json: Json = False) -> None:
    """Trust the clock as it is now, after it was set right: an entry in the log. Start the server anew."""
    from policy.permit import PermitLedger

    with reporting(as_json):
        settings = settings_for(home)
        instance = Instance.open(settings.home, policies=settings.policies, access=settings.key_access)
        evidence = instance.gate.accept_clock()
        ledger = PermitLedger(instance.ledger_path)
        ledger.reset_clock()
        ledger.close()
        emit(as_json, {"log_index": evidence.index}, f"accepted, log entry {evidence.index}")


def _texts(which: str, home: Path | None) -> PolicyTexts:
    """The rules of a directory, those in force, or those kept under a hash."""
    settings = settings_for(home)
    if which in {"current", "default"} or Path(which).is_dir():
        directory = {"current": settings.policies or DEFAULT_DIRECTORY, "default": DEFAULT_DIRECTORY}.get(which)
        engine = PolicyEngine.load(directory or Path(which))
        return PolicyTexts(engine.policy_sha256, engine.schema_text, engine.policy_text)
    archive = PolicyArchive(settings.home / "policies")
    return archive.texts(archive.named(which))
