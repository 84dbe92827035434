"""Counters and gauges in Prometheus text form (exposition format 0.0.4): few, without any label that names a person."""

from __future__ import annotations

import threading
from collections import defaultdict

HELP = {
    "placet_http_requests_total": "HTTP requests by method, route and status.",
    "placet_renders_total": "Renders by outcome.",
    "placet_detections_total": "Detections by verdict.",
    "placet_token_rejections_total": "Access tokens and token requests refused, by code.",
    "placet_refused_inputs_total": "Uploads that could not be used, by code.",
    "placet_delivered_bytes_total": "Bytes of videos handed out.",
    "placet_live_sessions_total": "Live sessions by what became of them; opened for each that was let in.",
    "placet_live_dropped_total": "Sound chunks of live sessions that were dropped, by code.",
    "placet_deliveries_stopped_total": "Videos whose delivery was stopped on the way, by code.",
}


class Metrics:
    """Thread-safe counters."""

    def __init__(self) -> None:
        self._counters: defaultdict[tuple[str, tuple[tuple[str, str], ...]], int] = defaultdict(int)
        self._lock = threading.Lock()

    def count(self, name: str, **labels: str) -> None:
        """Add one."""
        assert name in HELP, name
        with self._lock:
            self._counters[name, tuple(sorted(labels.items()))] += 1

    def add(self, name: str, amount: int) -> None:
        """Add more than one, of a counter without labels."""
        assert name in HELP, name
        with self._lock:
            self._counters[name, ()] += amount

    def value(self, name: str) -> int:
        """A counter without labels, as it stands."""
        with self._lock:
            return self._counters[name, ()]

    def text(self, gauges: dict[str, float]) -> str:
        """Everything, for a scrape; `gauges` are read by the caller at that moment."""
        with self._lock:
            counters = sorted(self._counters.items())
        lines = []
        for name, help_text in HELP.items():
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} counter"]
            lines += [f"{name}{_labels(labels)} {value}" for (counter, labels), value in counters if counter == name]
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
