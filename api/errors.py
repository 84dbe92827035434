"""Every error the service answers with, and the one table from error codes to HTTP status.

The tree of the errors that this package raises itself, with their stable codes::

    ApiError                               api
    ├── RequestError                       request.malformed              400
    │   ├── MissingFieldError              request.field_missing          400
    │   ├── UnknownFieldError              request.field_unknown          400
    │   ├── InvalidFieldError              request.field_invalid          400
    │   ├── BodyTooLargeError              request.too_large              413
    │   └── ContentTypeError               request.content_type           415
    ├── TokenError                         token.* (see api.oauth.resource)  401
    │   ├── ProofError                     token.proof_* (see api.oauth.dpop)    401
    │   └── ScopeError                     token.scope                    403
    ├── RateError                          rate.limited                   429
    ├── CodeError                          oauth.invalid_grant            400
    ├── AuthorizationError                 oauth.authorization            400
    ├── SessionError                       session (api.console.session)  403
    │   ├── SignInNeededError              session.missing                401
    │   ├── WrongRoleError                 session.role                   403
    │   └── StaleFormError                 session.form                   403
    ├── RefusedError                       render.refused                 403
    ├── NotOwnerError                      access.not_owner               403
    ├── NotFoundError                      not_found                      404
    ├── ConflictError                      conflict                       409
    ├── ChallengeError                     enrolment.challenge            409
    ├── BusyError                          service.busy                   503
    ├── IntakeError                        intake.*                       422
    ├── EngineError                        engine.*                       503
    ├── RemoteError                        (code of the error in the engine process)
    └── StorageError                       storage                        500
        ├── InstanceExistsError            storage.instance_exists
        ├── InstanceMissingError           storage.instance_missing
        ├── SchemaVersionError             storage.schema_version
        ├── StoreUnreachableError          storage.unreachable            503
        ├── BlobNameError                  storage.blob_name
        ├── BlobMissingError               storage.blob_missing
        ├── BlobDamagedError               storage.blob_damaged
        └── SealError                      storage.seal

Errors of the other packages carry a `code` too; `STATUS_BY_CODE` says which status each becomes. Whatever has no row is
an incident. `api.problems` gives errors their shape on the wire; engine processes need only the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ApiError(Exception):
    """Base of the service's own errors: a stable code and a sentence that says what to do.

    Attributes:
        sentence: for people.
        extras: further members of the problem document, such as `reasons` and `log_index`.
        headers: further response headers.
    """

    code: str = "api"

    def __init__(
        self,
        sentence: str,
        *,
        extras: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.extras = dict(extras or {})
        self.headers = dict(headers or {})


class RequestError(ApiError):
    """The request is not in the form that the endpoint expects."""

    code = "request.malformed"


class MissingFieldError(RequestError):
    """A field that must be there is not."""

    code = "request.field_missing"

    def __init__(self, name: str) -> None:
        super().__init__(f"The field “{name}” is missing: add it to the request.")


class UnknownFieldError(RequestError):
    """A field that the endpoint does not know: refused, because a misspelt restriction must not be ignored."""

    code = "request.field_unknown"

    def __init__(self, names: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(f"Unknown field {_quoted(names)}: this endpoint takes {_quoted(known)}.")


class InvalidFieldError(RequestError):
    """A field has a value that cannot be used."""

    code = "request.field_invalid"


class BodyTooLargeError(RequestError):
    """The body, or one file in it, is larger than the endpoint takes; reading stopped there."""

    code = "request.too_large"

    def __init__(self, what: str, limit_bytes: int) -> None:
        super().__init__(f"{what} is larger than the limit of {limit_bytes:,} bytes: send a smaller one.")


class ContentTypeError(RequestError):
    """The body has a media type that the endpoint does not take."""

    code = "request.content_type"

    def __init__(self, expected: str) -> None:
        super().__init__(f"Send the body with Content-Type {expected}.")


class QueryTooLongError(RequestError):
    """A query parameter is too long for an address."""

    code = "request.too_long"


class TokenError(ApiError):
    """The access token was not accepted. The sentence names the check that failed, never the token."""

    error = "invalid_token"

    def __init__(self, code: str, sentence: str, *, scheme: str = "Bearer") -> None:
        self.code = code
        super().__init__(sentence)
        self.challenge(scheme)

    def challenge(self, scheme: str) -> None:
        """Say how the request should have come: RFC 6750 §3 for Bearer, RFC 9449 §7.1 for DPoP."""
        members = ['realm="placet"', 'algs="ES256 EdDSA"'] if scheme == "DPoP" else ['realm="placet"']
        if self.code != "token.missing":
            members += [f'error="{self.error}"', f'error_description="{self.code}"']
        self.headers["WWW-Authenticate"] = f"{scheme} {', '.join(members)}"


class ScopeError(ApiError):
    """The token is good, but was not issued for this."""

    code = "token.scope"

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"This endpoint needs a token with scope {scope}: ask the token endpoint for one.")
        self.challenge("Bearer")

    def challenge(self, scheme: str) -> None:
        """As for `TokenError`."""
        self.headers["WWW-Authenticate"] = f'{scheme} realm="placet", error="insufficient_scope", scope="{self.scope}"'


class RateError(ApiError):
    """The caller asks more often than it may."""

    code = "rate.limited"

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(
            f"Too many {what}: try again in {retry_after_s} seconds.", headers={"Retry-After": str(retry_after_s)}
        )


class RefusedError(ApiError):
    """The gate said no. Carries every reason and the log entry of the decision."""

    code = "render.refused"


class NotOwnerError(ApiError):
    """The thing exists and belongs to somebody else."""

    code = "access.not_owner"


class NotFoundError(ApiError):
    """There is no such thing."""

    code = "not_found"


class ConflictError(ApiError):
    """The thing is in a state in which this cannot be done."""

    code = "conflict"


class ChallengeError(ApiError):
    """The enrolment challenge is unknown, used or too old."""

    code = "enrolment.challenge"


class BusyError(ApiError):
    """More work is waiting than the service takes on."""

    code = "service.busy"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"Too much work is waiting: try again in {retry_after_s} seconds.",
            headers={"Retry-After": str(retry_after_s)},
        )


class EngineError(ApiError):
    """An engine process is not there, or stopped in the middle of a job."""

    code = "engine.unavailable"


class IntakeError(ApiError):
    """Decoding an upload ran into the limits that contain it."""

    code = "intake.limits"


class RemoteError(ApiError):
    """An error of another package, raised in an engine process and carried here by its code."""

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        super().__init__(sentence)


class StorageError(ApiError):
    """The service's own storage is not as it should be."""

    code = "storage"


class InstanceExistsError(StorageError):
    """An instance is there already, and is never overwritten."""

    code = "storage.instance_exists"


class InstanceMissingError(StorageError):
    """No instance was found."""

    code = "storage.instance_missing"


class SchemaVersionError(StorageError):
    """The database was made by another version of the program."""

    code = "storage.schema_version"


class StoreUnreachableError(StorageError):
    """The database or the bucket does not answer, or is busy for too long."""

    code = "storage.unreachable"

    def __init__(self) -> None:
        sentence = "The service cannot use its storage at this moment: try again shortly."
        super().__init__(sentence, headers={"Retry-After": "5"})


class BlobNameError(StorageError):
    """Not a blob's name."""

    code = "storage.blob_name"


class BlobMissingError(StorageError):
    """A blob that should be there is not."""

    code = "storage.blob_missing"


class BlobDamagedError(StorageError):
    """A blob's bytes are not what its name says."""

    code = "storage.blob_damaged"


class SealError(StorageError):
    """A sealed blob does not open: wrong key, wrong subject, or changed bytes."""

    code = "storage.seal"


STATUS_BY_CODE: dict[str, int] = {
    # a row per code, or per prefix of codes; the longest that fits wins
    "request": 400,
    "request.too_large": 413,
    "request.too_long": 414,
    "request.content_type": 415,
    "request.range": 416,
    "token": 401,
    "token.scope": 403,
    "token.issuer_unreachable": 503,
    "rate": 429,
    "oauth": 400,
    "application": 422,
    "session": 403,
    "session.missing": 401,
    "render.refused": 403,
    "render.client_suspended": 403,
    "access": 403,
    "not_found": 404,
    "conflict": 409,
    "enrolment": 422,
    "enrolment.challenge": 409,
    "enrolment.face_protected": 403,
    "service.busy": 503,
    "intake": 422,
    "engine": 503,
    "storage": 500,
    "storage.unreachable": 503,
    # policy
    "consent.epoch": 409,
    "consent.too_many": 409,
    "consent.ended": 409,
    "consent.revoked": 403,
    "canonical": 422,
    "identity": 422,
    "keys": 500,
    "instance": 500,
    "policy": 500,
    "decision": 500,
    "passkey": 403,
    "passkey.malformed": 422,
    "passkey.algorithm": 422,
    "passkey.challenge": 409,
    "statement": 422,
    "statement.signature": 403,
    "statement.nonce": 409,
    "text": 500,
    "log": 503,
    "log.not_found": 404,
    "log.proof": 422,
    "log.archive": 404,
    "witness": 503,
    "permit": 403,
    "permit.ledger": 503,
    # watermark
    "watermark": 500,
    "media": 422,
    "media.too_large": 413,
    "media.too_long": 413,
    "media.unsupported": 415,
    "media.encoding": 500,
    "mark": 500,
    "mark.invalid_id": 422,
    "credentials": 500,
    "live": 422,
    "stream": 422,
    "stream.ticket": 403,
    "credentials.signing": 503,
    "softbinding": 400,
    "credentials.time_stamp": 503,
    # generator, detector
    "generator": 500,
    "portrait": 422,
    "portrait.not_an_image": 415,
    "portrait.too_large": 413,
    "speech": 422,
    "control": 422,
    "driving": 422,
    "voice": 422,
    "voice.no_engine": 503,
    "voice.failed": 503,
    "persona": 404,
    "template": 500,
    "weights": 500,
    "grant": 403,
    "evidence": 403,
    "detector": 500,
    "detector.picture": 422,
    "detector.picture_empty": 422,
    "detector.picture_unreadable": 422,
    "detector.picture_unsupported": 415,
    "detector.picture_too_large": 413,
}


def status_of(code: str) -> int | None:
    """HTTP status of an error code: the row of the code itself or of its longest prefix; None without a row."""
    parts = code.split(".")
    for length in range(len(parts), 0, -1):
        if status := STATUS_BY_CODE.get(".".join(parts[:length])):
            return status
    return None


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name[:64]}”" for name in names) or "no fields"
