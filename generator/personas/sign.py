"""Sign the personas' portraits: at release, all of them at once.

    python -m generator.personas.sign --name "Placet personas 2026-11"    # -> */portrait.png, */persona.json, root.pem

Makes a certificate authority that lives for this one command, gives every portrait a C2PA manifest that says it is
synthetic, and destroys the keys: nobody, not the makers either, can sign another picture under `root.pem`. What was in
a portrait before is replaced, its pixels stay as they are: `unsigned_sha256` in the record is the digest without the
manifest, so that a second signing can be compared with the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.personas import ROOT_FILE, list_personas, without_manifest
from generator.personas.make import write_record
from watermark.credentials import Ingredient, SigningAuthority, sign
from watermark.manifest import SPEC_VERSION
from watermark.tsa import TimeStampAuthority, TimeStampServer

PERSONA_LABEL = "org.placet.persona"
"""Assertion with the makers' attestation. WIRE FORMAT."""


@dataclass(frozen=True)
class PersonaClaim:
    """What a persona's manifest says.

    Attributes:
        record: the persona's record.
        software_version: of Placet.
    """

    record: dict[str, Any]
    software_version: str
    mark_id: None = None

    def ingredients(self) -> tuple[tuple[str, Ingredient], ...]:
        """None: what lent its parts is named in the attestation, and does not ship."""
        return ()

    def manifest(self, mime: str) -> dict[str, Any]:
        """The manifest definition for c2pa-rs: created as a synthetic composite, and who attests what."""
        attestation = self.record["attestation"]
        software = {"name": "Placet", "version": self.software_version}
        created = {
            "action": "c2pa.created",
            "digitalSourceType": attestation["digital_source_type"],
            "softwareAgent": software,
            "description": attestation["statement"],
        }
        stated = {key: self.record[key] for key in ("name", "class", "licence", "attestation", "made_from")}
        return {
            "claim_generator_info": [software | {"specVersion": SPEC_VERSION}],
            "title": f"{self.record['display_name']}, a synthetic person",
            "format": mime,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [created], "allActionsIncluded": True}},
                {"label": PERSONA_LABEL, "data": stated},
            ],
        }


def sign_portrait(folder: Path, authority: SigningAuthority, software_version: str) -> None:
    """Replace the manifest of one persona's portrait and note the new digest. Raises: SigningError, TimeStampError."""
    record = json.loads((folder / "persona.json").read_text(encoding="utf-8"))
    portrait = folder / record["portrait"]["file"]
    bare = without_manifest(portrait.read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        src, dst = Path(scratch) / "bare.png", Path(scratch) / "signed.png"
        src.write_bytes(bare)
        sign(src, dst, PersonaClaim(record, software_version), authority, mime="image/png")
        portrait.write_bytes(dst.read_bytes())
    record["portrait"]["unsigned_sha256"] = hashlib.sha256(bare).hexdigest()
    record["portrait"]["sha256"] = hashlib.sha256(portrait.read_bytes()).hexdigest()
    write_record(folder, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", required=True, help="of the authority, as readers show it")
    parser.add_argument("--software-version", default="0.1.0")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pki = Path(scratch) / "pki"
        authority = SigningAuthority.create(pki, asked.name)
        with TimeStampServer(TimeStampAuthority.load(pki)) as stamps:
            stamped = authority.with_time_stamps(stamps.url)
            for persona in list_personas():
                sign_portrait(persona.portrait_path.parent, stamped, asked.software_version)
                print(f"{persona.name} signed", flush=True)
        ROOT_FILE.write_text(authority.root_pem, encoding="ascii")


if __name__ == "__main__":
    main()
