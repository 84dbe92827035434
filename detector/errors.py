"""What can go wrong while media are examined or a detector is trained: every exception of this package.

The tree, with the stable `code` of each leaf::

    DetectorError                     detector
    ├── WeightsError                  detector.weights        file missing, damaged, or made for another version
    ├── BackboneError                 detector.backbone       the ImageNet weights are missing or changed
    ├── PictureError                  detector.picture
    │   ├── EmptyPictureError         detector.picture_empty       zero bytes
    │   ├── NotAPictureError          detector.picture_unsupported no picture format that is read here
    │   ├── PictureTooLargeError      detector.picture_too_large   refused from the header, before any pixel is decoded
    │   └── UnreadablePictureError    detector.picture_unreadable  damaged or truncated
    └── CorpusError                   detector.corpus
        ├── EmptyCorpusError          detector.corpus_empty        nothing of a class that is needed
        └── LeakyCorpusError          detector.corpus_leaky        one identity on both sides of a split

What keeps the detector from an opinion (no face, too few frames, …) is no error: it is an *abstention*, and part of the
report. Codes are part of the HTTP interface: add new ones, never rename one.
"""

from __future__ import annotations

from typing import ClassVar


class DetectorError(Exception):
    """Base of every error this package raises on purpose; `code` is stable, `str(error)` is a sentence for people."""

    code: ClassVar[str] = "detector"
    http_status: ClassVar[int] = 422


class WeightsError(DetectorError):
    """The weights file is missing, damaged, or does not fit this version of the code."""

    code = "detector.weights"
    http_status = 500


class BackboneError(DetectorError):
    """The package that carries the ImageNet weights is missing, or carries others than this detector was made with."""

    code = "detector.backbone"
    http_status = 500


class PictureError(DetectorError):
    """The picture cannot be examined as it stands."""

    code = "detector.picture"


class EmptyPictureError(PictureError):
    """There are no bytes."""

    code = "detector.picture_empty"


class NotAPictureError(PictureError):
    """The bytes are in no picture format that is read here."""

    code = "detector.picture_unsupported"
    http_status = 415


class PictureTooLargeError(PictureError):
    """More bytes or pixels than are decoded here.

    Attributes:
        quantity: what was counted, in words ("bytes", "pixels").
        actual: the count found.
        limit: the largest count that is accepted.
    """

    code = "detector.picture_too_large"
    http_status = 413

    def __init__(self, quantity: str, actual: int, limit: int) -> None:
        super().__init__(f"The picture has {actual} {quantity}; at most {limit} are accepted. Send a smaller one.")
        self.quantity = quantity
        self.actual = actual
        self.limit = limit


class UnreadablePictureError(PictureError):
    """A picture by its header, but truncated or damaged."""

    code = "detector.picture_unreadable"


class CorpusError(DetectorError):
    """The material for training or evaluation is not fit for it."""

    code = "detector.corpus"


class EmptyCorpusError(CorpusError):
    """A class or a split has no item at all."""

    code = "detector.corpus_empty"


class LeakyCorpusError(CorpusError):
    """The same identity is on both sides of a split, so that the figures would be worthless.

    Attributes:
        identities: the names found on both sides.
    """

    code = "detector.corpus_leaky"

    def __init__(self, identities: frozenset[str]) -> None:
        named = ", ".join(sorted(identities)[:5])
        super().__init__(f"{len(identities)} identities are in more than one split ({named}, …); split by identity.")
        self.identities = identities
