"""Speech from text: what is refused, what is said about the voice, and that an engine may be missing or break."""

from __future__ import annotations

import ctypes.util
import hashlib
import sys

import numpy as np
import pytest

from generator.controls import MotionControls
from generator.errors import ControlError, NoSuchVoiceError, NoVoiceEngineError, UnspeakableTextError, VoiceFailedError
from generator.speech import normalise_speech
from generator.voice import EspeakEngine, speak
from watermark.media import Sound, decode_sound

HAS_ENGINE = ctypes.util.find_library("espeak-ng") is not None


class Hum:
    """An engine of the tests: hums as long as the text is."""

    def speak(self, text: str, language: str, voice: str) -> tuple[Sound, str]:
        samples_N = (np.sin(np.arange(800 * len(text)) / 20) / 3).astype(np.float32)
        return Sound(samples_N, 16_000), "Hum 1"


def answering(line: str) -> EspeakEngine:
    """An engine whose program says this and nothing else."""
    return EspeakEngine((sys.executable, "-c", f"import sys; sys.stdin.read(); print({line!r})"))


def test_what_is_said_about_a_voice() -> None:
    spoken = speak("  Guten Tag. ", "de", "f3", engine=Hum())
    assert decode_sound(normalise_speech(spoken.wav)).duration_s == pytest.approx(0.5)
    assert (spoken.voice.engine, spoken.voice.language, spoken.voice.voice) == ("Hum 1", "de", "f3")
    assert spoken.voice.text_sha256 == hashlib.sha256(b"Guten Tag.").hexdigest()
    stated = spoken.voice.stated()
    assert "text_sha256" not in stated, "the hash of a short text gives it away"
    control = {"voice": vars(spoken.voice)}
    assert MotionControls.from_json(control).voice == spoken.voice
    damaged: list[object] = [True, {}, control["voice"] | {"engine": ""}]
    for each in damaged:
        with pytest.raises(ControlError):
            MotionControls.from_json({"voice": each})


@pytest.mark.parametrize("text", ["", " \n", "x" * 5001, "a\0b", "\x1b[31m", "…!?", "\ud800", "\ue000"])
def test_texts_that_are_none(text: str) -> None:
    with pytest.raises(UnspeakableTextError):
        speak(text, engine=Hum())


@pytest.mark.parametrize(
    ("language", "voice"), [("", ""), ("en;rm", ""), ("--help", ""), ("en", "../f3"), ("en", "-x")]
)
def test_names_that_are_none(language: str, voice: str) -> None:
    with pytest.raises(NoSuchVoiceError):
        speak("Hello.", language, voice, engine=Hum())


def test_without_an_engine_the_sentence_says_what_to_install() -> None:
    with pytest.raises(NoVoiceEngineError, match="espeakng-loader") as caught:
        speak("Hello.", engine=answering('{"error": "missing"}'))
    assert caught.value.code == "voice.no_engine"


@pytest.mark.parametrize("line", ["", "no JSON", '{"error": "failed"}', '{"engine": "x", "rate_hz": 22050}'])
def test_an_engine_that_breaks(line: str) -> None:
    with pytest.raises(VoiceFailedError):
        speak("Hello.", engine=answering(line))
    with pytest.raises(VoiceFailedError):
        speak("Hello.", engine=EspeakEngine(("/no/such/program",)))


@pytest.mark.skipif(not HAS_ENGINE, reason="eSpeak NG is not installed")
def test_espeak_speaks_languages_and_knows_its_voices() -> None:
    english, german = speak("Good morning, everybody."), speak("Guten Morgen zusammen.", "de", "f3")
    assert english.voice.engine.startswith("eSpeak NG ")
    for each in (english, german):
        sound = decode_sound(normalise_speech(each.wav))
        assert 0.8 < sound.duration_s < 4 and np.abs(sound.samples_N).max() > 0.1
    assert speak("Good morning, everybody.").wav == english.wav, "the same text is the same sound"
    for wrong in (("xx", ""), ("en", "nobody")):
        with pytest.raises(NoSuchVoiceError, match="it has"):
            speak("Hello.", *wrong)
