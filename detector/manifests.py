"""A manifest store as a tree that people can read: who says what was done, and what it was made from.

Everything in it is the signer's word, shortened; how far the word can be believed is the state of the layer.
"""

from __future__ import annotations

from typing import Any, Final

from watermark.credentials import CredentialReading

MAX_NODES: Final = 40
MAX_DEPTH: Final = 8
_MAX_CHARS: Final = 200
_MAX_ACTIONS: Final = 20


def manifest_tree(reading: CredentialReading) -> dict[str, Any] | None:
    """The active manifest with its ingredients and theirs, at most `MAX_NODES` manifests, `MAX_DEPTH` deep.

    Returns: None where there is no manifest; else `label`, `title`, `generator`, `signer`, `signed_at`, `actions` and
        `ingredients`, each of these with `title`, `relationship` and the `manifest` behind it, if there is one.
        `is_cut` says that something was left out.
    """
    if reading.manifest is None or reading.manifest_id is None:
        return None
    return _Tree(reading.manifests or {reading.manifest_id: reading.manifest}).node(reading.manifest_id, 1)


class _Tree:
    def __init__(self, manifests: dict[str, Any]) -> None:
        self._manifests = manifests
        self._num_nodes = 0

    def node(self, label: str, depth: int) -> dict[str, Any] | None:
        manifest = self._manifests.get(label)
        if not isinstance(manifest, dict):
            return None
        if depth > MAX_DEPTH or self._num_nodes >= MAX_NODES:
            return {"label": _text(label), "is_cut": True}
        self._num_nodes += 1
        signature = _mapping(manifest.get("signature_info"))
        signer = [_text(signature[part]) for part in ("common_name", "issuer") if signature.get(part)]
        return {
            "label": _text(label),
            "title": _text(manifest.get("title")),
            "generator": _generator(manifest),
            "signer": ", ".join(signer),
            "signed_at": _text(signature.get("time")),
            "actions": _actions(manifest),
            "ingredients": [self._ingredient(each, depth) for each in _dicts(manifest.get("ingredients"))[:MAX_NODES]],
            "is_cut": False,
        }

    def _ingredient(self, ingredient: dict[str, Any], depth: int) -> dict[str, Any]:
        label = ingredient.get("active_manifest")
        return {
            "title": _text(ingredient.get("title")),
            "relationship": _text(ingredient.get("relationship")),
            "manifest": self.node(label, depth + 1) if isinstance(label, str) else None,
        }


def _generator(manifest: dict[str, Any]) -> str:
    for info in _dicts(manifest.get("claim_generator_info")):
        return f"{_text(info.get('name'))} {_text(info.get('version'))}".strip()
    return _text(manifest.get("claim_generator"))


def _actions(manifest: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for assertion in _dicts(manifest.get("assertions")):
        if str(assertion.get("label")).startswith("c2pa.actions"):
            for action in _dicts(_mapping(assertion.get("data")).get("actions")):
                source = _text(action.get("digitalSourceType")).rsplit("/", 1)[-1]
                found.append({"action": _text(action.get("action")), "source_type": source})
    return found[:_MAX_ACTIONS]


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """A string in one line, shortened."""
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
