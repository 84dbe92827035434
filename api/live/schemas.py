"""HTTP types of live sessions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class LiveSessionIn(BaseModel):
    """A live session that somebody asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    subject_id: str = Field(max_length=200, description="whom the stream will show")
    portrait_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="an enrolled portrait")
    purpose: str = Field(max_length=200, pattern=r"^[\x21-\x7e]+$", description="IRI that the consent must cover")
    controls: dict[str, Any] = Field(
        default_factory=dict,
        max_length=32,
        description="motion controls from the start; null for one that may be set while somebody speaks",
    )
    max_duration_s: float = Field(
        default=300.0, ge=0.04, le=86_400, description="counts against the budget until it ends"
    )
    rate_hz: Literal[25, 40] = Field(default=25, description="frames per second")
    sound_rate_hz: Literal[16_000, 48_000] = Field(default=16_000, description="of the PCM that will be sent")
    frames_per_segment: int = Field(default=1, ge=1, le=5)
    record: bool = Field(default=True, description="keep the session as one signed video")
    pace: Literal["realtime", "free"] = Field(
        default="realtime",
        description="realtime: gaps become silence, sound that comes too fast is dropped; free: as fast as it goes",
    )


class LiveSessionOut(BaseModel):
    """A session that waits for its client."""

    session_id: str
    url: str = Field(description="WebSocket to connect to")
    subprotocol: str
    ticket: str = Field(description="for the first message, once; see docs/live.md")
    ticket_expires_in_s: float
    render_id: str = Field(description="the session as a render: its state, and its recording")
    mark_id: str
    decision_index: int
