"""The tile: what its writer sees of a picture is what its reader sees, and its fields are orthonormal."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from watermark.carriers import TileCarriers
from watermark.payload import MarkId
from watermark.tile import TileWriter, _look, normalised


@pytest.mark.parametrize(("height", "width", "side"), [(256, 256, 64), (144, 180, 36), (61, 130, 56)])
def test_the_writer_sees_the_fine_structure_that_the_reader_sees(height: int, width: int, side: int) -> None:
    luma_hw = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    luma_hw[:, : width // 2] = cv2.GaussianBlur(luma_hw, (0, 0), 2.0)[:, : width // 2]
    mask_hw = np.empty(luma_hw.shape, np.float32)
    folded_nn, heard = _look(luma_hw, side, mask_hw)
    fine_hw, spread_hw = normalised(luma_hw.astype(np.float32))
    whole = np.pad(fine_hw, ((0, -height % side), (0, -width % side))).reshape(-(-height // side), side, -1, side)
    np.testing.assert_allclose(folded_nn, whole.sum(axis=(0, 2)), atol=2e-3)
    assert mask_hw.min() >= 1.0 and heard > 0
    assert mask_hw[:, : width // 2].mean() < mask_hw[:, width // 2 :].mean(), "texture hides more"
    strong = np.clip(1 + 0.1 * cv2.blur(spread_hw, (5, 5)), 1, 3)
    mid_grey = (luma_hw >= 60) & (luma_hw <= 160)
    np.testing.assert_allclose(mask_hw[mid_grey], strong[mid_grey], rtol=1e-3)


@pytest.mark.parametrize("side", [64, 112, 128])
def test_the_fields_are_orthonormal_on_every_tile(side: int, key: bytes) -> None:
    carriers = TileCarriers.of_key(key)
    fields = np.stack([carriers.field(row, side) for row in np.eye(211, dtype=np.float32)[:12]]).reshape(12, -1)
    np.testing.assert_allclose(fields @ fields.T / side**2, np.eye(12), atol=1e-4)
    weights_K = carriers.weights(MarkId(7))
    heard_K = carriers.coefficients_KD @ carriers.freedoms(carriers.field(weights_K, side))
    np.testing.assert_allclose(heard_K, weights_K, atol=1e-4)


def test_what_leans_the_right_way_already_gets_less(key: bytes) -> None:
    writer = TileWriter(key, MarkId(7), 256, 256)
    carriers, weights_K = TileCarriers.of_key(key), TileCarriers.of_key(key).weights(MarkId(7))
    leaning_K = np.where(np.arange(211) < 105, weights_K, -weights_K)  # one half the right way, one half the wrong way
    host_HW = np.tile(6.0 * carriers.field(leaning_K, writer.side_px), (2, 2))
    tile_nn, _ = writer.tile_and_mask(np.clip(128 + host_HW, 0, 255).astype(np.uint8))
    sent_K = carriers.coefficients_KD @ carriers.freedoms(tile_nn) / weights_K
    assert 0 < sent_K[1:105].max() < sent_K[105:].min()
