"""A hook for lists of hashes: somebody else's word on whether a file may be looked at. Where it does not answer, no.

The setting `detection_hook` names a function, `package.module:function`. It gets the SHA-256 of a file before anything
of it is decoded, and once more, with the perceptual hashes of its pictures, before any layer looks. It returns nothing
to let the file pass, or a code of its own (a word) for why not. An exception, or no answer in time, is a no as well.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
from collections.abc import Callable
from typing import Final

from api.errors import ApiError, EngineError, InvalidFieldError

logger = logging.getLogger("placet.hook")

Hook = Callable[[str, tuple[int, ...]], str | None]
"""SHA-256 in hex and perceptual hashes (64 bits each, perhaps none) to a code or None."""

WAIT_S: Final = 5.0
_CODE = re.compile(r"[a-z0-9_.-]{1,64}")


class BlockedError(ApiError):
    """The operator's list says that this file is not looked at."""

    code = "access.blocked"

    def __init__(self, list_code: str) -> None:
        super().__init__("This file is on a list of files that are not examined here.", extras={"list_code": list_code})


class HookSilentError(EngineError):
    """The hook broke or did not answer, so nothing is looked at."""

    code = "engine.hook"

    def __init__(self) -> None:
        super().__init__(
            "The list of blocked files cannot be asked, so nothing is examined: try again shortly.",
            headers={"Retry-After": "30"},
        )


class HashHook:
    """The operator's hook, with a watch on it.

    Args:
        function: the hook; None lets everything pass.
        wait_s: how long it may take.
    """

    def __init__(self, function: Hook | None, *, wait_s: float = WAIT_S) -> None:
        self._function = function
        self._wait_s = wait_s

    @classmethod
    def named(cls, name: str) -> HashHook:
        """The hook behind `package.module:function`; none for the empty name. Raises: InvalidFieldError."""
        if not name:
            return cls(None)
        module, _, function = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as exc:
            raise InvalidFieldError(
                f"The setting detection_hook names “{name}”, which cannot be imported: write package.module:function."
            ) from exc
        return cls(found)

    def check(self, sha256: str, likeness: tuple[int, ...] = ()) -> None:
        """Raises: BlockedError, HookSilentError."""
        if self._function is None:
            return
        function, answers = self._function, list[str | None]()
        failed = threading.Event()

        def ask() -> None:
            try:
                answers.append(function(sha256, likeness))
            except Exception:
                logger.exception("the hook of the detections failed")
                failed.set()

        asking = threading.Thread(target=ask, name="detection-hook", daemon=True)
        asking.start()
        asking.join(self._wait_s)
        if failed.is_set() or not answers:
            raise HookSilentError
        if answers[0] is not None:
            code = str(answers[0])
            raise BlockedError(code if _CODE.fullmatch(code) else "listed")
