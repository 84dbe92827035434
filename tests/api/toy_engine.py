"""An engine process with toy jobs, for the tests of `api.engine.process`: real processes, real sockets."""

from __future__ import annotations

import os
import sys
import time

from api.engine.child import Handler, Progress, connect, serve
from api.engine.wire import Message
from watermark.errors import UnsupportedMediaError


def prepare(hello: Message) -> Handler:
    """Nothing to load."""
    if hello.header.get("fail"):
        raise RuntimeError("cannot start")
    return handle


def handle(job: Message, progress: Progress) -> Message:
    """Do what the job says."""
    match job.header["do"]:
        case "refuse":
            raise UnsupportedMediaError("This is refused: send something else.")
        case "break":
            raise RuntimeError("boom")
        case "die":
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "ask":
            answer = progress.ask({"what": str(job.header["what"])}, job.attachments)
            return Message({"answer": answer.header["echo"]}, answer.attachments)
    progress(0.5)
    return Message({}, job.attachments)


if __name__ == "__main__":
    serve(connect(sys.argv), prepare)
