"""A small client for people who use the service: subjects, researchers, platforms, auditors and operators.

    me = Credentials.load(Path("researcher.jwk"))
    with PlacetClient("http://127.0.0.1:8470", me) as placet:
        render = placet.wait(placet.render(subject_id=..., portrait_sha256=..., speech=wav, purpose=PURPOSE_RESEARCH))
        Path("out.mp4").write_bytes(placet.video(render["render_id"]))

Tokens are fetched, kept and renewed by the client: one per group of endpoints, `private_key_jwt`, at most five minutes.
What makes faces move needs tokens that are bound to a key (DPoP, RFC 9449): the client makes such a key for itself,
never lets it out of the process, and sends a proof with each request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, import_key

from policy.consent import (
    CURRENT_VERSION,
    EVERYTHING,
    ConsentStatement,
    EnrolmentStatement,
    ErasureStatement,
    RevocationStatement,
    key_thumbprint,
    new_subject_key,
    public_jwk,
    sign_statement,
)
from policy.identity import (
    SCOPE_AUDIT_READ,
    SCOPE_DETECT_CREATE,
    SCOPE_OPERATOR_ADMIN,
    SCOPE_RENDER_CREATE,
    SCOPE_RENDER_READ,
    SCOPE_SUBJECT_SELF,
)

TEXT_VERSION: Final = CURRENT_VERSION
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_BOUND_PREFIXES: Final = ("render:", "live:")
_RENEW_BEFORE_S: Final = 20.0
_DAY_S: Final = 86_400


class ClientError(Exception):
    """Base of what this client raises.

    ClientError                    client
    ├── ProblemError               (the problem's own code)      the service answered with a problem document
    ├── UnreachableError           client.unreachable            no answer
    ├── IssuerError                client.issuer                 the metadata is not of the service that was asked
    └── CredentialsError           client.credentials            no usable key
    """

    code: str = "client"


class UnreachableError(ClientError):
    """The service does not answer."""

    code = "client.unreachable"


class IssuerError(ClientError):
    """The service's metadata names another issuer (RFC 8414 §3.3)."""

    code = "client.issuer"


class CredentialsError(ClientError):
    """The call needs credentials, or these cannot be used."""

    code = "client.credentials"


class ProblemError(ClientError):
    """A problem document, as an exception.

    Attributes:
        status: HTTP status.
        reasons: codes of all reasons of a refusal.
        log_index: the log entry that records it, if there is one.
        problem: the whole document.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail", f"HTTP {status}")))
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", "unknown"))
        self.reasons = tuple(str(reason["code"]) for reason in problem.get("reasons") or ())
        self.log_index: int | None = problem.get("log_index")

    @property
    def extras(self) -> dict[str, Any]:
        """What the problem says beyond code and sentence: reasons, log index."""
        return {name: self.problem[name] for name in ("reasons", "log_index", "status") if name in self.problem}

    @property
    def is_refusal(self) -> bool:
        """Whether the gate, or the token check, said no (as opposed to a fault in the request)."""
        return self.status in (401, 403)


@dataclass(frozen=True)
class Credentials:
    """A client id and its private key."""

    client_id: str
    key: Mapping[str, Any] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Credentials:
        """Read `{"client_id": …, "key": <private JWK>}`. Raises CredentialsError."""
        try:
            content = json.loads(path.read_text())
            return cls(str(content["client_id"]), dict(content["key"]))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise CredentialsError(f"{path.name} is not a readable credentials file.") from exc

    def to_json(self) -> dict[str, Any]:
        """What `load` reads. Holds the private key: keep it."""
        return {"client_id": self.client_id, "key": dict(self.key)}

    @property
    def public_jwks(self) -> dict[str, Any]:
        """The public half, as an operator wants it for vetting."""
        return {"keys": [public_jwk(self.key)]}


@dataclass(frozen=True)
class Enrolled:
    """A subject after enrolment: their credentials, and what the service answered."""

    credentials: Credentials
    subject_id: str
    portrait_sha256: str
    log_index: int
    summary: Mapping[str, Any]


class PlacetClient:
    """One party's connection to one service.

    Args:
        base_url: of the service; must be its issuer.
        credentials: None for what needs no token.
        transport: for tests; otherwise the network.
        now: clock, seconds since the epoch.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = 300.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.credentials = credentials
        self._now = now
        self._http = httpx.Client(base_url=self.base_url, transport=transport, timeout=timeout_s)
        self._token_endpoint = ""
        self._tokens: dict[str, tuple[str, float]] = {}
        self._proof_key = ECKey.generate_key("P-256")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    # -- tokens

    def token(self, scope: str) -> str:
        """An access token for one scope, from memory while it is good. Raises ProblemError, CredentialsError."""
        token, expires_at = self._tokens.get(scope, ("", 0.0))
        if self._now() < expires_at - _RENEW_BEFORE_S:
            return token
        endpoint = self._discover()
        answer = self._post_form(
            endpoint,
            {
                "grant_type": "client_credentials",
                "scope": scope,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": self._assertion(),
            },
            {"DPoP": self.proof("POST", endpoint)} if scope.startswith(_BOUND_PREFIXES) else {},
        )
        self._tokens[scope] = (str(answer["access_token"]), self._now() + float(answer["expires_in"]))
        return self._tokens[scope][0]

    def authorization(self, method: str, address: str, scope: str) -> dict[str, str]:
        """Headers that let one request pass: the access token and, where it must be, a proof for this request.

        Args:
            address: of the request: a whole one, or a path of this service.
        """
        token = self.token(scope)
        if not scope.startswith(_BOUND_PREFIXES):
            return {"Authorization": f"Bearer {token}"}
        url = self.base_url + address if address.startswith("/") else address
        return {"Authorization": f"DPoP {token}", "DPoP": self.proof(method, url, token)}

    def auth(self, scope: str) -> httpx.Auth:
        """The same for requests of your own: `httpx.get(url, auth=placet.auth("render:read"))`."""
        return _TokenAuth(self, scope)

    def proof(self, method: str, url: str, access_token: str | None = None) -> str:
        """A proof of possession for one request (RFC 9449 §4.2); good once, for a minute."""
        claims: dict[str, Any] = {
            "htm": method,
            "htu": url.partition("?")[0],
            "iat": int(self._now()),
            "jti": secrets.token_urlsafe(16),
        }
        if access_token is not None:
            digest = hashlib.sha256(access_token.encode()).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": dict(self._proof_key.as_dict(private=False))}
        return jwt.encode(header, claims, self._proof_key, algorithms=["ES256"])

    def _assertion(self) -> str:
        """RFC 7523 §3: who we are, for this service, once, for a minute."""
        if self.credentials is None:
            raise CredentialsError("This call needs credentials: give the client a client id and key.")
        key = import_key(dict(self.credentials.key))  # type: ignore[arg-type]
        now = int(self._now())
        claims = {
            "iss": self.credentials.client_id,
            "sub": self.credentials.client_id,
            "aud": self.base_url,
            "iat": now,
            "exp": now + 60,
            "jti": secrets.token_urlsafe(16),
        }
        algorithm = "ES256" if key.key_type == "EC" else "Ed25519"
        return jwt.encode({"alg": algorithm, "kid": key.thumbprint()}, claims, key, algorithms=[algorithm])

    def _discover(self) -> str:
        if not self._token_endpoint:
            metadata = self._call("GET", "/.well-known/oauth-authorization-server").json()
            if metadata.get("issuer") != self.base_url:
                raise IssuerError(f"The service calls itself {metadata.get('issuer')}: use that address.")
            self._token_endpoint = str(metadata["token_endpoint"])
        return self._token_endpoint

    def _post_form(self, url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
        return dict(self._call("POST", url, data=fields, headers=headers).json())

    # -- subjects

    def enrol(
        self,
        portrait: bytes,
        *,
        subject_class: str,
        rights_basis: str = "",
        adult_attested: bool = False,
        key: Mapping[str, Any] | None = None,
        language: str = "en",
        face: int | str | None = None,
    ) -> Enrolled:
        """Become a subject: make a key, answer the challenge, send the portrait. Then this client speaks for them.

        Args:
            portrait: image file.
            subject_class: adult, persona or artwork; an adult must set `adult_attested`, others give a `rights_basis`.
            key: private JWK to use; by default a new one is made. It never leaves this side.
            face: whose picture it is, if it shows several people: "largest", or counted from the left, from 0.
        """
        chosen = {} if face is None else {"face": str(face)}
        private = dict(key) if key is not None else new_subject_key()
        files = {"portrait": ("portrait", portrait)}
        challenge = self._call("POST", "/v1/subjects/challenges", files=files, data=chosen).json()
        statement = EnrolmentStatement(
            subject_id=challenge["subject_id"],
            subject_class=subject_class,
            portraits=(challenge["portrait_sha256"],),
            nonce=challenge["nonce"],
            key_thumbprint=key_thumbprint(private),
            adult_attested=adult_attested,
            rights_basis=rights_basis,
            issued_at=int(self._now()),
            text_version=TEXT_VERSION,
            language=language,
        )
        signed = {"enrolment": sign_statement(statement, private), "public_jwk": json.dumps(public_jwk(private))}
        answer = self._call("POST", "/v1/subjects", files=files, data=signed | chosen).json()
        self.credentials = Credentials(answer["subject_id"], private)
        self._tokens.clear()
        return Enrolled(
            self.credentials,
            answer["subject_id"],
            answer["portrait_sha256"],
            answer["log_index"],
            answer["summary"],
        )

    def profile(self) -> dict[str, Any]:
        """What the service keeps about the subject."""
        return self._json("GET", "/v1/subjects/me", SCOPE_SUBJECT_SELF)

    def consent(
        self,
        *,
        grantee_org: str,
        grantee_client: str,
        purposes: Sequence[str],
        portraits: Sequence[str] = (),
        controls: Sequence[str] = (),
        max_uses: int = 10,
        days: float = 30,
        language: str = "en",
        supersedes: str = "",
    ) -> dict[str, Any]:
        """Sign and give a consent.

        Args:
            grantee_org, grantee_client: who may; both must match.
            purposes: IRIs, see `policy.consent.PURPOSES`.
            portraits: SHA-256s; by default all that are enrolled.
            controls: names of the controls that may be set, `("*",)` for any.
            supersedes: SHA-256 of an earlier consent that this one narrows and ends.
        """
        credentials, profile = self._own(), self.profile()
        enrolled = tuple(each["portrait_sha256"] for each in profile["portraits"])
        now = int(self._now())
        statement = ConsentStatement(
            subject_id=credentials.client_id,
            grantee_org=grantee_org,
            grantee_client=grantee_client,
            purposes=tuple(purposes),
            portraits=tuple(portraits) or enrolled,
            controls=tuple(controls),
            not_before=now,
            expires_at=now + round(days * _DAY_S),
            max_uses=max_uses,
            epoch=profile["epoch"],
            text_version=TEXT_VERSION,
            language=language,
            supersedes=supersedes,
        )
        body = {"statement": sign_statement(statement, credentials.key)}
        return self._json("POST", "/v1/consents", SCOPE_SUBJECT_SELF, json=body)

    def consents(self) -> list[dict[str, Any]]:
        """All consents of the subject, newest first."""
        return list(self._json("GET", "/v1/consents", SCOPE_SUBJECT_SELF)["consents"])

    def revoke(self, consent_id: str, *, everything: bool = False) -> dict[str, Any]:
        """Sign and send a revocation of one consent, or of everything; it is in force when this returns."""
        credentials = self._own()
        consent = self._json("GET", f"/v1/consents/{consent_id}", SCOPE_SUBJECT_SELF)
        epoch = int(self.profile()["epoch"])
        statement = RevocationStatement(
            subject_id=credentials.client_id,
            consent_sha256=EVERYTHING if everything else consent["sha256"],
            epoch=epoch + 1 if everything else epoch,
            revoked_at=int(self._now()),
        )
        body = {"statement": sign_statement(statement, credentials.key)}
        return self._json("POST", f"/v1/consents/{consent_id}/revocation", SCOPE_SUBJECT_SELF, json=body)

    def uses(self) -> list[dict[str, Any]]:
        """Every use of the subject's face, each with its inclusion proof."""
        found: list[dict[str, Any]] = []
        start: int | None = 0
        while start is not None:
            page = self._json("GET", f"/v1/subjects/me/uses?start={start}", SCOPE_SUBJECT_SELF)
            found += page["uses"]
            start = page["next_start"]
        return found

    def export_data(self) -> bytes:
        """Everything that is kept about the subject, as a zip file."""
        return self._call("GET", "/v1/subjects/me/export", SCOPE_SUBJECT_SELF).content

    def erase(self, *, language: str = "en") -> dict[str, Any]:
        """Have everything erased. Cannot be undone; the key speaks for nobody afterwards."""
        credentials, epoch = self._own(), int(self.profile()["epoch"])
        statement = ErasureStatement(credentials.client_id, epoch, int(self._now()), TEXT_VERSION, language)
        body = {"statement": sign_statement(statement, credentials.key)}
        return self._json("DELETE", "/v1/subjects/me", SCOPE_SUBJECT_SELF, json=body)

    # -- researchers

    def render(
        self,
        *,
        subject_id: str,
        speech: bytes | None = None,
        purpose: str,
        portrait: bytes | None = None,
        portrait_sha256: str = "",
        controls: Mapping[str, Any] | None = None,
        driving: bytes | None = None,
        **texts: str,
    ) -> dict[str, Any]:
        """Ask for a video. Returns the queued render. Raises ProblemError with `reasons` if the gate refuses.

        Args:
            speech: sound file; or give a `text`, with `language` and `voice`, or a driving clip with sound.
            driving: a video of the subject `driver_id`, whose movement the portrait follows.
            texts: `text`, `language`, `voice`, `driver_id`; see the service's documentation.
        """
        given = {"subject_id": subject_id, "purpose": purpose, "portrait_sha256": portrait_sha256, **texts}
        if controls:
            given["controls"] = json.dumps(dict(controls))
        sent = {"speech": speech, "portrait": portrait, "driving": driving}
        # all of it as parts of one form, also where no file is among them
        parts: dict[str, Any] = {name: (None, text) for name, text in given.items() if text}
        parts |= {name: (name, data) for name, data in sent.items() if data is not None}
        return self._json("POST", "/v1/renders", SCOPE_RENDER_CREATE, files=parts)

    def render_status(self, render_id: str) -> dict[str, Any]:
        """A render and what has become of it."""
        return self._json("GET", f"/v1/renders/{render_id}", SCOPE_RENDER_READ)

    def wait(
        self,
        render: Mapping[str, Any] | str,
        *,
        timeout_s: float = 600.0,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Follow a render to its end. Raises ProblemError if it ends refused or failed, UnreachableError in time."""
        render_id = render if isinstance(render, str) else str(render["render_id"])
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            state = self.render_status(render_id)
            if on_progress is not None:
                on_progress(float(state["progress"]))
            if state["status"] == "delivered":
                return state
            if state["status"] in ("refused", "failed"):
                failure = state["failure"] or {"code": state["status"], "sentence": ""}
                status = 403 if state["status"] == "refused" else 500
                problem = {
                    "code": failure["code"],
                    "detail": failure["sentence"],
                    "reasons": [failure],
                    "log_index": state["closing_index"],
                }
                raise ProblemError(status, problem)
            time.sleep(0.2)
        raise UnreachableError("The render did not end in time.")

    def video(self, render_id: str) -> bytes:
        """The finished video."""
        return self._call("GET", f"/v1/renders/{render_id}/video", SCOPE_RENDER_READ).content

    def manifest(self, render_id: str) -> bytes:
        """Its C2PA manifest store."""
        return self._call("GET", f"/v1/renders/{render_id}/manifest", SCOPE_RENDER_READ).content

    # -- platforms

    def detect(
        self,
        media: bytes,
        media_type: str = "application/octet-stream",
        *,
        overlay: str = "",
        idempotency_key: str = "",
        timeout_s: float = 600.0,
    ) -> dict[str, Any]:
        """The layered report on an image, clip or sound; waits where it takes longer.

        Args:
            overlay: "png" or "mp4": have drawn where and when the evidence lies; see `heatmap`.
            idempotency_key: the same for requests that are the same, however often they are sent.
        Raises: ProblemError, UnreachableError: it did not end in time.
        """
        headers = {"Content-Type": media_type}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        params = {"overlay": overlay} if overlay else {}
        path = "/v1/detections"
        answer = self._call("POST", path, SCOPE_DETECT_CREATE, content=media, headers=headers, params=params)
        give_up_at = time.monotonic() + timeout_s
        while answer.status_code == 202 or "layers" not in answer.json():
            state = answer.json()
            if state["status"] == "done":
                return dict(state["report"])
            if state["status"] == "failed":
                raise ProblemError(422, state["problem"])
            if time.monotonic() > give_up_at:
                raise UnreachableError("The detection did not end in time.")
            time.sleep(0.5)
            answer = self._call("GET", f"{path}/{state['id']}", SCOPE_DETECT_CREATE)
        return dict(answer.json())

    def heatmap(self, report: Mapping[str, Any]) -> bytes:
        """The picture that was asked for with `overlay`. Raises: ProblemError: there is none, or no longer."""
        return self._call("GET", str(report["layers"]["detector"]["heatmap_url"]), SCOPE_DETECT_CREATE).content

    # -- auditors

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        return self._call("GET", "/v1/audit/checkpoint").text

    def log_key(self) -> str:
        """The log's public key, as a C2SP verifier key."""
        return self._call("GET", "/v1/audit/key").text.strip()

    def entries(self, start: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """A stretch of the log."""
        found = self._json("GET", "/v1/audit/entries", SCOPE_AUDIT_READ, params={"start": start, "limit": limit})
        return list(found["entries"])

    def entry(self, index: int) -> dict[str, Any]:
        """One log entry with its inclusion proof."""
        return self._json("GET", f"/v1/audit/entries/{index}", SCOPE_AUDIT_READ)

    def export(self) -> bytes:
        """The audit bundle: everything an outsider needs to verify the log."""
        return self._call("GET", "/v1/audit/export", SCOPE_AUDIT_READ).content

    # -- operators

    def register_client(self, **application: Any) -> dict[str, Any]:
        """Approve a client; fields as in `api.schemas.ClientIn`."""
        return self._json("POST", "/v1/operators/clients", SCOPE_OPERATOR_ADMIN, json=application)

    def invite(self, **invitation: Any) -> dict[str, Any]:
        """Invite an auditor or operator to make a passkey; fields as in `api.console.invitations.InvitationIn`."""
        return self._json("POST", "/v1/operators/invitations", SCOPE_OPERATOR_ADMIN, json=invitation)

    def clients(self) -> list[dict[str, Any]]:
        """All clients but the subjects."""
        return list(self._json("GET", "/v1/operators/clients", SCOPE_OPERATOR_ADMIN)["clients"])

    def amend_client(self, client_id: str, **terms: Any) -> dict[str, Any]:
        """Give a client another term or other budgets; fields as in `api.schemas.TermsIn`."""
        return self._json("POST", f"/v1/operators/clients/{client_id}/terms", SCOPE_OPERATOR_ADMIN, json=terms)

    def suspend_client(self, client_id: str, reason: str = "") -> dict[str, Any]:
        """End a client's approval at once."""
        path = f"/v1/operators/clients/{client_id}/suspension"
        return self._json("POST", path, SCOPE_OPERATOR_ADMIN, json={"reason": reason})

    def resume_client(self, client_id: str, reason: str = "") -> dict[str, Any]:
        """Lift a suspension."""
        path = f"/v1/operators/clients/{client_id}/resumption"
        return self._json("POST", path, SCOPE_OPERATOR_ADMIN, json={"reason": reason})

    def applications(self, status: str = "") -> list[dict[str, Any]]:
        """Applications of organisations, newest first; `status` is open, approved, refused or empty for all."""
        params = {"status": status} if status else {}
        found = self._json("GET", "/v1/operators/applications", SCOPE_OPERATOR_ADMIN, params=params)
        return list(found["applications"])

    def approve(self, application_id: str, **grant: Any) -> dict[str, Any]:
        """Let an applicant in; fields as in `api.schemas.GrantIn`. Returns the new client."""
        path = f"/v1/operators/applications/{application_id}/approval"
        return self._json("POST", path, SCOPE_OPERATOR_ADMIN, json=grant)

    def refuse(self, application_id: str, reason: str = "") -> dict[str, Any]:
        """Turn an applicant down."""
        path = f"/v1/operators/applications/{application_id}/refusal"
        return self._json("POST", path, SCOPE_OPERATOR_ADMIN, json={"reason": reason})

    # -- applicants

    def apply(self, **application: Any) -> dict[str, Any]:
        """Apply for access; fields as in `api.schemas.ApplicationIn`. Needs no credentials."""
        return dict(self._call("POST", "/v1/applications", json=application).json())

    def application(self, application_id: str) -> dict[str, Any]:
        """What became of an application."""
        return dict(self._call("GET", f"/v1/applications/{application_id}").json())

    # -- HTTP

    def _own(self) -> Credentials:
        if self.credentials is None:
            raise CredentialsError("This call needs the subject's credentials.")
        return self.credentials

    def call_json(self, method: str, path: str, scope: str, **options: Any) -> dict[str, Any]:
        """Any call that answers a JSON object, with a token for `scope`. Raises: ProblemError, UnreachableError."""
        return self._json(method, path, scope, **options)

    def _json(self, method: str, path: str, scope: str, **options: Any) -> dict[str, Any]:
        return dict(self._call(method, path, scope, **options).json())

    def _call(self, method: str, path: str, scope: str = "", **options: Any) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if scope:
            headers |= self.authorization(method, path, scope)
        try:
            response = self._http.request(method, path, headers=headers, **options)
        except httpx.TransportError as exc:
            raise UnreachableError(f"The service at {self.base_url} does not answer: is it running?") from exc
        if response.is_success:
            return response
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        raise ProblemError(response.status_code, problem if isinstance(problem, dict) else {})


class _TokenAuth(httpx.Auth):
    """Adds a client's token, and a fresh proof, to each request."""

    def __init__(self, client: PlacetClient, scope: str) -> None:
        self._client = client
        self._scope = scope

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.update(self._client.authorization(request.method, str(request.url), self._scope))
        yield request
