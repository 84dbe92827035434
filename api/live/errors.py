"""Why a live session refuses something, or ends. Every reason has a name of its own, on the wire and in the log.

ApiError
└── StreamError            stream
    ├── TicketError            stream.ticket          unknown, used or too old: a ticket opens one session, once
    ├── OpeningError           stream.opening         the first message did not come, or is none
    ├── TakenOverError         stream.taken_over      the client came back on another connection
    ├── ResumeError            stream.resume          the place to go on from is not kept any more
    ├── MessageError           stream.message         a message in no form that is known here
    ├── ChunkError             stream.chunk           a sound chunk of a size that cannot be
    ├── FastError              stream.too_fast        more sound than time goes by; the excess is dropped
    ├── ControlFloodError      stream.control_flood   more control changes than are taken
    ├── IdleError              stream.idle            no sound for long
    ├── SilenceError           stream.silent          nothing but silence for long
    ├── SlowReaderError        stream.slow_reader     segments are not taken as fast as they are made
    ├── GoneError              stream.gone            the connection was lost, and nobody came back in time
    ├── TimeOverError          stream.time_over       the time that was permitted is over
    └── StalledError           stream.stalled         the worker makes nothing any more
"""

from __future__ import annotations

from api.errors import ApiError


class StreamError(ApiError):
    """Base of what a live session refuses or ends with."""

    code = "stream"


class TicketError(StreamError):
    """The ticket opens nothing."""

    code = "stream.ticket"


class OpeningError(StreamError):
    """The connection did not begin with a message that opens or resumes a session."""

    code = "stream.opening"


class TakenOverError(StreamError):
    """Another connection goes on with this session."""

    code = "stream.taken_over"


class ResumeError(StreamError):
    """What the client has not seen is not kept any more."""

    code = "stream.resume"


class MessageError(StreamError):
    """Not a message that a client may send."""

    code = "stream.message"


class ChunkError(StreamError):
    """A sound chunk of a size that cannot be."""

    code = "stream.chunk"


class FastError(StreamError):
    """More sound came in than time went by."""

    code = "stream.too_fast"


class ControlFloodError(StreamError):
    """More control changes than are taken."""

    code = "stream.control_flood"


class IdleError(StreamError):
    """No sound came for long."""

    code = "stream.idle"


class SilenceError(StreamError):
    """Nothing but silence came for long."""

    code = "stream.silent"


class SlowReaderError(StreamError):
    """The client takes segments slower than they are made."""

    code = "stream.slow_reader"


class GoneError(StreamError):
    """The connection was lost, and nobody came back in time."""

    code = "stream.gone"


class TimeOverError(StreamError):
    """The time that was permitted is over."""

    code = "stream.time_over"


class StalledError(StreamError):
    """The worker makes nothing any more."""

    code = "stream.stalled"


def named(code: str, sentence: str) -> ApiError:
    """An error of another package, by its code."""
    error = ApiError(sentence)
    error.code = code
    return error


def as_api_error(error: BaseException) -> ApiError:
    """Whatever went wrong, with a code; what is no error of ours becomes `internal`."""
    if isinstance(error, ApiError):
        return error
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return named(code, str(error))
    return named("internal", "Something went wrong on our side.")
