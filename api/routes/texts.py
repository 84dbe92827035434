"""/v1/texts: what people read before they sign, in every version that was ever shown. Public."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from api.schemas import TextNameOut, TextOut, TextsOut
from policy.purposes import PURPOSES_BY_LANGUAGE
from policy.texts import find_text, known_texts, source_of

router = APIRouter(prefix="/v1/texts", tags=["consents"])


@router.get("", summary="Every text that a statement may name, and the purposes in words")
def texts() -> TextsOut:
    purposes = {language: dict(sentences) for language, sentences in PURPOSES_BY_LANGUAGE.items()}
    return TextsOut(texts=[TextNameOut(**asdict(name)) for name in known_texts()], purposes=purposes)


@router.get("/{kind}/{version}/{language}", summary="One text, with its empty places")
def text(kind: str, version: str, language: str) -> TextOut:
    name = find_text(kind, version, language)
    return TextOut(**asdict(name), source=source_of(name))
