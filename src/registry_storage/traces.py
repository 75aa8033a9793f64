"""Spans of what a cold start waits for, sent by OTLP; nothing at all unless `set_up` was called.

The libraries are an extra (``pip install registry-storage[traces]``), and imported only then.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ConfigError

SEND_SECONDS = 2.0
"""For the last spans, when the process is about to end."""
_tracer: Any = None


def set_up(url: str, version: str) -> Callable[[], None]:
    """Send spans to `url` from now on; returns what sends the last of them, once, at the end. Raises ConfigError."""
    global _tracer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"traces: {error.name} is not installed: pip install 'registry-storage[traces]'") from None
    resource = Resource.create({"service.name": "registry-storage", "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    _tracer = provider.get_tracer("registry_storage", version)

    def shut_down() -> None:
        global _tracer
        if _tracer is not None:
            _tracer = None
            sending = threading.Thread(target=provider.shutdown, daemon=True)
            sending.start()
            sending.join(SEND_SECONDS)

    return shut_down


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """Around a piece of work; spans of what it starts, also in other tasks, are below this one."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name, attributes=attributes):
        yield


@contextmanager
def leaf(name: str, **attributes: str | int | float) -> Iterator[None]:
    """The same for work that starts nothing; may be used in generators, which change hands."""
    if _tracer is None:
        yield
        return
    started = _tracer.start_span(name, attributes=attributes)
    try:
        yield
    except BaseException as error:
        started.record_exception(error)
        raise
    finally:
        started.end()
