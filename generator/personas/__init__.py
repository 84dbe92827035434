"""The green room: synthetic adults that ship with the project and may be animated by anyone, as they are nobody.

Each persona is a folder: `portrait.png` to animate, with a C2PA manifest inside that says it is synthetic, and
`persona.json` that attests what it is and holds the recipe from which `make.py` renders or `compose.py` composes it
again. `root.pem` is the certificate under which those manifests were signed; its key is gone (see `sign.py`).

    PersonaError                  persona            (a GeneratorError)
    ├── UnknownPersonaError       persona.unknown    404
    └── DamagedPersonaError       persona.damaged    500
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from generator.errors import GeneratorError

if TYPE_CHECKING:
    from watermark.credentials import CredentialReading

__all__ = [
    "DEFAULT_NAME",
    "ROOT_FILE",
    "DamagedPersonaError",
    "Persona",
    "PersonaError",
    "UnknownPersonaError",
    "list_personas",
    "load_persona",
    "sample_paths",
    "without_manifest",
]

DEFAULT_NAME: Final = "ilias"
"""Who is animated where nobody is named: demonstration, benchmarks, tests."""
SYNTHETIC_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeSynthetic"
"""What a persona's manifest calls the picture: IPTC NewsCodes, digital source type."""
_HOME = Path(__file__).parent
ROOT_FILE: Final = _HOME / "root.pem"
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MANIFEST_CHUNK: Final = b"caBX"


class PersonaError(GeneratorError):
    """Something about a shipped persona is not as it should be."""

    code: ClassVar[str] = "persona"


class UnknownPersonaError(PersonaError):
    """No persona of that name ships with this release."""

    code = "persona.unknown"
    http_status = 404

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no persona named {name!r}; choose one of: {', '.join(known) or 'none installed'}")
        self.name = name
        self.known = known


class DamagedPersonaError(PersonaError):
    """A persona's folder does not hold what its record says; reinstall the package."""

    code = "persona.damaged"
    http_status = 500


@dataclass(frozen=True)
class Persona:
    """A synthetic adult, attested as such.

    Attributes:
        name: identifier, a lower-case given name.
        display_name: how to show it to people.
        subject_class: always `persona`: synthetic, adult, resembling no one on purpose.
        description: one sentence for a caption or an alternative text.
        attestation: what its makers declare about it, for enrolment and for the log.
        apparent_age_years: youngest and oldest that it may look; both adult.
        licence: SPDX identifier under which the portrait may be used.
        portrait_path: PNG, square, at least 768 px, with its C2PA manifest inside.
        portrait_sha256: hex digest of that file, as the record states it.
        sample_path: a speech sample that suits the face, or None.
    """

    name: str
    display_name: str
    subject_class: str
    description: str
    attestation: str
    apparent_age_years: tuple[int, int]
    licence: str
    portrait_path: Path
    portrait_sha256: str
    sample_path: Path | None

    def portrait(self) -> bytes:
        """The portrait's bytes, checked against the record.

        Raises: DamagedPersonaError: missing, or not the file that was attested.
        """
        try:
            data = self.portrait_path.read_bytes()
        except OSError as exc:
            raise DamagedPersonaError(f"the portrait of {self.name!r} is missing; reinstall the package") from exc
        if hashlib.sha256(data).hexdigest() != self.portrait_sha256:
            raise DamagedPersonaError(f"the portrait of {self.name!r} is not the attested file; reinstall the package")
        return data

    def credentials(self) -> CredentialReading:
        """What the portrait's manifest says, read under `root.pem`.

        Raises: DamagedPersonaError: the picture is not the attested one, or its manifest is not trusted and synthetic.
        """
        from watermark.credentials import read_credentials

        reading = read_credentials(self.portrait(), "image/png", ROOT_FILE.read_text(encoding="ascii"))
        if reading.state != "trusted" or reading.digital_source_type != SYNTHETIC_SOURCE_TYPE:
            raise DamagedPersonaError(
                f"the manifest of {self.name!r} reads {reading.state}; reinstall the package, or a newer release"
            )
        return reading


def list_personas() -> list[Persona]:
    """All personas of this release: the default one first, the others by name."""
    folders = [folder for folder in _HOME.iterdir() if (folder / "portrait.png").is_file()]
    folders.sort(key=lambda folder: (folder.name != DEFAULT_NAME, folder.name))
    return [_read(folder / "persona.json") for folder in folders]


def sample_paths() -> tuple[Path, ...]:
    """The speech samples that ship with the project, each with its phoneme times in a JSON file of the same name."""
    return tuple(sorted((_HOME / "samples").glob("*.wav")))


def load_persona(name: str) -> Persona:
    """The persona called `name`.

    Raises: UnknownPersonaError: the sentence lists the known ones.
    """
    personas = {persona.name: persona for persona in list_personas()}
    if name not in personas:
        raise UnknownPersonaError(name, tuple(personas))
    return personas[name]


def without_manifest(png: bytes) -> bytes:
    """The same picture without a C2PA manifest, byte for byte as it was before it was signed."""
    out, at = [png[: len(_PNG_SIGNATURE)]], len(_PNG_SIGNATURE)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] != _MANIFEST_CHUNK:
            out.append(png[at:end])
        at = end
    return b"".join(out)


def _read(record: Path) -> Persona:
    try:
        stated: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        youngest, oldest = stated["attestation"]["apparent_age_years"]
        sample = record.parent / stated["sample"] if stated["sample"] else None
        return Persona(
            name=stated["name"],
            display_name=stated["display_name"],
            subject_class=stated["class"],
            description=stated["description"],
            attestation=stated["attestation"]["statement"],
            apparent_age_years=(int(youngest), int(oldest)),
            licence=stated["licence"],
            portrait_path=record.parent / stated["portrait"]["file"],
            portrait_sha256=stated["portrait"]["sha256"],
            sample_path=sample if sample is not None and sample.is_file() else None,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise DamagedPersonaError(
            f"{record.name} of {record.parent.name!r} is unreadable; reinstall the package"
        ) from exc
