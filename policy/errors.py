"""Every error that the policy package raises, in one tree.

    PolicyError
    ├── CanonicalError                 canonical.invalid            not RFC 8785 JSON, or cannot be written as such
    ├── IdentityError                  identity.invalid             an actor or identifier of the wrong form
    ├── KeyRingError                   keys.invalid                 key files missing, damaged, or readable by others
    │   └── UnwrapError                keys.unwrap                  a wrapped key that does not open
    ├── InstanceError                  instance.invalid             an instance directory that cannot be made or opened
    ├── TextChangedError               text.changed                 a text was changed after people had signed it
    ├── PolicySetError                 policy.invalid               Cedar files that must not be used
    ├── ReplayError                    decision.replay              a logged decision that does not come out again
    ├── StatementError                 statement.invalid            consent, revocation, enrolment
    │   ├── StatementMalformedError    statement.malformed
    │   ├── StatementTypeError         statement.type
    │   ├── StatementKeyError          statement.key
    │   ├── StatementSignatureError    statement.signature
    │   ├── StatementTimeError         statement.time
    │   ├── StatementNonceError        statement.nonce
    │   ├── StatementTextError         statement.text               names a text that was never shown
    │   ├── ConsentWidenedError        statement.widened            takes another's place, but allows more
    │   ├── MinorRefusedError          enrolment.minor
    │   └── AttestationError           enrolment.attestation
    ├── PasskeyError                   passkey.invalid              a WebAuthn registration or assertion
    │   ├── PasskeyMalformedError      passkey.malformed
    │   ├── PasskeyChallengeError      passkey.challenge
    │   ├── PasskeyOriginError         passkey.origin
    │   ├── PasskeyRelyingPartyError   passkey.rp_id
    │   ├── PasskeyPresenceError       passkey.user_verification
    │   ├── PasskeyAlgorithmError      passkey.algorithm
    │   ├── PasskeySignatureError      passkey.signature
    │   ├── PasskeyCounterError        passkey.sign_count
    │   ├── PasskeyUnknownError        passkey.unknown
    │   └── PasskeyAccountError        passkey.account              somebody else's passkey
    ├── LogError                       log.invalid
    │   ├── LogUnavailableError        log.unavailable              nothing may be released until this is solved
    │   │   └── WitnessRequiredError   log.witness                  too few witnesses have cosigned
    │   ├── LogCorruptError            log.corrupt
    │   ├── EntryRefusedError          log.entry_refused            too large, secret inside, wrong form
    │   ├── EntryNotFoundError         log.not_found
    │   ├── CheckpointError            log.checkpoint
    │   ├── ProofError                 log.proof
    │   ├── BundleError                log.bundle
    │   ├── ArchiveError               log.archive                  policy texts that are not kept, or damaged
    │   ├── SearchIndexError           log.index                    the search index beside the log
    │   └── WitnessError               witness.invalid              a witness that does not cosign
    │       ├── WitnessMalformedError  witness.malformed
    │       ├── WitnessOriginError     witness.origin
    │       ├── WitnessSignatureError  witness.signature
    │       ├── WitnessConflictError   witness.conflict             carries the size that it knows
    │       ├── WitnessSplitViewError  witness.split_view
    │       ├── WitnessProofError      witness.proof
    │       └── WitnessStateError      witness.state
    └── PermitError                    permit.invalid
        ├── PermitMalformedError       permit.malformed
        ├── PermitSignatureError       permit.signature
        ├── PermitWorkerError          permit.worker
        ├── PermitLifetimeError        permit.lifetime
        ├── PermitNotYetValidError     permit.not_yet_valid
        ├── PermitExpiredError         permit.expired
        ├── PermitClockError           permit.clock
        ├── PermitReusedError          permit.reused
        ├── PermitPortraitError        permit.portrait_mismatch
        ├── PermitSpeechError          permit.speech_mismatch
        ├── PermitControlsError        permit.controls_mismatch
        ├── PermitDrivingError         permit.driving_mismatch
        ├── PermitLedgerError          permit.ledger
        └── PermitRefusedError         permit.refused               the gate will not sign one

Codes are stable: clients and the log depend on them. The message is one sentence for people that says what to do,
and never holds a key, a token or personal data.
"""

from __future__ import annotations

from typing import ClassVar


class PolicyError(Exception):
    """Base of all errors of this package: a stable `code` and a `sentence` for people."""

    code: ClassVar[str] = "policy.error"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class CanonicalError(PolicyError):
    """The bytes are not canonical JSON, or the value has no canonical form."""

    code = "canonical.invalid"


class IdentityError(PolicyError):
    """An identifier or scope of the wrong form."""

    code = "identity.invalid"


class KeyRingError(PolicyError):
    """The key files are missing, damaged, or readable by others."""

    code = "keys.invalid"


class UnwrapError(KeyRingError):
    """A wrapped key that was changed, belongs to something else, or whose wrapping key is gone."""

    code = "keys.unwrap"


class InstanceError(PolicyError):
    """The instance directory cannot be made or opened."""

    code = "instance.invalid"


class TextChangedError(PolicyError):
    """A published text is not what its hash says."""

    code = "text.changed"


class PolicySetError(PolicyError):
    """The Cedar schema or policies must not be used."""

    code = "policy.invalid"


class ReplayError(PolicyError):
    """A logged decision cannot be repeated, or comes out differently."""

    code = "decision.replay"


class StatementError(PolicyError):
    """A signed statement of a subject was refused."""

    code = "statement.invalid"


class StatementMalformedError(StatementError):
    """Not a compact JWS over canonical JSON with exactly the expected fields and ranges."""

    code = "statement.malformed"


class StatementTypeError(StatementError):
    """The header's `typ` or `alg` is not the one this statement must have."""

    code = "statement.type"


class StatementKeyError(StatementError):
    """The key is not a P-256 or Ed25519 key of the right half."""

    code = "statement.key"


class StatementSignatureError(StatementError):
    """The signature is not by the subject's key."""

    code = "statement.signature"


class StatementTimeError(StatementError):
    """The statement's dates cannot be accepted now."""

    code = "statement.time"


class StatementNonceError(StatementError):
    """The enrolment answers another challenge than the one that was given out."""

    code = "statement.nonce"


class StatementTextError(StatementError):
    """The statement names a version or language of the text that does not exist."""

    code = "statement.text"


class ConsentWidenedError(StatementError):
    """A consent that takes the place of an earlier one allows something that the earlier one did not."""

    code = "statement.widened"


class MinorRefusedError(StatementError):
    """Minors are never enrolled."""

    code = "enrolment.minor"


class AttestationError(StatementError):
    """The class of the subject is not attested as it must be."""

    code = "enrolment.attestation"


class PasskeyError(PolicyError):
    """A passkey was not accepted."""

    code = "passkey.invalid"


class PasskeyMalformedError(PasskeyError):
    """The browser's answer is not of the form that WebAuthn gives it."""

    code = "passkey.malformed"


class PasskeyChallengeError(PasskeyError):
    """It answers another challenge, or one that is used up or too old."""

    code = "passkey.challenge"


class PasskeyOriginError(PasskeyError):
    """It was used on, or inside, another page."""

    code = "passkey.origin"


class PasskeyRelyingPartyError(PasskeyError):
    """It is bound to another site."""

    code = "passkey.rp_id"


class PasskeyPresenceError(PasskeyError):
    """Nobody was verified by the authenticator."""

    code = "passkey.user_verification"


class PasskeyAlgorithmError(PasskeyError):
    """Its key is of a kind that is not accepted."""

    code = "passkey.algorithm"


class PasskeySignatureError(PasskeyError):
    """The signature is not by the passkey on record."""

    code = "passkey.signature"


class PasskeyCounterError(PasskeyError):
    """Its counter did not move on."""

    code = "passkey.sign_count"


class PasskeyUnknownError(PasskeyError):
    """No such passkey is on record."""

    code = "passkey.unknown"


class PasskeyAccountError(PasskeyError):
    """The passkey belongs to another account."""

    code = "passkey.account"


class LogError(PolicyError):
    """Base of everything about the log."""

    code = "log.invalid"


class LogUnavailableError(LogError):
    """The log cannot be written durably; nothing may be released until it can."""

    code = "log.unavailable"


class LogCorruptError(LogError):
    """The files do not add up to the signed checkpoint."""

    code = "log.corrupt"


class EntryRefusedError(LogError):
    """The entry must not be logged: too large, of the wrong form, or with a secret inside."""

    code = "log.entry_refused"


class EntryNotFoundError(LogError):
    """No such entry, tile or tree size."""

    code = "log.not_found"


class CheckpointError(LogError):
    """A checkpoint that is malformed, of another log, or not signed by its key."""

    code = "log.checkpoint"


class ProofError(LogError):
    """An inclusion or consistency proof that does not verify."""

    code = "log.proof"


class BundleError(LogError):
    """An export bundle that cannot be written or read."""

    code = "log.bundle"


class WitnessRequiredError(LogUnavailableError):
    """Too few witnesses have cosigned; nothing may be released until enough have."""

    code = "log.witness"


class ArchiveError(LogError):
    """Policy texts of that hash are not kept here, or are damaged."""

    code = "log.archive"


class SearchIndexError(LogError):
    """The search index cannot be read or written; it can be deleted and is then built again."""

    code = "log.index"


class WitnessError(LogError):
    """Base of the reasons for which a witness does not cosign."""

    code = "witness.invalid"


class WitnessMalformedError(WitnessError):
    """Not a request of the protocol, or one that would roll back."""

    code = "witness.malformed"


class WitnessOriginError(WitnessError):
    """A log that the witness does not watch."""

    code = "witness.origin"


class WitnessSignatureError(WitnessError):
    """Not signed by a key of that log."""

    code = "witness.signature"


class WitnessConflictError(WitnessError):
    """The witness has cosigned a checkpoint of another size than the request starts from."""

    code = "witness.conflict"

    def __init__(self, size: int) -> None:
        super().__init__(f"The last checkpoint that was cosigned has size {size}; prove consistency from there.")
        self.size = size


class WitnessSplitViewError(WitnessError):
    """Two roots for one size."""

    code = "witness.split_view"


class WitnessProofError(WitnessError):
    """The consistency proof does not verify."""

    code = "witness.proof"


class WitnessStateError(WitnessError):
    """The witness cannot read or write what it has seen."""

    code = "witness.state"


class PermitError(PolicyError):
    """Base of everything about permits."""

    code = "permit.invalid"


class PermitMalformedError(PermitError):
    """Not a permit in the one form that is issued."""

    code = "permit.malformed"


class PermitSignatureError(PermitError):
    """Not signed by the gateway's permit key."""

    code = "permit.signature"


class PermitWorkerError(PermitError):
    """Made out to another worker."""

    code = "permit.worker"


class PermitLifetimeError(PermitError):
    """Valid for longer than a permit may ever be."""

    code = "permit.lifetime"


class PermitNotYetValidError(PermitError):
    """Issued in the future, by this worker's clock."""

    code = "permit.not_yet_valid"


class PermitExpiredError(PermitError):
    """Too late."""

    code = "permit.expired"


class PermitClockError(PermitError):
    """The worker's clock has moved backwards."""

    code = "permit.clock"


class PermitReusedError(PermitError):
    """Redeemed before."""

    code = "permit.reused"


class PermitPortraitError(PermitError):
    """Another portrait than the one that was decided on."""

    code = "permit.portrait_mismatch"


class PermitSpeechError(PermitError):
    """Another speech track than the one that was decided on."""

    code = "permit.speech_mismatch"


class PermitDrivingError(PermitError):
    """Another driving movement than the one that was decided on, or one where there was none."""

    code = "permit.driving_mismatch"


class PermitControlsError(PermitError):
    """Other controls than those that were decided on."""

    code = "permit.controls_mismatch"


class PermitLedgerError(PermitError):
    """The ledger of redeemed permits cannot be written."""

    code = "permit.ledger"


class PermitRefusedError(PermitError):
    """The gate will not sign a permit for this ruling."""

    code = "permit.refused"
