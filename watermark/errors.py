"""Everything that can go wrong while media are read, marked, signed or verified: one tree, one stable code each."""

from __future__ import annotations

from typing import ClassVar


class WatermarkError(Exception):
    """Base of all errors of this package. `str(error)` is a sentence that says what to do; `code` never changes.

    The tree::

        WatermarkError                     watermark
        ├── MediaError                     media
        │   ├── EmptyInputError            media.empty             zero bytes, or a track without a sample
        │   ├── InputTooLargeError         media.too_large         bytes, pixels, frames or channels over the limit
        │   │   └── InputTooLongError      media.too_long          duration over the limit
        │   ├── UnsupportedMediaError      media.unsupported       not a container or codec that is read here
        │   ├── UnreadableMediaError       media.unreadable        damaged or truncated
        │   ├── NoVideoTrackError          media.no_video_track
        │   ├── NoAudioTrackError          media.no_audio_track
        │   ├── SilentSoundError           media.silent            nothing is said
        │   └── EncodingError              media.encoding          the output could not be written
        ├── MarkError                      mark
        │   ├── InvalidMarkIdError         mark.invalid_id         not 16 hexadecimal digits
        │   ├── InvalidMarkKeyError        mark.invalid_key        not 32 bytes
        │   ├── FrameTooSmallError         mark.frame_too_small
        │   ├── InconsistentFramesError    mark.inconsistent_frames  size changes within one clip
        │   └── EmptyOutputError           mark.empty_output       the renderer gave no frame
        └── CredentialError                credentials
            ├── AuthorityError             credentials.authority   PKI files missing, damaged or not matching
            ├── SigningError               credentials.signing     no valid signature could be made; nothing delivered
            │   └── TimeStampError         credentials.time_stamp  the time-stamp authority gave no valid stamp
            ├── LiveError                  live                    a live stream does not verify
            │   ├── InitSegmentError       live.init               manifest, session key or its binding is not valid
            │   ├── UnsignedSegmentError   live.unsigned           no segment info, or more than one
            │   ├── SegmentSignatureError  live.signature          not signed by the session key
            │   ├── SegmentTamperedError   live.tampered           another content than was signed
            │   ├── ForeignSegmentError    live.foreign            signed, but for another stream
            │   ├── SegmentReplayedError   live.replayed           seen before
            │   ├── SegmentReorderedError  live.reordered          comes after a later one
            │   ├── SegmentGapError        live.gap                one before it is missing
            │   ├── SessionExpiredError    live.session_expired    signed outside the session key's time
            │   ├── StreamEndedError       live.ended              comes after the signed end
            │   └── StreamTruncatedError   live.truncated          there is no signed end
            ├── InvalidManifestSpecError   credentials.invalid_spec
            └── InvalidSoftBindingError    softbinding             a query that names no mark of ours
    """

    code: ClassVar[str] = "watermark"


class MediaError(WatermarkError):
    """Base of what can be wrong with a sound or a clip that somebody handed in."""

    code: ClassVar[str] = "media"


class EmptyInputError(MediaError):
    """There are no bytes, or the track that counts holds no sample."""

    code: ClassVar[str] = "media.empty"


class InputTooLargeError(MediaError):
    """A byte, pixel, frame or channel limit is exceeded.

    Attributes:
        quantity: what was counted, in words ("bytes", "pixels per frame").
        actual: the count found, as far as counted.
        limit: the largest count that is accepted.
    """

    code: ClassVar[str] = "media.too_large"

    def __init__(self, quantity: str, actual: float, limit: float) -> None:
        self.quantity, self.actual, self.limit = quantity, actual, limit
        super().__init__(
            f"The input has {actual:.15g} {quantity}; at most {limit:.15g} are accepted. Send a smaller file."
        )


class InputTooLongError(InputTooLargeError):
    """The duration limit is exceeded; `actual` and `limit` are seconds."""

    code: ClassVar[str] = "media.too_long"

    def __init__(self, actual_s: float, limit_s: float) -> None:
        super().__init__("seconds", round(actual_s, 1), limit_s)
        self.args = (f"The input lasts {actual_s:.0f} s; at most {limit_s:g} s are accepted. Send a shorter excerpt.",)


class UnsupportedMediaError(MediaError):
    """The bytes are not of a kind that is read here."""

    code: ClassVar[str] = "media.unsupported"


class UnreadableMediaError(MediaError):
    """The bytes claim to be media, but cannot be decoded to their end."""

    code: ClassVar[str] = "media.unreadable"


class NoVideoTrackError(MediaError):
    """The container holds no moving picture."""

    code: ClassVar[str] = "media.no_video_track"


class NoAudioTrackError(MediaError):
    """The container holds no sound."""

    code: ClassVar[str] = "media.no_audio_track"


class SilentSoundError(MediaError):
    """The sound is digital silence, or so faint that no speech can be in it."""

    code: ClassVar[str] = "media.silent"


class EncodingError(MediaError):
    """The encoder refused, or the output could not be written."""

    code: ClassVar[str] = "media.encoding"


class MarkError(WatermarkError):
    """Base of what can go wrong with the invisible mark itself."""

    code: ClassVar[str] = "mark"


class InvalidMarkIdError(MarkError):
    """A mark id is 64 bits, written as 16 lower-case hexadecimal digits."""

    code: ClassVar[str] = "mark.invalid_id"


class InvalidMarkKeyError(MarkError):
    """A mark key is 32 secret bytes."""

    code: ClassVar[str] = "mark.invalid_key"


class FrameTooSmallError(MarkError):
    """The frame has too few pixels to hide 64 bits out of sight."""

    code: ClassVar[str] = "mark.frame_too_small"


class InconsistentFramesError(MarkError):
    """The frames of one clip differ in size."""

    code: ClassVar[str] = "mark.inconsistent_frames"


class EmptyOutputError(MarkError):
    """The renderer ended without a single frame."""

    code: ClassVar[str] = "mark.empty_output"


class CredentialError(WatermarkError):
    """Base of what can go wrong with C2PA manifests and the keys behind them."""

    code: ClassVar[str] = "credentials"


class AuthorityError(CredentialError):
    """The files of the signing authority are missing, damaged, unsafe, or do not belong together."""

    code: ClassVar[str] = "credentials.authority"


class SigningError(CredentialError):
    """No manifest that verifies could be made (expired certificate, failing key): nothing was delivered."""

    code: ClassVar[str] = "credentials.signing"


class TimeStampError(SigningError):
    """The time-stamp authority did not answer, or not with a valid stamp: nothing was delivered."""

    code: ClassVar[str] = "credentials.time_stamp"


class LiveError(CredentialError):
    """Base of what is wrong with a live stream."""

    code: ClassVar[str] = "live"


class InitSegmentError(LiveError):
    """The init segment's manifest, its session key or the binding of the two is not valid."""

    code: ClassVar[str] = "live.init"


class UnsignedSegmentError(LiveError):
    """A segment carries no signed segment info, or more than one."""

    code: ClassVar[str] = "live.unsigned"


class SegmentSignatureError(LiveError):
    """A segment is not signed by the session key of the stream."""

    code: ClassVar[str] = "live.signature"


class SegmentTamperedError(LiveError):
    """A segment does not hold the bytes that were signed."""

    code: ClassVar[str] = "live.tampered"


class ForeignSegmentError(LiveError):
    """A segment is signed for another stream."""

    code: ClassVar[str] = "live.foreign"


class SegmentReplayedError(LiveError):
    """A segment was seen before."""

    code: ClassVar[str] = "live.replayed"


class SegmentReorderedError(LiveError):
    """A segment comes after one that was signed later."""

    code: ClassVar[str] = "live.reordered"


class SegmentGapError(LiveError):
    """A segment before this one is missing."""

    code: ClassVar[str] = "live.gap"


class SessionExpiredError(LiveError):
    """A segment was signed outside the time for which the session key was certified."""

    code: ClassVar[str] = "live.session_expired"


class StreamEndedError(LiveError):
    """A segment comes after the signed end of the stream."""

    code: ClassVar[str] = "live.ended"


class StreamTruncatedError(LiveError):
    """The stream stops without its signed end."""

    code: ClassVar[str] = "live.truncated"


class InvalidManifestSpecError(CredentialError):
    """The claim to be signed is incomplete or contradicts itself."""

    code: ClassVar[str] = "credentials.invalid_spec"


class InvalidSoftBindingError(CredentialError):
    """A query of the resolution API that cannot name a mark or a manifest of ours."""

    code: ClassVar[str] = "softbinding"
