"""A voice for a text: optional speech synthesis, behind one small protocol.

Comes in: a text, its language, and the name of a voice. Goes out: `SpokenText`, a WAV file and what is to be said about
the voice wherever the speech goes: that nobody spoke it. No engine is part of Placet; the one that is known here is
eSpeak NG, in a process of its own (see `generator.voice_engine`). Whatever the engine, the sound takes the way of every
upload afterwards.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from generator.controls import SyntheticVoice
from generator.errors import NoSuchVoiceError, NoVoiceEngineError, UnspeakableTextError, VoiceFailedError
from generator.voice_engine import MISSING, UNKNOWN
from watermark.encoding import encode_sound_wav
from watermark.media import Sound

MAX_TEXT_CHARS: Final = 5000
DEFAULT_LANGUAGE: Final = "en"
_PROGRAM: Final = (sys.executable, "-m", "generator.voice_engine")
_TIMEOUT_S: Final = 40.0
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}")
_VOICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,31}")


@dataclass(frozen=True)
class SpokenText:
    """Speech that nobody spoke.

    Attributes:
        wav: the sound.
        voice: what is to be said about it.
    """

    wav: bytes
    voice: SyntheticVoice


class VoiceEngine(Protocol):
    """What turns text into speech."""

    def speak(self, text: str, language: str, voice: str) -> tuple[Sound, str]:
        """The sound, and name and version of the engine.

        Args:
            text: checked by `speak`.
            voice: "" for the language's own.
        Raises: VoiceError.
        """
        ...


class EspeakEngine:
    """eSpeak NG, in a process of its own.

    Args:
        program: what to start; it reads and answers as `generator.voice_engine` says.
    """

    def __init__(self, program: Sequence[str] = _PROGRAM) -> None:
        self._program = tuple(program)

    def speak(self, text: str, language: str, voice: str) -> tuple[Sound, str]:
        """See `VoiceEngine`."""
        wish = json.dumps({"text": text, "language": language, "voice": voice}).encode()
        try:
            done = subprocess.run(self._program, input=wish, capture_output=True, timeout=_TIMEOUT_S, check=False)
            line, _, samples = done.stdout.partition(b"\n")
            header = json.loads(line)
        except (OSError, subprocess.TimeoutExpired, ValueError) as exc:
            raise VoiceFailedError("The text-to-speech engine did not answer: try a shorter text.") from exc
        if header.get("error") == MISSING:
            raise NoVoiceEngineError(
                "No text-to-speech engine is installed: install espeakng-loader (pip install 'placet[voice]') or "
                "eSpeak NG (Debian: libespeak-ng1), or send speech instead of text."
            )
        if header.get("error") == UNKNOWN:
            known = [str(each) for each in header["known"]]
            shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
            raise NoSuchVoiceError(f"The engine does not have this language or voice; it has {shown}.")
        if "engine" not in header or not samples:
            raise VoiceFailedError("The text-to-speech engine made no sound of this text: try another one.")
        samples_N = np.frombuffer(samples[: len(samples) // 2 * 2], "<i2").astype(np.float32) / 32768.0
        return Sound(samples_N, int(header["rate_hz"])), str(header["engine"])


def speak(
    text: str, language: str = DEFAULT_LANGUAGE, voice: str = "", *, engine: VoiceEngine | None = None
) -> SpokenText:
    """Speech for a text.

    Args:
        text: up to `MAX_TEXT_CHARS` characters, without control characters.
        language: BCP 47 tag, such as "en", "en-gb", "de".
        voice: one of the engine's, such as "f3"; "" for the language's own.
        engine: eSpeak NG unless given.
    Raises: UnspeakableTextError, NoSuchVoiceError, NoVoiceEngineError, VoiceFailedError.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not text or len(text) > MAX_TEXT_CHARS:
        raise UnspeakableTextError(f"The text has {len(text)} characters; send 1 to {MAX_TEXT_CHARS}.")
    if any(unicodedata.category(each) in ("Cc", "Cs", "Co", "Cn") and each not in "\n\t\r" for each in text):
        raise UnspeakableTextError("The text holds characters that are not text; send plain text.")
    if not any(each.isalnum() for each in text):
        raise UnspeakableTextError("The text holds no word that could be spoken; send some.")
    if not _LANGUAGE.fullmatch(language) or (voice and not _VOICE.fullmatch(voice)):
        raise NoSuchVoiceError('language must be a tag such as "en" or "de", and voice a name such as "f3".')
    sound, name = (engine or EspeakEngine()).speak(text, language, voice)
    stated = SyntheticVoice(name[:64], language, voice or "default", hashlib.sha256(text.encode()).hexdigest())
    return SpokenText(encode_sound_wav(sound), stated)
