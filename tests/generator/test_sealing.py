"""Weights at rest: sealed for one instance, opened in one place, and every damage named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from generator.errors import WeightsError
from generator.sealed import read_weights, use_source, write_weights
from generator.sealing import (
    SealedWeights,
    check_sealed,
    rewrap_data_keys,
    seal_weights,
    unwrap_data_keys,
)
from policy.errors import UnwrapError
from policy.keyfiles import FileKeyService

PLAIN = {"motion.safetensors": b"motion" * 500, "head.safetensors": b"head" * 300}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, data in PLAIN.items():
        write_weights(tmp_path / "packaged" / name, data)
    return tmp_path / "packaged"


@pytest.fixture
def keys(tmp_path: Path) -> FileKeyService:
    return FileKeyService.create(tmp_path / "keys")


@pytest.fixture
def folder(tmp_path: Path, source: Path, keys: FileKeyService) -> Path:
    made = seal_weights(keys, tmp_path / "sealed", source)
    assert [each.name for each in made] == sorted(PLAIN)
    return tmp_path / "sealed"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_sealed_opens(folder: Path, source: Path, keys: FileKeyService) -> None:
    weights = SealedWeights(folder, unwrap_data_keys(keys, folder))
    for name, plain in PLAIN.items():
        assert weights.read(name, sha256(plain)) == plain
        assert plain not in (folder / f"{name}.sealed").read_bytes()
    assert check_sealed(keys, folder, source) == dict.fromkeys(sorted(PLAIN), "")
    assert not any(key in repr(weights) for key in map(str, weights.data_keys.values()))


def test_every_kind_of_damage_is_named(folder: Path, source: Path, keys: FileKeyService) -> None:
    """Any flipped byte, any length, the file of another name: a sentence with file, hash and what to do."""
    name, plain = "head.safetensors", PLAIN["head.safetensors"]
    path = folder / f"{name}.sealed"
    good = path.read_bytes()
    weights = SealedWeights(folder, unwrap_data_keys(keys, folder))
    damaged = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 7)]
    damaged += [good[:length] for length in (0, 1, 40, len(good) // 2, len(good) - 1)] + [good + b"x"]
    damaged += [(folder / "motion.safetensors.sealed").read_bytes(), b"[" * 4000, b"{}\n", plain]
    for each in damaged:
        path.write_bytes(each)
        with pytest.raises(WeightsError) as caught:
            weights.read(name, sha256(plain))
        sentence = str(caught.value)
        assert str(path) in sentence and sha256(plain) in sentence and "placet models seal" in sentence
        assert check_sealed(keys, folder, source)[name]
    path.unlink()
    with pytest.raises(WeightsError, match=r"cannot be read"):
        weights.read(name, sha256(plain))


def test_another_version(folder: Path, keys: FileKeyService) -> None:
    weights = SealedWeights(folder, unwrap_data_keys(keys, folder))
    with pytest.raises(WeightsError, match="another version"):
        weights.read("head.safetensors", sha256(b"newer"))


def test_another_instance(folder: Path, source: Path, tmp_path: Path) -> None:
    stranger = FileKeyService.create(tmp_path / "stranger")
    with pytest.raises(WeightsError, match="this instance's keys"):
        unwrap_data_keys(stranger, folder)
    assert all(check_sealed(stranger, folder, source).values())
    with pytest.raises(WeightsError, match="There is no key"):
        SealedWeights(folder, {}).read("head.safetensors", sha256(PLAIN["head.safetensors"]))


def test_nothing_sealed(tmp_path: Path, source: Path, keys: FileKeyService) -> None:
    with pytest.raises(WeightsError, match="placet models seal"):
        unwrap_data_keys(keys, tmp_path / "nothing")
    assert rewrap_data_keys(keys, tmp_path / "nothing") == 0
    for damage in (b"", b"[]", b'{"head.safetensors": 5}', b'{"head.safetensors": "?"}'):
        (tmp_path / "nothing").mkdir(exist_ok=True)
        (tmp_path / "nothing" / "keys.json").write_bytes(damage)
        assert all(check_sealed(keys, tmp_path / "nothing", source).values())


def test_a_rotation_leaves_the_large_files_alone(folder: Path, source: Path, keys: FileKeyService) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("*.sealed")}
    old = json.loads((folder / "keys.json").read_bytes())
    keys.rotate("weights-wrap")
    assert rewrap_data_keys(keys, folder) == len(PLAIN)
    keys.forget("weights-wrap")
    assert check_sealed(keys, folder, source) == dict.fromkeys(sorted(PLAIN), "")
    assert {path.name: path.read_bytes() for path in folder.glob("*.sealed")} == before
    (folder / "keys.json").write_text(json.dumps(old))
    with pytest.raises(WeightsError) as caught:
        unwrap_data_keys(keys, folder)
    assert isinstance(caught.value.__cause__, UnwrapError)


@pytest.fixture
def unset() -> Iterator[None]:
    yield
    use_source(None)


@pytest.mark.usefixtures("unset")
def test_a_worker_reads_nothing_but_what_is_sealed(tmp_path: Path, keys: FileKeyService) -> None:
    """The real weights of the package, through the same door as the models."""
    sealed = tmp_path / "real"
    seal_weights(keys, sealed)
    packaged = read_weights("motion.safetensors", "placet train motion")
    use_source(SealedWeights(sealed, unwrap_data_keys(keys, sealed)))
    assert read_weights("motion.safetensors", "placet train motion") == packaged
    (sealed / "motion.safetensors.sealed").unlink()
    with pytest.raises(WeightsError, match="placet models seal"):
        read_weights("motion.safetensors", "placet train motion")
