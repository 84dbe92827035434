"""Commands of the people around a render: subjects, their consents, researchers, operators, shipped personas."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import wishes
from api.cli.output import Json, emit, progress_bar, reporting
from api.cli.places import Home, KeyFile, Url, client_for, operator_client, service_url
from api.client import Credentials, PlacetClient
from api.errors import MissingFieldError
from api.setup import write_private_json
from policy.consent import PURPOSE_RESEARCH, new_subject_key

if TYPE_CHECKING:
    from generator.personas import Persona

subjects = typer.Typer(help="Enrol a face, see what is kept and every use of it.", no_args_is_help=True)
consent = typer.Typer(help="Give, list and take back consents, signed with the subject's key.", no_args_is_help=True)
operators = typer.Typer(help="Vet clients.", no_args_is_help=True)
personas = typer.Typer(help="Synthetic identities that ship with the project.", no_args_is_help=True)

_DAY_S = 86_400


# -- subjects


@subjects.command("enrol")
def enrol(
    portrait: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Picture with one face.")],
    key: Annotated[Path, typer.Option("--key", help="Where to write the new credentials; keep this file.")],
    subject_class: Annotated[str, typer.Option("--class", help="adult, persona or artwork.")] = "adult",
    i_am_of_age: Annotated[bool, typer.Option("--i-am-of-age", help="Attested by an adult.")] = False,
    rights_basis: Annotated[str, typer.Option(help="For a persona or artwork: origin or licence.")] = "",
    face: Annotated[str, wishes.FACE] = "",
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Enrol a portrait and get the key that speaks for it."""
    with reporting(as_json), PlacetClient(service_url(home, url)) as placet:
        if key.exists():
            raise FileExistsError(17, "This key file exists; keys are never overwritten", str(key))
        enrolled = placet.enrol(
            portrait.read_bytes(),
            subject_class=subject_class,
            adult_attested=i_am_of_age,
            rights_basis=rights_basis,
            face=face or None,
        )
        write_private_json(key, enrolled.credentials.to_json())
        result = {
            "subject_id": enrolled.subject_id,
            "portrait_sha256": enrolled.portrait_sha256,
            "log_index": enrolled.log_index,
            "key": key,
        }
        emit(as_json, result, f"{enrolled.subject_id} enrolled (log entry {enrolled.log_index}); key in {key}")


@subjects.command("show")
def show(key: KeyFile, home: Home = None, url: Url = "", as_json: Json = False) -> None:
    """What is kept about the subject."""
    with reporting(as_json), client_for(home, url, key) as placet:
        profile = placet.profile()
        lines = [f"{profile['subject_id']} ({profile['subject_class']}), epoch {profile['epoch']}"]
        lines += [f"portrait {each['portrait_sha256']}" for each in profile["portraits"]]
        emit(as_json, profile, "\n".join(lines))


@subjects.command("uses")
def uses(key: KeyFile, home: Home = None, url: Url = "", as_json: Json = False) -> None:
    """Every use of the subject's face; each comes with an inclusion proof."""
    with reporting(as_json), client_for(home, url, key) as placet:
        found = placet.uses()
        lines = [
            f"{use['log_index']:>6}  {use['at']}  {use['kind']:<18} {use['org']} {use['purpose']}" for use in found
        ]
        emit(as_json, {"uses": found}, "\n".join(lines) or "No use so far.")


@subjects.command("export")
def export(
    key: KeyFile,
    out: Annotated[Path, typer.Option(help="Where to write the zip file.")],
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Everything that is kept about the subject, in one file."""
    with reporting(as_json), client_for(home, url, key) as placet:
        data = placet.export_data()
        out.write_bytes(data)
        emit(as_json, {"file": out, "num_bytes": len(data)}, f"{len(data):,} bytes in {out}")


@subjects.command("erase")
def erase(
    key: KeyFile,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; it cannot be undone.")] = False,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Have everything erased: pictures, templates, consents, videos, and the way from the log to the subject."""
    with reporting(as_json), client_for(home, url, key) as placet:
        if not yes:
            raise MissingFieldError("--yes")  # it cannot be undone
        erased = placet.erase()
        emit(as_json, erased, f"{erased['subject_id']} erased (log entry {erased['log_index']})")


# -- consent


@consent.command("give")
def give(
    key: KeyFile,
    org: Annotated[str, typer.Option(help="Organisation that may.")],
    client: Annotated[str, typer.Option(help="Client of that organisation.")],
    purpose: Annotated[list[str] | None, typer.Option(help="Purpose IRI; several are possible.")] = None,
    control: Annotated[list[str] | None, typer.Option(help="Control that may be set; “*” for any.")] = None,
    uses: Annotated[int, typer.Option(min=1, help="How many renders.")] = 10,
    days: Annotated[float, typer.Option(min=0.01, help="How long.")] = 30,
    supersedes: Annotated[str, typer.Option(help="SHA-256 of the consent that this one narrows.")] = "",
    language: Annotated[str, typer.Option(help="Language of the text: en or de.")] = "en",
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Sign and give a consent."""
    with reporting(as_json), client_for(home, url, key) as placet:
        given = placet.consent(
            grantee_org=org,
            grantee_client=client,
            purposes=purpose or [PURPOSE_RESEARCH],
            controls=control or [],
            max_uses=uses,
            days=days,
            supersedes=supersedes,
            language=language,
        )
        emit(as_json, given, f"{given['consent_id']} given (log entry {given['log_index']})")


@consent.command("list")
def list_consents(key: KeyFile, home: Home = None, url: Url = "", as_json: Json = False) -> None:
    """All consents of the subject."""
    with reporting(as_json), client_for(home, url, key) as placet:
        found = placet.consents()
        lines = [
            f"{each['consent_id']}  {each['state']:<8} {each['num_uses']}/{each['statement']['max_uses']}  "
            f"{each['statement']['grantee_org']}/{each['statement']['grantee_client']}"
            for each in found
        ]
        emit(as_json, {"consents": found}, "\n".join(lines) or "No consent given.")


@consent.command("revoke")
def revoke(
    key: KeyFile,
    consent_id: Annotated[str, typer.Argument(help="The consent; see `placet consent list`.")],
    everything: Annotated[bool, typer.Option("--everything", help="Take back all consents at once.")] = False,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Take a consent back; in force when this command returns."""
    with reporting(as_json), client_for(home, url, key) as placet:
        revoked = placet.revoke(consent_id, everything=everything)
        emit(as_json, revoked, f"revoked (log entry {revoked['log_index']})")


# -- operators and researchers


@operators.command("keygen")
def keygen(
    out: Annotated[Path, typer.Argument(help="File for the new private key.")],
    as_json: Json = False,
) -> None:
    """Make a key for an applicant; the operator needs its public half only, which is printed."""
    with reporting(as_json):
        key = new_subject_key()
        write_private_json(out, {"client_id": "", "key": key})
        public = Credentials("", key).public_jwks
        emit(as_json, {"jwks": public, "file": out}, f"private key in {out}; public half:\n{public}")


@operators.command("register")
def register(
    key: Annotated[Path, typer.Option("--key", help="The client's key file; its client id is filled in.")],
    org: Annotated[str, typer.Option(help="Short identifier of the organisation.")],
    name: Annotated[str, typer.Option(help="Name of the client.")],
    kind: Annotated[str, typer.Option(help="researcher, platform, auditor or operator.")] = "researcher",
    scope: Annotated[list[str] | None, typer.Option(help="Scope; by default all that the kind may hold.")] = None,
    project: Annotated[str, typer.Option(help="What for.")] = "",
    ethics: Annotated[str, typer.Option(help="Ethics reference.")] = "",
    days: Annotated[float, typer.Option(min=1, help="Term of the approval.")] = 365,
    budget: Annotated[float | None, typer.Option(min=0, help="Seconds of video per day.")] = None,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Approve a client (as the local operator)."""
    from api.clients import SCOPES_BY_KIND

    with reporting(as_json), operator_client(home, url) as placet:
        if not key.exists():
            write_private_json(key, {"client_id": "", "key": new_subject_key()})
        credentials = Credentials.load(key)
        made = placet.register_client(
            kind=kind,
            name=name,
            org=org,
            project=project,
            ethics_reference=ethics,
            jwks=credentials.public_jwks,
            scopes=scope or sorted(SCOPES_BY_KIND.get(kind, frozenset())),
            term_expires_at=datetime.fromtimestamp(time.time() + days * _DAY_S, UTC).isoformat(),
            budget_s_per_day=budget,
        )
        key.unlink()
        write_private_json(key, Credentials(made["client_id"], credentials.key).to_json())
        emit(as_json, made, f"{made['client_id']} approved (log entry {made['log_index']}); credentials in {key}")


@operators.command("list")
def list_clients(home: Home = None, url: Url = "", as_json: Json = False) -> None:
    """All clients but the subjects."""
    with reporting(as_json), operator_client(home, url) as placet:
        found = placet.clients()
        lines = [
            f"{each['client_id']}  {each['kind']:<10} {each['status']:<9} {each['org']}  {each['name']}"
            for each in found
        ]
        emit(as_json, {"clients": found}, "\n".join(lines))


def render(
    key: KeyFile,
    subject: Annotated[str, typer.Option(help="Subject id.")],
    out: Annotated[Path, typer.Option(help="Where to write the MP4.")],
    speech: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Sound file.")] = None,
    text: Annotated[str, typer.Option(help="Instead of a sound file: what a synthetic voice says.")] = "",
    language: Annotated[str, typer.Option(help="Of the text: a tag such as en or de.")] = "",
    voice: Annotated[str, typer.Option(help="Which of the engine's voices, such as f3.")] = "",
    driving: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Video of the driver, whose movement is followed.")
    ] = None,
    driver: Annotated[str, typer.Option(help="Subject id of whoever moves in that video.")] = "",
    lips: Annotated[str, typer.Option(help="With --driving: whose lips, clip or speech; speech if there is any.")] = "",
    portrait: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Enrolled picture.")] = None,
    portrait_sha256: Annotated[str, typer.Option(help="Instead of the file: hash of an enrolled portrait.")] = "",
    purpose: Annotated[str, typer.Option(help="Purpose IRI.")] = PURPOSE_RESEARCH,
    seed: Annotated[int | None, wishes.SEED] = None,
    intensity: Annotated[float | None, wishes.INTENSITY] = None,
    head_motion: Annotated[float | None, wishes.HEAD_MOTION] = None,
    blink_rate: Annotated[float | None, wishes.BLINK_RATE] = None,
    gaze: Annotated[str | None, wishes.GAZE] = None,
    head_pose: Annotated[str | None, wishes.HEAD_POSE] = None,
    head_distance: Annotated[float | None, wishes.HEAD_DISTANCE] = None,
    emotion: Annotated[str | None, wishes.EMOTION] = None,
    framing: Annotated[str | None, wishes.FRAMING] = None,
    face: Annotated[str | None, wishes.FACE] = None,
    controls: Annotated[Path | None, wishes.CONTROLS] = None,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Ask for a video as a vetted client, wait for it, and write it. Status 1 if the gate refuses."""
    with reporting(as_json), client_for(home, url, key) as placet:
        wanted = wishes.read_controls(
            controls,
            seed=seed,
            intensity=intensity,
            head_motion=head_motion,
            blink_rate=blink_rate,
            gaze=gaze,
            head_pose=head_pose,
            head_distance=head_distance,
            emotion=emotion,
            framing=framing,
            face=face,
        )
        if lips:
            wanted["driving"] = {"lips": lips}
        asked = placet.render(
            subject_id=subject,
            speech=speech.read_bytes() if speech is not None else None,
            text=text,
            language=language,
            voice=voice,
            driving=driving.read_bytes() if driving is not None else None,
            driver_id=driver,
            purpose=purpose,
            portrait=portrait.read_bytes() if portrait is not None else None,
            portrait_sha256=portrait_sha256,
            controls=wanted,
        )
        with progress_bar("rendering") as tell:
            done = placet.wait(asked, on_progress=tell)
        out.write_bytes(placet.video(done["render_id"]))
        emit(
            as_json,
            {**done, "file": out},
            f"{out}: {done['duration_s']:.1f} s, watermark {done['mark_id']}, log entry {done['delivery_index']}",
        )


# -- personas


@personas.command("list")
def list_shipped(as_json: Json = False) -> None:
    """Synthetic identities that ship with the project, the default one first."""
    from generator.personas import list_personas

    with reporting(as_json):
        found = list_personas()
        lines = [f"{each.name:<9} {_ages(each):>6}  {each.description}" for each in found]
        emit(as_json, {"personas": [_stated(each) for each in found]}, "\n".join(lines) or "none")


@personas.command("show")
def show_persona(
    name: Annotated[str, typer.Argument(help="One of `placet personas list`.")],
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the portrait here, manifest and all.")] = None,
    as_json: Json = False,
) -> None:
    """What one persona is, what its manifest says, and its portrait."""
    from generator.personas import load_persona

    with reporting(as_json):
        persona = load_persona(name)
        reading = persona.credentials()
        if out is not None:
            with out.open("xb") as file:
                file.write(persona.portrait())
        claims = {
            "state": reading.state,
            "digital_source_type": reading.digital_source_type,
            "signer": reading.signer,
            "signed_at": reading.signed_at.isoformat() if reading.signed_at else None,
        }
        lines = [
            f"{persona.display_name}, looks {_ages(persona)}: {persona.description}",
            persona.attestation,
            f"manifest {reading.state}: {(reading.digital_source_type or '').rsplit('/', 1)[-1]}, by {reading.signer}",
            f"licence {persona.licence}, sha256 {persona.portrait_sha256}",
        ]
        emit(as_json, _stated(persona) | {"credentials": claims, "out": out}, "\n".join(lines))


def _ages(persona: Persona) -> str:
    return "–".join(str(age) for age in persona.apparent_age_years)


def _stated(persona: Persona) -> dict[str, Any]:
    return {
        "name": persona.name,
        "display_name": persona.display_name,
        "description": persona.description,
        "apparent_age_years": persona.apparent_age_years,
        "attestation": persona.attestation,
        "licence": persona.licence,
        "portrait": persona.portrait_path,
        "portrait_sha256": persona.portrait_sha256,
        "sample": persona.sample_path,
    }
