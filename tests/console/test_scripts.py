"""The modules that check and sign in the browser, against the same things written in Python: no two may disagree."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from playwright.sync_api import Browser, Page

from api.console.pages import asset
from policy.canonical import canonical_json
from policy.merkle import consistency_path, inclusion_path, leaf_hash, node_hash, tree_root
from policy.note import sign_checkpoint, verifier_key
from tests.console.conftest import Site

pytestmark = pytest.mark.needs("chromium")

ORIGIN = "log.example"


class Modules:
    """Calls functions of our static modules inside a page of the site, under its Content-Security-Policy."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def call(self, module: str, body: str, argument: Any = None) -> Any:
        """The value of `body`, which sees the module as `it`, the bytes module as `b` and the argument as `x`.

        A thrown error comes back as `{"thrown": message}`.
        """
        return self.page.evaluate(
            f"""async (x) => {{
                const it = await import({json.dumps(asset(module))});
                const b = await import({json.dumps(asset("bytes.js"))});
                try {{ return await (async () => {{ {body} }})(); }}
                catch (error) {{ return {{thrown: error.message}}; }}
            }}""",
            argument,
        )


@pytest.fixture(scope="module")
def modules(site: Site, chromium: Browser) -> Iterator[Modules]:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(site.url)
    yield Modules(page)
    context.close()


def tree_of(leaves: list[bytes]) -> Any:
    """A reader of the complete subtrees over some leaves."""

    def read(level: int, index: int) -> bytes:
        hashes = [leaf_hash(leaf) for leaf in leaves[index << level : (index + 1) << level]]
        while len(hashes) > 1:
            hashes = [node_hash(*hashes[place : place + 2]) for place in range(0, len(hashes), 2)]
        return hashes[0]

    return read


def test_canonical_json_is_the_same_in_both_languages(modules: Modules) -> None:
    values = [
        {
            "€": "Euro Sign",
            "\r": "CR",
            "1": "One",
            "\U0001f600": "Emoji",
            "\u0080": "Control",
            "ö": "Latin",
        },
        {"numbers": [333333333.3333333, 1e30, 4.50, 2e-3, 1e-27, 0, -0.0, 1e21, 2**53 - 1], "z": None, "a": True},
        {
            "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/\u2028",
            "nested": {"b": [], "a": {}, "aa": [[1], {"x": ""}]},
        },
        "kiss \U0001f48b",
        [],
        -17,
    ]
    ours = [canonical_json(value).decode() for value in values]
    assert modules.call("canonical.js", "return x.map(it.canonical);", values) == ours


@pytest.mark.parametrize("source", ["2 ** 53", "NaN", "Infinity", "'\\ud800'", "undefined", "[1n]", "new Date(0)"])
def test_what_has_no_canonical_form_is_refused(modules: Modules, source: str) -> None:
    assert "thrown" in modules.call("canonical.js", f"return it.canonical({source});")


def test_inclusion_proofs_of_every_entry_verify_and_changed_ones_do_not(modules: Modules) -> None:
    chance = random.Random(9162)
    cases, spoilt = [], []
    for size in (1, 2, 3, 7, 8, 13, 33):
        leaves = [bytes([size, place]) for place in range(size)]
        read = tree_of(leaves)
        for index in range(size):
            path = [node.hex() for node in inclusion_path(index, size, read)]
            case = {
                "leaf": leaf_hash(leaves[index]).hex(),
                "index": index,
                "size": size,
                "path": path,
                "root": tree_root(size, read).hex(),
            }
            cases.append(case)
            spoilt += [{**case, "path": [*path, "00" * 32]}, {**case, "leaf": "11" * 32}, {**case, "root": "22" * 32}]
            if path:
                place = chance.randrange(len(path))
                changed = bytes.fromhex(path[place])
                flipped = bytes([changed[0] ^ 1 << chance.randrange(8)]) + changed[1:]
                spoilt += [
                    {**case, "path": [*path[:place], flipped.hex(), *path[place + 1 :]]},
                    {**case, "path": path[:-1]},
                    {**case, "index": (index + 1) % size},
                    {**case, "index": size},
                ]
    body = """
        const results = [];
        for (const {leaf, index, size, path, root} of x) {
            try {
                await it.verifyInclusion(b.fromHex(leaf), index, size, path.map(b.fromHex), b.fromHex(root));
                results.push(true);
            } catch (error) { results.push(error instanceof it.ProofError ? false : error.message); }
        }
        return results;"""
    assert modules.call("merkle.js", body, cases) == [True] * len(cases)
    assert modules.call("merkle.js", body, spoilt) == [False] * len(spoilt)


def test_consistency_proofs_verify_and_a_rewritten_log_does_not(modules: Modules) -> None:
    good, bad = [], []
    for new_size in range(1, 18):
        read = tree_of([bytes([place]) for place in range(new_size)])
        for old_size in range(1, new_size + 1):
            case = {
                "old": [old_size, tree_root(old_size, read).hex()],
                "new": [new_size, tree_root(new_size, read).hex()],
                "path": [node.hex() for node in consistency_path(old_size, new_size, read)],
            }
            good.append(case)
            bad.append({**case, "old": [old_size, "33" * 32]})
            bad.append({**case, "new": [new_size, "44" * 32]})
            bad.append({**case, "path": [*case["path"], "55" * 32]})
    body = """
        const results = [];
        for (const {old: [m, r], new: [n, s], path} of x) {
            try {
                await it.verifyConsistency(m, b.fromHex(r), n, b.fromHex(s), path.map(b.fromHex));
                results.push(true);
            } catch (error) { results.push(error instanceof it.ProofError ? false : error.message); }
        }
        return results;"""
    assert modules.call("merkle.js", body, good) == [True] * len(good)
    assert modules.call("merkle.js", body, bad) == [False] * len(bad)


def test_checkpoints_count_only_with_the_right_signature(modules: Modules) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    other = ed25519.Ed25519PrivateKey.generate()
    ours = verifier_key(ORIGIN, key.public_key())
    note = sign_checkpoint(ORIGIN, 42, bytes(range(32)), key)
    body = "const {origin, size, root} = await it.verifyCheckpoint(x.note, x.key); return [origin, size, b.hex(root)];"
    assert modules.call("note.js", body, {"note": note, "key": ours}) == [ORIGIN, 42, bytes(range(32)).hex()]
    spoilt = [
        {"note": note.replace("\n42\n", "\n43\n"), "key": ours},
        {"note": note, "key": verifier_key(ORIGIN, other.public_key())},
        {"note": sign_checkpoint(ORIGIN, 42, bytes(32), other), "key": ours},
        {"note": sign_checkpoint("other.example", 42, bytes(32), key), "key": ours},
        {"note": note.split("\n\n")[0] + "\n", "key": ours},
        {"note": note + "junk\n", "key": ours},
        {"note": note, "key": ours.replace("log.example", "log.exampel")},
        {"note": note, "key": ours[:-4]},
    ]
    for case in spoilt:
        assert "thrown" in modules.call("note.js", body, case), case


def test_the_browser_holds_the_log_to_what_it_has_seen(modules: Modules) -> None:
    key, new_key, rogue = (ed25519.Ed25519PrivateKey.generate() for _ in range(3))
    leaves = [bytes([place]) for place in range(12)]
    read = tree_of(leaves)

    def believe(size: int, *, signer: Any = key, announced: Any = key, since: int = 0, tree: Any = read) -> Any:
        note = sign_checkpoint(ORIGIN, size, tree_root(size, tree), signer)
        if signer is not announced:
            second = sign_checkpoint(ORIGIN, size, tree_root(size, tree), announced)
            note += second.split("\n\n")[1]
        path = [node.hex() for node in consistency_path(since, size, tree)] if 0 < since <= size else []
        case = {"note": note, "key": verifier_key(ORIGIN, announced.public_key()), "path": path}
        return modules.call(
            "log_memory.js",
            "const {size, isFirst, grewBy} = await it.believe(x.note, x.key, x.path); return [size, isFirst, grewBy];",
            case,
        )

    modules.page.evaluate("localStorage.clear()")
    assert believe(5) == [5, True, 0]
    assert believe(5, since=5) == [5, False, 0]
    assert believe(9, since=5) == [9, False, 4]
    rewritten = tree_of([b"changed", *leaves[1:]])
    assert "rewritten" in believe(12, since=9, tree=rewritten)["thrown"]
    assert "shorter" in believe(7, since=0)["thrown"]
    assert "not signed by the key" in believe(12, since=9, signer=rogue, announced=rogue)["thrown"]
    # a rotated key is believed because the old one signs the same checkpoint, and alone afterwards
    assert believe(10, since=9, announced=new_key) == [10, False, 1]
    assert believe(11, since=10, signer=new_key, announced=new_key) == [11, False, 1]
