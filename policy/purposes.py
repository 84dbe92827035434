"""What a face may be animated for: the purposes that can be agreed to, as IRIs, in the words that people read.

`dpv#` IRIs are of the Data Privacy Vocabulary (w3id.org/dpv); the others are ours, in its manner. IRIs are never
reused: a purpose whose meaning changes gets a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PURPOSE_RESEARCH: Final = "https://w3id.org/dpv#ScientificResearch"
PURPOSE_EDUCATION: Final = "urn:placet:purpose:education"
PURPOSE_ACCESSIBILITY: Final = "urn:placet:purpose:accessibility"
PURPOSE_COMMUNICATION: Final = "urn:placet:purpose:communication"
PURPOSE_EVALUATION: Final = "urn:placet:purpose:evaluation"
PURPOSE_TRAINING: Final = "urn:placet:purpose:training"

PURPOSES_BY_LANGUAGE: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        PURPOSE_RESEARCH: "Scientific research on talking faces and on recognising synthetic media.",
        PURPOSE_EDUCATION: "Teaching and training material.",
        PURPOSE_ACCESSIBILITY: "A face and voice for people who cannot speak or be seen otherwise.",
        PURPOSE_COMMUNICATION: "Messages and calls in the person's own name.",
        PURPOSE_EVALUATION: "Measuring how good and how safe this system is.",
        PURPOSE_TRAINING: "Training the models of this system.",
    },
    "de": {
        PURPOSE_RESEARCH: "Wissenschaftliche Forschung über sprechende Gesichter und das Erkennen künstlicher Medien.",
        PURPOSE_EDUCATION: "Unterricht und Lehrmaterial.",
        PURPOSE_ACCESSIBILITY: "Gesicht und Stimme für Menschen, die sonst nicht sprechen oder gesehen werden können.",
        PURPOSE_COMMUNICATION: "Nachrichten und Anrufe im eigenen Namen der Person.",
        PURPOSE_EVALUATION: "Messen, wie gut und wie sicher dieses System ist.",
        PURPOSE_TRAINING: "Training der Modelle dieses Systems.",
    },
}

PURPOSES: Final[Mapping[str, str]] = PURPOSES_BY_LANGUAGE["en"]
"""Every purpose that can be agreed to, with its sentence in English."""
