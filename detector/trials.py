"""What the detector is put through besides the ordinary journey: each trial asks one question of clips of both classes.

The attacks are those that marks are judged by, `watermark.attacks`; of each, what arrives is coded. Training knows
H.264 and HEVC; VP9 and AV1 are never seen by it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from watermark.attacks import Attack, av1, blur, chain, h264, none, resize, screen_recording, vp9


class Trial(NamedTuple):
    """One trial.

    Attributes:
        attack: what happens to the delivery.
        is_marked: whether the delivery carries a mark; None leaves it to chance.
    """

    attack: Attack
    is_marked: bool | None = None


AS_DELIVERED: Final = "as delivered"
WITH_MARK: Final = "as delivered, with a mark"
WITHOUT_MARK: Final = "as delivered, mark removed or never there"

ATTACKS: Final[dict[str, Attack]] = {
    "H.264 CRF 35": h264(35),
    "resize 50 % + CRF 23": chain(resize(0.5), h264(23)),
    "blur σ 2 + CRF 23": chain(blur(2), h264(23)),
    "screen recording": screen_recording(),
    "VP9 CRF 36 (codec unseen)": vp9(36),
    "AV1 CRF 36 (codec unseen)": av1(36),
}
"""What anybody's clips are put through by `placet evaluate detector --attacks`."""

TRIALS: Final[dict[str, Trial]] = {
    WITH_MARK: Trial(none(), True),
    WITHOUT_MARK: Trial(none(), False),
    **{name: Trial(attack) for name, attack in ATTACKS.items()},
}
"""What a training's test split is put through, besides the journey that all of its examples take."""
