"""Everything that is kept about a subject, as one zip file for them to take away.

profile.json        account, epoch, class, passkeys
enrolment.txt       the signed enrolment, as it came
consents/*.json     each consent with its signed form, the text that was shown, revocation and number of uses
portraits/*.png     the normalised pictures
templates/*.json    128 numbers per portrait, by which the face is recognised
uses.json           every use with its log entry and inclusion proof
log-key.txt         verifier key (c2sp.org/signed-note) for the checkpoints of those proofs
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from api.storage.models import Revocation
from policy.statement import encode_base64url

if TYPE_CHECKING:
    from api.service import Service


def export_subject(service: Service, subject_id: str, uses: list[dict[str, Any]]) -> bytes:
    """The zip file. Raises NotFoundError.

    Args:
        uses: as `/v1/subjects/me/uses` answers them.
    """
    subject, portraits = service.enrolment.find(subject_id)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        passkeys = [
            {"credential_id": encode_base64url(each.credential_id), "label": each.label, "public_jwk": each.public_jwk}
            for each in service.passkeys.of_account(subject_id)
        ]
        profile = {
            "subject_id": subject.subject_id,
            "subject_class": subject.subject_class,
            "attested_by": subject.attested_by,
            "pseudonym": service.gate.pseudonym("subject", subject_id),
            "epoch": subject.epoch,
            "enrolled_at": subject.created_at,
            "log_index": subject.log_index,
            "public_jwk": subject.public_jwk,
            "passkeys": passkeys,
        }
        _write_json(archive, "profile.json", profile)
        archive.writestr("enrolment.txt", subject.enrolment)
        for consent, num_uses in service.consents.all(subject_id):
            with service.database.read() as session:
                revocations = session.scalars(select(Revocation).where(Revocation.consent_id == consent.consent_id))
                taken_back = [{"signed": each.signed, "log_index": each.log_index} for each in revocations]
            told = {
                "sha256": consent.sha256,
                "statement": consent.statement,
                "signed": consent.signed,
                "text": service.consents.text_of(consent).plain,
                "num_uses": num_uses,
                "given_at": consent.created_at,
                "revoked_at": consent.revoked_at,
                "superseded_by": consent.superseded_by,
                "log_index": consent.log_index,
                "revocations": taken_back,
            }
            _write_json(archive, f"consents/{consent.consent_id}.json", told)
        for portrait in portraits:
            archive.writestr(f"portraits/{portrait.sha256}.png", service.enrolment.open_portrait(portrait))
        for name, template in service.faces.templates_of(subject_id).items():
            _write_json(archive, f"templates/{name}.json", [round(float(each), 6) for each in template.values_D])
        _write_json(archive, "uses.json", uses)
        archive.writestr("log-key.txt", service.log.verifier_key + "\n")
    return out.getvalue()


def _write_json(archive: zipfile.ZipFile, name: str, value: Any) -> None:
    archive.writestr(name, json.dumps(value, indent=2, ensure_ascii=False, default=str))
