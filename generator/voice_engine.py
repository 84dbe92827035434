"""The process in which eSpeak NG speaks: one text in, one voice out, and then it ends.

eSpeak NG is free software under the GNU General Public License 3. It is no part of Placet and is never loaded into it:
this small program, started for each text, talks to the library that is installed beside it, from the wheel
`espeakng-loader` or from the system (Debian: `libespeak-ng1`).

    stdin:  {"text": …, "language": …, "voice": …} as JSON
    stdout: {"engine": …, "rate_hz": …} or {"error": …, "known": […]} as one line of JSON, then 16-bit mono samples
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import json
import sys
from typing import Any, Final

MISSING: Final = "missing"
UNKNOWN: Final = "unknown"
FAILED: Final = "failed"

# espeak-ng/speak_lib.h
_SYNCHRONOUS: Final = 2
_BY_CHARACTER: Final = 1
_UTF8: Final = 1
_OK: Final = 0


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


def _library() -> tuple[Any, bytes | None] | None:
    """The library and where its data lies, None for its own place; None if it is not installed."""
    try:
        loader = importlib.import_module("espeakng_loader")
        return ctypes.CDLL(loader.get_library_path()), str(loader.get_data_path()).encode()
    except (ImportError, OSError):
        found = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            return ctypes.CDLL(found), None
        except OSError:
            return None


def _listed(library: Any, spec: _Voice | None = None) -> list[_Voice]:
    """The voices that are installed."""
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    entries = library.espeak_ListVoices(None if spec is None else ctypes.byref(spec))
    voices, index = [], 0
    while entries[index]:
        voices.append(entries[index].contents)
        index += 1
    return voices


def main() -> None:
    """Speak what stands on stdin."""
    wish = json.load(sys.stdin)
    if (found := _library()) is None:
        _answer({"error": MISSING})
        return
    library, data_path = found
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path, 0)
    if rate_hz <= 0:
        _answer({"error": MISSING})
        return
    # (1) the language, and a variant of the voice
    files = {voice.languages[1:].decode(): voice.identifier.decode() for voice in _listed(library)}
    language = wish["language"].lower()
    if not any(each == language or each.startswith(language + "-") for each in files):
        _answer({"error": UNKNOWN, "known": sorted(files)})
        return
    variants = {
        voice.identifier.decode().removeprefix("!v/") for voice in _listed(library, _Voice(languages=b"variant"))
    }
    if wish["voice"] and wish["voice"] not in variants:
        _answer({"error": UNKNOWN, "known": sorted(variants)})
        return
    variant = f"+{wish['voice']}" if wish["voice"] else ""
    names = [name + variant for name in (language, files.get(language, language))]  # "en" is a name, "en-gb" is not
    if all(library.espeak_SetVoiceByName(name.encode()) != _OK for name in names):
        _answer({"error": UNKNOWN, "known": sorted(files)})
        return
    # (2) the samples, as they come
    pieces: list[bytes] = []

    def take(samples: Any, num_samples: int, _events: Any) -> int:
        if samples and num_samples > 0:
            pieces.append(ctypes.string_at(samples, 2 * num_samples))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(take)
    library.espeak_SetSynthCallback(callback)
    text = wish["text"].encode() + b"\0"
    spoken = library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, _BY_CHARACTER, 0, _UTF8, None, None)
    if spoken != _OK or library.espeak_Synchronize() != _OK:
        _answer({"error": FAILED})
        return
    library.espeak_Info.restype = ctypes.c_char_p
    version = library.espeak_Info(None).decode().split()[0]
    _answer({"engine": f"eSpeak NG {version}", "rate_hz": rate_hz}, b"".join(pieces))


def _answer(header: dict[str, Any], samples: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + samples)


if __name__ == "__main__":
    main()
