"""Passkeys: WebAuthn registration and assertion, verified. Pure functions; nothing here remembers a challenge.

Who keeps challenges, counters and accounts is `api.passkeys`. Steps are those of W3C Web Authentication Level 3, §7.1
(registration) and §7.2 (assertion); each refusal has its own code. What carries cryptography is done by the `webauthn`
package, after our own checks have given the refusal its name, so that both have to agree before anything is accepted.

Only what this service needs is accepted: ES256 and Ed25519 keys, attestation `none` or `packed`, the page's own origin
to the letter, no embedding page, and always a person who was verified (PIN, fingerprint, face), not just present.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import encode_cbor, parse_attestation_object, parse_authenticator_data
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.decode_credential_public_key import (
    DecodedEC2PublicKey,
    DecodedOKPPublicKey,
    decode_credential_public_key,
)
from webauthn.helpers.options_to_json_dict import options_to_json_dict
from webauthn.helpers.structs import (
    AuthenticatorData,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from policy.canonical import canonical_json
from policy.errors import (
    CanonicalError,
    PasskeyAlgorithmError,
    PasskeyChallengeError,
    PasskeyCounterError,
    PasskeyMalformedError,
    PasskeyOriginError,
    PasskeyPresenceError,
    PasskeyRelyingPartyError,
    PasskeySignatureError,
    StatementKeyError,
    StatementMalformedError,
    StatementTypeError,
)
from policy.statement import MAX_STATEMENT_NUM_BYTES, decode_base64url, encode_base64url
from policy.statement import public_jwk as checked_public_jwk

__all__ = [
    "AssertionEvidence",
    "Passkey",
    "PasskeySigner",
    "RelyingParty",
    "assertion_options",
    "challenge_of",
    "credential_id_of",
    "essential_members",
    "registration_options",
    "verify_assertion",
    "verify_registration",
    "verify_signed_by_passkey",
]

MAX_RESPONSE_NUM_CHARS: Final = 32_768
"""Longest base64url member of a response; real ones stay below 2,000."""
MAX_CREDENTIAL_ID_NUM_BYTES: Final = 1023  # WebAuthn Level 3 §4, "Credential ID"
_TIMEOUT_MS: Final = 300_000
_ALGORITHMS: Final = (COSEAlgorithmIdentifier.ECDSA_SHA_256, COSEAlgorithmIdentifier.EDDSA)
_ATTESTATION_FORMATS: Final = ("none", "packed")


@dataclass(frozen=True)
class RelyingParty:
    """The site that passkeys are bound to.

    Args:
        rp_id: its domain, as WebAuthn knows it (`placet.example.org`, `localhost`).
        origin: scheme, host and port of its pages, compared to the letter.
        name: what the browser shows to people.
    """

    rp_id: str
    origin: str
    name: str = "Placet"


@dataclass(frozen=True)
class Passkey:
    """A passkey that was just registered, to be kept on record.

    Args:
        public_jwk: P-256 or Ed25519.
        sign_count: how often it was used, by its own counter; 0 for passkeys that are synchronised between devices.
        backed_up: whether it is synchronised, so that it outlives the device.
    """

    credential_id: bytes
    public_jwk: Mapping[str, Any]
    sign_count: int
    backed_up: bool


@dataclass(frozen=True)
class AssertionEvidence:
    """What a verified assertion shows. Keep `sign_count` on record: the next one must be higher, unless it is 0."""

    credential_id: bytes
    sign_count: int
    backed_up: bool
    challenge: bytes = field(repr=False)


@dataclass(frozen=True)
class PasskeySigner:
    """A passkey on record, as somebody who signs statements: its site, its key, its counter so far."""

    site: RelyingParty
    public_jwk: Mapping[str, Any]
    sign_count: int


def registration_options(
    *,
    rp_id: str,
    rp_name: str,
    user_id: bytes,
    user_name: str,
    challenge: bytes,
    known_credential_ids: Sequence[bytes] = (),
) -> dict[str, Any]:
    """`PublicKeyCredentialCreationOptionsJSON`, for `navigator.credentials.create`.

    Args:
        user_id: at most 64 bytes, without personal data.
        known_credential_ids: passkeys that the account has already; an authenticator makes no second one.
    """
    options = generate_registration_options(
        rp_id=rp_id,
        rp_name=rp_name,
        user_id=user_id,
        user_name=user_name,
        challenge=challenge,
        timeout=_TIMEOUT_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=each) for each in known_credential_ids],
        supported_pub_key_algs=list(_ALGORITHMS),
    )
    return options_to_json_dict(options)


def assertion_options(*, rp_id: str, challenge: bytes, credential_ids: Sequence[bytes] = ()) -> dict[str, Any]:
    """`PublicKeyCredentialRequestOptionsJSON`, for `navigator.credentials.get`.

    Args:
        challenge: to sign a statement, the SHA-256 of its canonical form.
        credential_ids: the account's passkeys; empty lets the person choose one.
    """
    options = generate_authentication_options(
        rp_id=rp_id,
        challenge=challenge,
        timeout=_TIMEOUT_MS,
        allow_credentials=[PublicKeyCredentialDescriptor(id=each) for each in credential_ids],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json_dict(options)


def verify_registration(response: object, *, challenge: bytes, rp_id: str, origin: str) -> Passkey:
    """Accept a new passkey: the answer of `navigator.credentials.create`, as `toJSON()` writes it.

    Raises: PasskeyError (malformed, challenge, origin, rp_id, user_verification, algorithm, signature).
    """
    credential, unverified = _credential(response, "clientDataJSON", "attestationObject")
    # (1) §7.1 steps 5–12: type, challenge, origin, not embedded
    _check_client_data(unverified["clientDataJSON"], "webauthn.create", challenge, origin)
    # (2) §7.1 steps 13–18: relying party, presence, verification
    try:
        attestation = parse_attestation_object(unverified["attestationObject"])
    except Exception as exc:  # a foreign parser on foreign bytes: whatever it stumbles over is their malformation
        raise PasskeyMalformedError("The attestation of the passkey cannot be read; register it again.") from exc
    _check_authenticator_data(attestation.auth_data, rp_id)
    if attestation.fmt not in _ATTESTATION_FORMATS:
        raise PasskeyMalformedError("The passkey was registered with an attestation that was not asked for.")
    # (3) §7.1 steps 19–20: a key of a kind that we take, on its curve
    attested = attestation.auth_data.attested_credential_data
    if attested is None or not 0 < len(attested.credential_id) <= MAX_CREDENTIAL_ID_NUM_BYTES:
        raise PasskeyMalformedError("The response does not hold a new passkey; register it again.")
    key = _jwk_of_cose(attested.credential_public_key)
    if attested.credential_id != credential_id_of(credential):
        raise PasskeyMalformedError("The response names another passkey than the one that it holds.")
    # (4) §7.1 steps 21–24 and everything above once more, by the library
    try:
        verified = verify_registration_response(
            credential=dict(credential),
            expected_challenge=challenge,
            expected_rp_id=rp_id,
            expected_origin=origin,
            require_user_verification=True,
            supported_pub_key_algs=list(_ALGORITHMS),
        )
    except Exception as exc:
        raise PasskeySignatureError("The attestation of the passkey is not valid; register it again.") from exc
    return Passkey(verified.credential_id, key, verified.sign_count, verified.credential_backed_up)


def verify_assertion(
    response: object,
    *,
    challenge: bytes,
    rp_id: str,
    origin: str,
    public_jwk: Mapping[str, Any],
    sign_count: int,
) -> AssertionEvidence:
    """Accept that the holder of a passkey answered `challenge`: the answer of `navigator.credentials.get`.

    That the credential belongs to the account in question is for the caller to know (`credential_id_of`).

    Args:
        public_jwk, sign_count: of this passkey, from the record.
    Raises: PasskeyError (malformed, challenge, origin, rp_id, user_verification, sign_count, signature).
    """
    credential, unverified = _credential(response, "clientDataJSON", "authenticatorData", "signature")
    # (1) §7.2 steps 7–13: type, challenge, origin, not embedded
    _check_client_data(unverified["clientDataJSON"], "webauthn.get", challenge, origin)
    # (2) §7.2 steps 14–18: relying party, presence, verification
    try:
        data = parse_authenticator_data(unverified["authenticatorData"])
    except Exception as exc:  # a foreign parser on foreign bytes
        raise PasskeyMalformedError("The answer of the passkey cannot be read; try again.") from exc
    _check_authenticator_data(data, rp_id)
    # (3) §7.2 step 22: a counter that does not move on is a copied passkey
    if (data.sign_count or sign_count) and data.sign_count <= sign_count:
        raise PasskeyCounterError(
            "This passkey's counter went back: it was copied, or an old answer was sent again. Use another passkey."
        )
    # (4) §7.2 steps 20–21 and everything above once more, by the library
    try:
        verified = verify_authentication_response(
            credential=dict(credential),
            expected_challenge=challenge,
            expected_rp_id=rp_id,
            expected_origin=origin,
            credential_public_key=_cose_of_jwk(public_jwk),
            credential_current_sign_count=sign_count,
            require_user_verification=True,
        )
    except StatementKeyError:
        raise
    except Exception as exc:
        raise PasskeySignatureError("This was not signed by the passkey on record; use that passkey.") from exc
    return AssertionEvidence(
        verified.credential_id, verified.new_sign_count, verified.credential_backed_up, bytes(challenge)
    )


def verify_signed_by_passkey(signed: object, signer: PasskeySigner) -> tuple[dict[str, Any], bytes, AssertionEvidence]:
    """Accept a statement `{"statement": {…}, "assertion": {…}}` whose canonical SHA-256 a passkey answered to.

    Returns: the statement; its canonical bytes, whose SHA-256 names it; how the passkey vouched for it.
    Raises: StatementMalformedError, StatementTypeError, PasskeyError.
    """
    # (1) exactly these two members
    if isinstance(signed, str):
        raise StatementTypeError("This account signs with a passkey: send the statement with its assertion.")
    if not isinstance(signed, Mapping) or set(signed) != {"statement", "assertion"}:
        raise StatementMalformedError("A statement signed with a passkey has exactly the members statement, assertion.")
    # (2) a JSON object with a canonical form (RFC 8785), of bounded length
    statement = signed["statement"]
    try:
        data = canonical_json(statement)
    except CanonicalError as exc:
        raise StatementMalformedError("The statement has no canonical JSON form.") from exc
    if not isinstance(statement, dict) or len(data) > MAX_STATEMENT_NUM_BYTES:
        raise StatementMalformedError(f"The statement must be an object of at most {MAX_STATEMENT_NUM_BYTES} bytes.")
    # (3) the passkey on record answered to its hash, on our page, by somebody who was verified
    evidence = verify_assertion(
        signed["assertion"],
        challenge=hashlib.sha256(data).digest(),
        rp_id=signer.site.rp_id,
        origin=signer.site.origin,
        public_jwk=signer.public_jwk,
        sign_count=signer.sign_count,
    )
    return statement, data, evidence


def essential_members(response: Mapping[str, Any]) -> dict[str, Any]:
    """What of a verified assertion is kept: enough to verify it again, nothing about the device."""
    inner = {name: response["response"][name] for name in ("clientDataJSON", "authenticatorData", "signature")}
    return {"id": response["id"], "rawId": response["rawId"], "type": response["type"], "response": inner}


def credential_id_of(response: object) -> bytes:
    """The passkey that an unverified response says it comes from, to look up its record.

    Raises: PasskeyMalformedError.
    """
    if not isinstance(response, Mapping) or response.get("type") != "public-key":
        raise PasskeyMalformedError("A passkey's answer is the JSON object that the browser's toJSON() writes.")
    credential_id = _bytes(response.get("rawId"), "rawId")
    if response.get("id") != response.get("rawId") or not 0 < len(credential_id) <= MAX_CREDENTIAL_ID_NUM_BYTES:
        raise PasskeyMalformedError("id and rawId of a passkey's answer must be the same.")
    return credential_id


def challenge_of(response: object) -> bytes:
    """The challenge that an unverified response says it answers, to look up what was given out.

    Raises: PasskeyMalformedError.
    """
    _, unverified = _credential(response, "clientDataJSON")
    return _bytes(_client_data(unverified["clientDataJSON"]).get("challenge"), "challenge")


def _credential(response: object, *members: str) -> tuple[Mapping[str, Any], dict[str, bytes]]:
    """The response in its JSON form, and its binary members."""
    credential_id_of(response)
    assert isinstance(response, Mapping)
    inner = response.get("response")
    if not isinstance(inner, Mapping):
        raise PasskeyMalformedError("The member response is missing from the passkey's answer.")
    return response, {name: _bytes(inner.get(name), name) for name in members}


def _bytes(text: object, name: str) -> bytes:
    if isinstance(text, str) and 0 < len(text) <= MAX_RESPONSE_NUM_CHARS:
        try:
            return decode_base64url(text)
        except ValueError as exc:
            raise PasskeyMalformedError(f"The member {name} of the passkey's answer is not base64url.") from exc
    raise PasskeyMalformedError(f"The member {name} of the passkey's answer must be base64url without padding.")


def _client_data(data: bytes) -> dict[str, Any]:
    try:
        client_data = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise PasskeyMalformedError("The client data of the passkey's answer is not JSON.") from exc
    if not isinstance(client_data, dict):
        raise PasskeyMalformedError("The client data of the passkey's answer must be a JSON object.")
    return client_data


def _check_client_data(data: bytes, kind: str, challenge: bytes, origin: str) -> None:
    client_data = _client_data(data)
    if client_data.get("type") != kind:
        raise PasskeyMalformedError(f"The client data of the passkey's answer must be of type {kind}.")
    if not hmac.compare_digest(_bytes(client_data.get("challenge"), "challenge"), challenge):
        raise PasskeyChallengeError("The passkey answers another challenge than this one; ask for a new one.")
    if client_data.get("origin") != origin:
        raise PasskeyOriginError(f"The passkey was used on another page; open {origin} and try again.")
    if client_data.get("crossOrigin", False) is not False or "topOrigin" in client_data:
        raise PasskeyOriginError(f"The passkey was used inside another page; open {origin} itself and try again.")


def _check_authenticator_data(data: AuthenticatorData, rp_id: str) -> None:
    if not hmac.compare_digest(data.rp_id_hash, hashlib.sha256(rp_id.encode()).digest()):
        raise PasskeyRelyingPartyError(f"This passkey is bound to another site than {rp_id}.")
    if not data.flags.up or not data.flags.uv:
        raise PasskeyPresenceError("The passkey did not check who you are; unlock it with PIN, fingerprint or face.")
    if data.flags.bs and not data.flags.be:
        raise PasskeyMalformedError("The passkey says that it is backed up and that it cannot be.")  # §6.1.3


def _jwk_of_cose(key: bytes) -> dict[str, Any]:
    """RFC 9053 §2, §7 to RFC 7517. Raises: PasskeyAlgorithmError: not ES256 on P-256 or EdDSA on Ed25519."""
    try:
        decoded = decode_credential_public_key(key)
        kind = (int(decoded.alg), int(getattr(decoded, "crv", 0)))
        if isinstance(decoded, DecodedEC2PublicKey) and kind == (-7, 1):
            return checked_public_jwk(
                {"kty": "EC", "crv": "P-256", "x": encode_base64url(decoded.x), "y": encode_base64url(decoded.y)}
            )
        if isinstance(decoded, DecodedOKPPublicKey) and kind == (-8, 6):
            return checked_public_jwk({"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(decoded.x)})
    except Exception as exc:  # a foreign parser on foreign bytes
        raise PasskeyAlgorithmError("The key of this passkey cannot be read; use another passkey.") from exc
    raise PasskeyAlgorithmError("This passkey signs with an algorithm that is not accepted; ES256 and Ed25519 are.")


def _cose_of_jwk(jwk: Mapping[str, Any]) -> bytes:
    """Raises: StatementKeyError."""
    key = checked_public_jwk(jwk)
    x = _bytes(key["x"], "x")
    if key["kty"] == "EC":
        return encode_cbor({1: 2, 3: -7, -1: 1, -2: x, -3: _bytes(key["y"], "y")})
    return encode_cbor({1: 1, 3: -8, -1: 6, -2: x})
