"""Every policy text that ever decided anything, under the hash that decisions carry: any of them can be replayed.

    policies/<policy_sha256>/     placet.cedarschema, placet.cedar: byte for byte as they stood

Content-addressed: a text that was changed no longer has its name, and is refused. Nothing here is ever overwritten.
"""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from policy.canonical import canonical_json, sha256_hex
from policy.decision import POLICY_FILE, SCHEMA_FILE, PolicyEngine
from policy.errors import ArchiveError, PolicySetError
from policy.files import fsync_directory, write_atomically

_SHA256 = re.compile(r"[0-9a-f]{64}")
_RULE_ID = re.compile(r'^@id\("(?P<id>[^"]+)"\)', re.MULTILINE)
_CONTEXT_LINES: Final = 3


@dataclass(frozen=True)
class PolicyTexts:
    """The schema and the policies behind one hash."""

    policy_sha256: str
    schema_text: str
    policy_text: str

    def rule(self, code: str) -> str | None:
        """The text of the rule with this @id, as it stood; None where there is none."""
        return rules_of(self.policy_text).get(code)


@dataclass(frozen=True)
class PolicyDiff:
    """What changed between two policy sets.

    Args:
        added, removed, changed: ids of rules, in the order of the newer file (removed: of the older).
        schema, policies: unified diffs, empty where nothing changed.
    """

    old_sha256: str
    new_sha256: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    schema: tuple[str, ...] = field(repr=False)
    policies: tuple[str, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


class PolicyArchive:
    """The archive in one directory. Safe for several threads and processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._engines: dict[str, PolicyEngine] = {}
        self._lock = threading.Lock()

    def keep(self, engine: PolicyEngine) -> str:
        """Put the texts of an engine on disk, durably, unless they are there. Returns their hash.

        Raises: ArchiveError: they cannot be written.
        """
        place = self.directory / engine.policy_sha256
        if not place.is_dir():
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.directory))
                try:
                    write_atomically(draft / SCHEMA_FILE, engine.schema_text.encode())
                    write_atomically(draft / POLICY_FILE, engine.policy_text.encode())
                    draft.chmod(0o755)
                    if not place.is_dir():
                        draft.rename(place)
                        fsync_directory(self.directory)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
            except OSError as exc:
                if not place.is_dir():  # another process may have been faster
                    raise ArchiveError(f"The policies cannot be archived ({exc.strerror}).") from exc
        return engine.policy_sha256

    def known(self) -> tuple[str, ...]:
        """Every hash that is kept."""
        if not self.directory.is_dir():
            return ()
        return tuple(sorted(path.name for path in self.directory.iterdir() if _SHA256.fullmatch(path.name)))

    def named(self, prefix: str) -> str:
        """The one hash that begins with `prefix`. Raises: ArchiveError: none or several do."""
        found = [name for name in self.known() if name.startswith(prefix)]
        if len(found) != 1:
            raise ArchiveError(f"{len(found)} policy hashes that are kept begin with these digits; give more of them.")
        return found[0]

    def texts(self, policy_sha256: str) -> PolicyTexts:
        """The texts behind a hash. Raises: ArchiveError: not kept, or changed since."""
        if not _SHA256.fullmatch(policy_sha256):
            raise ArchiveError("A policy hash is 64 lower-case hexadecimal digits.")
        place = self.directory / policy_sha256
        try:
            schema = (place / SCHEMA_FILE).read_bytes()
            policies = (place / POLICY_FILE).read_bytes()
        except OSError as exc:
            raise ArchiveError("The policies of that hash are not kept here.") from exc
        sums = {"policies": sha256_hex(policies), "schema": sha256_hex(schema)}
        if sha256_hex(canonical_json(sums)) != policy_sha256:
            raise ArchiveError("The archived policies were changed; restore them from the backup.")
        return PolicyTexts(policy_sha256, schema.decode("utf-8", "replace"), policies.decode("utf-8", "replace"))

    def engine(self, policy_sha256: str) -> PolicyEngine:
        """An engine that decides as it was decided under that hash. Raises: ArchiveError."""
        with self._lock:
            if policy_sha256 not in self._engines:
                texts = self.texts(policy_sha256)
                try:
                    self._engines[policy_sha256] = PolicyEngine(
                        texts.schema_text, texts.policy_text, required=frozenset()
                    )
                except PolicySetError as exc:
                    raise ArchiveError(f"The archived policies cannot be used by this version. {exc.sentence}") from exc
            return self._engines[policy_sha256]

    def diff(self, old_sha256: str, new_sha256: str) -> PolicyDiff:
        """What changed between two hashes. Raises: ArchiveError."""
        return diff_texts(self.texts(old_sha256), self.texts(new_sha256))


def diff_texts(old: PolicyTexts, new: PolicyTexts) -> PolicyDiff:
    """What changed between two policy sets: which rules, and every line."""
    before, after = rules_of(old.policy_text), rules_of(new.policy_text)
    return PolicyDiff(
        old_sha256=old.policy_sha256,
        new_sha256=new.policy_sha256,
        added=tuple(code for code in after if code not in before),
        removed=tuple(code for code in before if code not in after),
        changed=tuple(code for code in after if code in before and after[code] != before[code]),
        schema=_lines(SCHEMA_FILE, old.schema_text, new.schema_text),
        policies=_lines(POLICY_FILE, old.policy_text, new.policy_text),
    )


def rules_of(policy_text: str) -> dict[str, str]:
    """Each rule under its @id, from the annotation to the semicolon that ends it, in the order of the file."""
    starts = list(_RULE_ID.finditer(policy_text))
    ends = [match.start() for match in starts[1:]] + [len(policy_text)]
    rules = {}
    for match, end in zip(starts, ends, strict=True):
        block = policy_text[match.start() : end]
        last = block.rfind(";")
        rules[match["id"]] = block[: last + 1] if last >= 0 else block.rstrip()
    return rules


def _lines(name: str, old: str, new: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"old/{name}", f"new/{name}", lineterm="", n=_CONTEXT_LINES
    )
    return tuple(lines)
