"""Settings of the service: the one place in the whole project that reads environment variables.

Every setting is `PLACET_<NAME>` in upper case, for example `PLACET_HOME=/srv/placet`. `placet serve` and `create_app`
take the same object, so that a test builds `Settings(home=...)` and touches no environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.oauth.trust import ExternalIssuer
from api.storage.addresses import Addresses
from api.storage.blobs import Bucket
from policy.keys import KeyAccess

MIB = 1024 * 1024

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """What one server needs to know. Defaults suit one machine."""

    model_config = SettingsConfigDict(env_prefix="PLACET_", frozen=True, extra="ignore")

    # -- where
    home: Path = Field(default=Path(".placet"), description="Directory of the instance.")
    host: str = Field(default="127.0.0.1", description="Address that `placet serve` listens on.")
    port: int = Field(default=8470, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    database: SecretStr = Field(
        default=SecretStr(""),
        description="URL of a PostgreSQL database, such as postgresql://placet@db.example/placet, that several API "
        "processes share. Empty: a SQLite file in HOME.",
    )
    blobs: str = Field(
        default="",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]+(/.*)?)?$",
        description="Bucket for videos, manifests and sealed portraits: s3://bucket/prefix. Empty: HOME/blobs.",
    )
    s3_endpoint: str = Field(default="", description="S3 server, if it is not Amazon's: http://minio.example:9000.")
    s3_region: str = Field(default="us-east-1", description="Region of the bucket.")
    s3_key_id: str = Field(default="", description="Access key id; empty: what the machine's role gives.")
    s3_secret: SecretStr = Field(default=SecretStr(""), description="Secret access key.")
    issuer: str = Field(
        default="",
        description="Public base URL, as clients see it: `iss` of access tokens and prefix of their audiences. "
        "Empty: `http://HOST:PORT`. Set it when a reverse proxy stands in front.",
    )

    # -- tokens
    token_lifetime_s: int = Field(default=300, gt=0, le=300, description="Lifetime of an access token.")
    clock_leeway_s: int = Field(default=5, ge=0, le=30, description="Clock difference tolerated in tokens.")
    proof_lifetime_s: int = Field(default=60, gt=0, le=300, description="Age up to which a DPoP proof is accepted.")
    challenge_lifetime_s: int = Field(default=300, gt=0, le=3600, description="Lifetime of an enrolment challenge.")

    # -- browsers
    session_idle_s: Seconds = Field(default=3600.0, description="A browser session ends after so long without use.")
    session_lifetime_s: Seconds = Field(default=12 * 3600.0, description="A browser session ends after so long anyway.")
    invitation_lifetime_s: Seconds = Field(
        default=24 * 3600.0, description="Lifetime of the one-time link that lets a member of staff make a passkey."
    )

    external_issuers: tuple[ExternalIssuer, ...] = Field(
        default=(),
        description="Outside issuers of access tokens, a JSON list; see `api.oauth.trust`. None is trusted by default.",
    )

    # -- how often
    trusted_proxies: str = Field(
        default="",
        description="Addresses of reverse proxies, separated by commas, whose X-Forwarded-For says who is calling. "
        "Empty: nobody's; limits then count the address that connects.",
    )
    token_requests_per_minute: int = Field(default=600, gt=0, description="Token requests, per address and client.")
    enrolments_per_minute: int = Field(default=60, gt=0, description="Challenges and enrolments, per address.")
    sign_ins_per_minute: int = Field(default=60, gt=0, description="Sign-ins with a passkey, per address.")
    applications_per_minute: int = Field(default=10, gt=0, description="Applications of organisations, per address.")
    detections_per_minute: int = Field(default=120, gt=0, description="Detections, per address and client.")
    rejections_logged_per_minute: int = Field(
        default=30, ge=0, description="Refused tokens per address that get a log entry each; more are counted in one."
    )

    # -- what may come in
    max_portrait_bytes: Bytes = Field(default=20 * MIB, description="Largest portrait file.")
    max_speech_bytes: Bytes = Field(default=64 * MIB, description="Largest speech file.")
    max_driving_bytes: Bytes = Field(default=64 * MIB, description="Largest driving clip.")
    max_detection_bytes: Bytes = Field(default=100 * MIB, description="Largest media file for detection.")
    max_json_bytes: Bytes = Field(
        default=256 * 1024, description="Largest JSON or form body, and largest text field of a form."
    )
    send_buffer_bytes: Bytes = Field(
        default=32 * 1024,
        description="Send buffer of a connection: what may still be on its way when a delivery is stopped. Larger is "
        "faster over long distances.",
    )
    max_speech_s: Seconds = Field(default=600.0, description="Longest speech that is rendered.")
    max_driving_s: Seconds = Field(default=20.0, description="Longest driving clip.")
    max_detection_s: Seconds = Field(default=60.0, description="Longest clip that the detection endpoint looks at.")

    # -- intake child process, per upload
    intake_memory_bytes: Bytes = Field(
        default=2048 * MIB, description="Address space that decoding one upload may take on top of the idle process."
    )
    intake_cpu_s: Seconds = Field(default=30.0, description="Processor time that decoding one upload may take.")
    intake_wall_s: Seconds = Field(default=60.0, description="Wall-clock time that decoding one upload may take.")
    driving_effort: float = Field(
        default=4.0,
        ge=1.0,
        description="How many times as much time as decoding, following the face in a clip may take.",
    )

    # -- engine
    manner: Path | None = Field(
        default=None, description="How faces move besides speaking: a file of `placet train motion --video`."
    )
    worker_name: str = Field(
        default="worker-1",
        pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$",
        description="Name that permits are made out to. Every server in front of one store needs one of its own.",
    )
    render_queue: int = Field(default=16, ge=1, description="Renders that may wait; one more is answered 503.")
    render_wall_s: Seconds = Field(default=1800.0, description="Time after which a silent worker is stopped.")
    examine_wall_s: Seconds = Field(default=180.0, description="Wall-clock time that one detection may take.")
    examiners: int = Field(
        default=1, ge=1, le=64, description="Detection processes side by side; each takes about 0.7 GB and two cores."
    )
    examine_memory_bytes: Bytes = Field(
        default=4096 * MIB, description="Address space that one detection may take on top of the idle process."
    )
    detection_memory_bytes: Bytes = Field(
        default=512 * MIB,
        description="What all media that wait for detection may take together; more waits with its body unread.",
    )
    detection_sync_s: float = Field(
        default=10.0, ge=0, description="Clips up to this length are answered at once, longer ones by polling."
    )
    detection_wait_s: Seconds = Field(
        default=60.0, description="How long a caller is kept waiting for a report before it is told to poll."
    )
    detection_keep_s: Seconds = Field(
        default=600.0, description="How long a finished report can be fetched; it is in memory only."
    )
    detections_per_day: int = Field(default=20_000, gt=0, description="Detections per client and day.")
    near_duplicates_per_hour: int = Field(
        default=60, gt=0, description="Detections per client and hour whose pictures look nearly alike."
    )
    public_detection: bool = Field(
        default=True, description="Whether /check answers people without an account, with coarse bands."
    )
    public_detections_per_minute: int = Field(default=6, gt=0, description="Detections without account, per address.")
    public_detections_per_day: int = Field(default=60, gt=0, description="The same per day.")
    public_near_duplicates_per_hour: int = Field(
        default=6, gt=0, description="The same per hour whose pictures look nearly alike."
    )
    detection_hook: str = Field(
        default="",
        pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$",
        description="`package.module:function` that says which hashes are not examined; see `api.detections.hooks`. "
        "Where it does not answer, nothing is.",
    )
    budget_s_per_day: float = Field(default=600.0, ge=0, description="Seconds of video per day for a new client.")
    threads: int = Field(
        default=0, ge=0, description="Processor threads for each engine process; 0 leaves it to the libraries."
    )
    prewarm: bool = Field(default=True, description="Start the engine processes with the server, not when needed.")

    # -- live sessions
    live_sessions: int = Field(
        default=2, ge=0, le=64, description="Live sessions side by side, each in a worker process of its own; 0: none."
    )
    max_live_s: Seconds = Field(default=600.0, description="Longest live session.")
    live_ticket_s: Seconds = Field(default=30.0, description="Time from opening a session to connecting to it.")
    live_grace_s: Seconds = Field(default=10.0, description="Time to come back after a connection was lost.")
    live_idle_s: Seconds = Field(default=60.0, description="A session ends after so long without a sound chunk.")
    live_silence_s: Seconds = Field(default=300.0, description="A session ends after so long of nothing but silence.")
    live_slow_s: Seconds = Field(
        default=4.0, description="A session ends when its client lags so far behind in taking segments."
    )
    live_log_interval_s: Seconds = Field(default=30.0, description="How often a session puts its state on record.")
    live_controls_per_s: int = Field(default=20, ge=1, description="Control changes per second; more are dropped.")

    # -- witnesses of the log
    witnesses: tuple[str, ...] = Field(
        default=(),
        description="Witnesses that cosign the log, each as `VERIFIER_KEY URL` (in the environment a JSON list). "
        "`placet witness init` prints the key.",
    )
    witness_required: int = Field(
        default=0,
        ge=0,
        description="Cosignatures that an entry needs before it is acknowledged: too few, and nothing is released. "
        "0: witnesses cosign behind the scenes.",
    )
    witness_timeout_s: Seconds = Field(default=5.0, description="Time that a witness has to answer.")
    witness_interval_s: Seconds = Field(default=1.0, description="How often new entries are shown to the witnesses.")
    witness_lag_alarm_s: Seconds = Field(default=60.0, description="Lag of the witnesses that raises an alarm.")

    # -- keys and rules
    kms: str = Field(
        default="file",
        description="Where the keys are: `file` (in HOME/keys), or a PKCS #11 URI such as "
        "`pkcs11:token=placet?module-path=/usr/lib/softhsm/libsofthsm2.so`.",
    )
    kms_pin: SecretStr = Field(default=SecretStr(""), description="PIN of the token; better given as a file.")
    kms_pin_file: Path | None = Field(default=None, description="File that holds the PIN of the token.")
    policies: Path | None = Field(
        default=None, description="Directory with the operator's own Cedar files; by default those that ship."
    )
    weights: Literal["packaged", "sealed"] = Field(
        default="packaged",
        description="Weights of the generator: as packaged, or only as sealed for this instance "
        "(`placet models seal`).",
    )

    # -- marks
    tsa_url: str = Field(
        default="embedded",
        description="RFC 3161 time-stamp authority for manifests: `embedded` (the instance's own), a URL, or empty for "
        "none. Where it is set, nothing is delivered without a stamp.",
    )
    tsa_roots: Path | None = Field(
        default=None,
        description="PEM file with the issuing certificates of a time-stamp authority of somebody else. Never a root "
        "that issues signing certificates too: what is in here is trusted for both.",
    )

    labels: tuple[Literal["eu", "cn", "us-ca"], ...] = Field(
        default=("us-ca",),
        description="Whose rules on labels are followed where they show in the picture: `eu` an icon, `cn` words for "
        "the first seconds. Metadata and disclosure cost nothing and are always there. A JSON list.",
    )

    @field_validator("tsa_url")
    @classmethod
    def _tsa_url_is_one(cls, value: str) -> str:
        if value not in {"", "embedded"} and urlsplit(value).scheme not in {"http", "https"}:
            raise ValueError("tsa_url is empty, “embedded”, or an http(s) URL")
        return value

    @field_validator("issuer")
    @classmethod
    def _issuer_is_a_base_url(cls, value: str) -> str:
        """An issuer is an origin, optionally with a path, without query, fragment or trailing slash (RFC 8414 §2)."""
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("issuer must be an http(s) URL without query and fragment")
        if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
            raise ValueError("issuer must use https unless it is on this machine")
        return value.rstrip("/")

    @property
    def key_access(self) -> KeyAccess:
        """How the keys are reached. Raises: OSError: the file with the PIN cannot be read."""
        pin = self.kms_pin.get_secret_value()
        return KeyAccess(self.kms, pin if self.kms_pin_file is None else self.kms_pin_file.read_text().strip())

    @property
    def rates_per_minute(self) -> dict[str, int]:
        """By kind of request; see `api.limits`."""
        return {
            "token requests.address": self.token_requests_per_minute,
            "token requests.client": self.token_requests_per_minute,
            "enrolments.address": self.enrolments_per_minute,
            "sign-ins.address": self.sign_ins_per_minute,
            "applications.address": self.applications_per_minute,
            "detections.address": self.detections_per_minute,
            "detections.client": self.detections_per_minute,
            "public detections.address": self.public_detections_per_minute,
        }

    @property
    def base_url(self) -> str:
        """The issuer, or what it defaults to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.issuer or f"http://{host}:{self.port}"

    @property
    def browser_origin(self) -> str:
        """Origin of the pages, as a browser writes it, and the one that passkeys are bound to.

        Passkeys need a name, not an address (WebAuthn §5.1.2): on loopback that is `localhost`.
        """
        parts = urlsplit(self.base_url)
        host = "localhost" if parts.hostname in {"127.0.0.1", "::1"} else str(parts.hostname)
        default_port = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default_port) else "")

    @property
    def rp_id(self) -> str:
        """WebAuthn relying party id: the host of `browser_origin`."""
        return str(urlsplit(self.browser_origin).hostname)

    @property
    def addresses(self) -> Addresses:
        """Where everything is but keys and log: files in the home, unless others are set."""
        bucket = Bucket(self.blobs, self.s3_endpoint, self.s3_region, self.s3_key_id, self.s3_secret.get_secret_value())
        return Addresses(
            self.database.get_secret_value() or self.home / "placet.sqlite3",
            bucket if self.blobs else self.home / "blobs",
        )

    @property
    def is_shared(self) -> bool:
        """Whether other servers may be working on the same store."""
        return bool(self.database.get_secret_value())

    @property
    def staging_dir(self) -> Path:
        """Where this server's worker writes before the gateway publishes; emptied at every start."""
        return self.home / "staging" / self.worker_name

    @property
    def witnesses_dir(self) -> Path:
        """The newest checkpoint that witnesses have cosigned."""
        return self.home / "witnesses"

    @property
    def sealed_weights_dir(self) -> Path:
        """Weights that only this instance's keys open."""
        return self.home / "weights"

    @property
    def operator_key_path(self) -> Path:
        """Private JWK of the local operator's OAuth client."""
        return self.home / "operator.jwk"
