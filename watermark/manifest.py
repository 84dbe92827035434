"""What is claimed about one output, and its form in a C2PA manifest: pure values, no keys, no files.

Specification: C2PA Technical Specification 2.4 ("C2PA" below). Labels and field names are WIRE FORMAT: what changes its
meaning gets a new name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from watermark.errors import InvalidManifestSpecError
from watermark.payload import MarkId

SOFT_BINDING_ALGORITHM = "org.placet.watermark.chroma.1"
"""Name of the invisible mark of the picture in soft-binding assertions. WIRE FORMAT: a changed mark gets a new name."""
AUDIO_SOFT_BINDING_ALGORITHM = "org.placet.watermark.audio.1"
"""Name of the inaudible mark of the sound. WIRE FORMAT."""
SOFT_BINDING_ALGORITHMS = (SOFT_BINDING_ALGORITHM, AUDIO_SOFT_BINDING_ALGORITHM)

CONSENT_LABEL = "org.placet.consent"
LOG_LABEL = "org.placet.log"
FINGERPRINTS_LABEL = "org.placet.fingerprints"
DRIVING_LABEL = "org.placet.driving"
VOICE_LABEL = "org.placet.voice"
DISCLOSURE_LABEL = "org.placet.disclosure"
SESSION_LABEL = "org.placet.session"
SPEC_VERSION = "2.4.0"
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
COMPOSITE_SOURCE_TYPE = _SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""The photograph is kept and a trained model moves it: IPTC NewsCodes, digital source type."""
TRAINED_SOURCE_TYPE = _SOURCE_TYPES + "trainedAlgorithmicMedia"
"""Nothing in the picture was recorded: a persona or an artwork, moved by a trained model."""

ALGORITHMIC_SOURCE_TYPE = _SOURCE_TYPES + "algorithmicMedia"
"""Made by rules alone, such as speech by a formant synthesiser."""

PORTRAIT_LABEL, SPEECH_LABEL = "portrait", "speech"


@dataclass(frozen=True)
class Ingredient:
    """Something the output was made from; a manifest that it carries is kept with it."""

    data: bytes
    mime: str
    title: str


class Claim(Protocol):
    """What `watermark.credentials.sign` needs of a claim: a manifest definition, its ingredients, the mark it binds."""

    @property
    def mark_id(self) -> MarkId | None: ...

    def ingredients(self) -> tuple[tuple[str, Ingredient], ...]: ...

    def manifest(self, mime: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ManifestSpec:
    """What is claimed about one output.

    Attributes:
        title: the name readers show.
        portrait, speech: what went in.
        mark_id: the invisible mark in the frames, bound as a soft binding.
        consent: hash, purpose, grantee and expiry of the consent that permits this use; never personal data. None for
            synthetic persons and artworks.
        log: entry index, inclusion proof and checkpoint of the decision to permit it.
        software_version: of Placet.
        fingerprints: what the content looks and sounds like, second by second, or None.
        source_type: IPTC digital source type of the creation: `COMPOSITE_SOURCE_TYPE` where a photograph is kept.
        soft_bindings: names of the algorithms whose mark carries `mark_id`.
        driving: hash of a driving clip, of the movement that was taken from it and of the driver's consent, and whose
            the lips are; None where speech alone moves the face.
        voice: engine, language and voice of speech that was made from text; None for a recording.
        disclosure: what a law wants said in the metadata (see `watermark.labels`), or None.
        session: of a recording of a live session: the manifest of the stream, and the log entries of the session.
    """

    title: str
    portrait: Ingredient
    speech: Ingredient
    mark_id: MarkId
    consent: dict[str, Any] | None
    log: dict[str, Any]
    software_version: str
    fingerprints: dict[str, Any] | None = None
    source_type: str = COMPOSITE_SOURCE_TYPE
    soft_bindings: tuple[str, ...] = field(default=(SOFT_BINDING_ALGORITHM,))
    disclosure: dict[str, Any] | None = None
    driving: dict[str, Any] | None = None
    voice: dict[str, str] | None = None
    session: dict[str, Any] | None = None

    def ingredients(self) -> tuple[tuple[str, Ingredient], ...]:
        """Label and content of everything that went in."""
        return (PORTRAIT_LABEL, self.portrait), (SPEECH_LABEL, self.speech)

    def software(self) -> dict[str, str]:
        """Name and version of the claim generator."""
        return {"name": "Placet", "version": self.software_version}

    def actions(self, ingredient_parameters: dict[str, Any]) -> dict[str, Any]:
        """Data of `c2pa.actions.v2` (C2PA §18.15): what was done, completely.

        Args:
            ingredient_parameters: how the action of creation points at the ingredients; c2pa-rs takes `ingredientIds`,
                the finished assertion holds hashed URIs.
        """
        software = self.software()
        created = {
            "action": "c2pa.created",
            "digitalSourceType": self.source_type,
            "softwareAgent": software,
            "parameters": ingredient_parameters,
        }
        bound = {"action": "c2pa.watermarked.bound", "softwareAgent": software}
        placed = [self._spoken(software)] if self.voice is not None else []
        return {"actions": [created, *placed, bound], "allActionsIncluded": True}

    def _spoken(self, software: dict[str, str]) -> dict[str, Any]:
        """The action that made the speech: nobody spoke it."""
        assert self.voice is not None
        return {
            "action": "c2pa.edited",
            "digitalSourceType": ALGORITHMIC_SOURCE_TYPE,
            "softwareAgent": software,
            "description": f"Speech made from text by {self.voice['engine']}: a synthetic voice, nobody's recording.",
        }

    def assertions(self) -> list[dict[str, Any]]:
        """Every assertion but the actions, the ingredients and the hard binding. Raises: InvalidManifestSpecError."""
        # (1) a claim that says nothing is not signed
        if not self.title or not self.software_version:
            raise InvalidManifestSpecError("A manifest needs a title and the software's version.")
        if self.source_type not in (COMPOSITE_SOURCE_TYPE, TRAINED_SOURCE_TYPE):
            raise InvalidManifestSpecError(
                "The digital source type must be trainedAlgorithmicMedia, or compositeWithTrainedAlgorithmicMedia "
                "where a photograph is kept."
            )
        if not self.soft_bindings or not set(self.soft_bindings) <= set(SOFT_BINDING_ALGORITHMS):
            raise InvalidManifestSpecError("A manifest binds at least one mark, and only marks that are made here.")
        # (2) the way back, C2PA §18.10: one soft binding per carrier, all with the same id
        assertions: list[dict[str, Any]] = [
            {
                "label": "c2pa.soft-binding",
                "data": {"alg": algorithm, "blocks": [{"scope": {}, "value": self.mark_id.hex}]},
            }
            for algorithm in self.soft_bindings
        ]
        # (3) what nobody is allowed to do with it
        not_allowed = {"use": "notAllowed"}
        uses = ("cawg.ai_generative_training", "cawg.ai_training", "cawg.ai_inference", "cawg.data_mining")
        assertions.append({"label": "cawg.training-mining", "data": {"entries": dict.fromkeys(uses, not_allowed)}})
        # (4) what Placet says itself
        own = (
            (LOG_LABEL, self.log),
            (CONSENT_LABEL, self.consent),
            (FINGERPRINTS_LABEL, self.fingerprints),
            (DISCLOSURE_LABEL, self.disclosure),
            (DRIVING_LABEL, self.driving),
            (VOICE_LABEL, None if self.voice is None else {"synthetic": True, **self.voice}),
            (SESSION_LABEL, self.session),
        )
        return assertions + [{"label": label, "data": data} for label, data in own if data is not None]

    def manifest(self, mime: str) -> dict[str, Any]:
        """The manifest definition for c2pa-rs. Raises: InvalidManifestSpecError."""
        actions = self.actions({"ingredientIds": [label for label, _ in self.ingredients()]})
        return {
            "claim_generator_info": [self.software() | {"specVersion": SPEC_VERSION}],
            "title": self.title,
            "format": mime,
            "assertions": [{"label": "c2pa.actions.v2", "data": actions}, *self.assertions()],
            "ingredients": self._named_ingredients(),
        }

    def _named_ingredients(self) -> list[dict[str, Any]]:
        """What went in and is named by its hash alone: nothing of a driving clip is kept, its picture least of all."""
        if self.driving is None:
            return []
        return [
            {
                "title": "Driving clip",
                "format": "video/mp4",
                "relationship": "inputTo",
                "instance_id": f"urn:sha256:{self.driving['clip_sha256']}",
            }
        ]
