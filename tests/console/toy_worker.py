"""A render worker that makes no pictures, for the tests of the pages: real process, real wire, instant answers.

That permits hold is tested where the real worker is; here only what people see of a render matters.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from api.engine.child import Handler, Progress, connect, serve
from api.engine.wire import Message
from api.engine.worker import PREPARE

SUMMARY = {"width": 512, "height": 512, "face": 1}


def prepare(hello: Message) -> Handler:
    """Nothing to load."""
    return handle


def handle(job: Message, progress: Progress) -> Message:
    """A summary for a portrait, a file for a render."""
    if job.header["op"] == PREPARE:
        return Message({"summary": SUMMARY})
    content = b"toy video of " + hashlib.sha256(job.attachments["speech"]).digest()
    Path(job.header["dst"]).write_bytes(content)
    produced = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "manifest_id": f"urn:c2pa:toy:{hashlib.sha256(content).hexdigest()[:16]}",
        "num_frames": 40,
        "duration_s": 1.6,
    }
    return Message({"produced": produced}, {"manifest_store": b"toy manifest"})


if __name__ == "__main__":
    serve(connect(sys.argv), prepare)
