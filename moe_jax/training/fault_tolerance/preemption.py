"""Watch for a preemption notice of Compute Engine, which precedes the SIGTERM.

The metadata server of a machine has two keys for it: `instance/preempted` becomes TRUE when a spot
machine is preempted, and `instance/maintenance-event` becomes TERMINATE_ON_HOST_MAINTENANCE before
its host is maintained. The server answers a request when a key changes. A live migration
(MIGRATE_ON_HOST_MAINTENANCE) does not interrupt the machine and is ignored.
"""

import os
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable

VARIABLE = "MOE_JAX_METADATA_URL"
URL = "http://metadata.google.internal/computeMetadata/v1"
_HEADER, _FLAVOR = "Metadata-Flavor", "Google"
PREEMPTED = "instance/preempted"
MAINTENANCE = "instance/maintenance-event"
_MESSAGES = {
    PREEMPTED: ("TRUE", "the cloud is pre-empting this machine"),
    MAINTENANCE: ("TERMINATE_ON_HOST_MAINTENANCE", "the cloud is stopping this machine's host"),
}
# Time limit for the first request: without a server, there is no notice.
_PROBE_SECONDS = 1.0
# How long one request waits for a change, and the additional time allowed for the response.
_WAIT_SECONDS, _RESPONSE_SECONDS = 60, 10.0
_RETRY_SECONDS = 5.0


class PreemptionNotice:
    """A context manager that watches the metadata server from background threads.

    It never raises. It does nothing if the server does not respond within a second (on other
    clouds, on a laptop) or if `url` is empty.

    A maintenance event that is already announced when watching starts is ignored: it may stand for
    an hour, and a run restarted in that time would stop again immediately.

    Args:
        notify: called once with a sentence, from another thread.
        url: of the server, up to the version; by default the value of `MOE_JAX_METADATA_URL`, or
            the server of Compute Engine.
        retry_seconds: delay after a failed request.

    Attributes:
        reason: the sentence; None before a notice.
    """

    def __init__(
        self,
        notify: Callable[[str], object],
        url: str | None = None,
        *,
        retry_seconds: float = _RETRY_SECONDS,
    ):
        self.reason: str | None = None
        self._notify, self._retry = notify, retry_seconds
        self._url = (os.environ.get(VARIABLE, URL) if url is None else url).rstrip("/")
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        # No proxy: the server is local to the machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> "PreemptionNotice":
        for key in _MESSAGES if self._url else ():
            name = f"notice of {key}"
            threading.Thread(target=self._watch, args=(key,), name=name, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # The threads may still wait for a response; as daemons they end with the process.
        self._stopped.set()

    def _watch(self, key: str) -> None:
        """Watches one key until its notice or the end of the context."""
        alarm, message = _MESSAGES[key]
        try:
            value, etag = self._request(key, _PROBE_SECONDS)
        except Exception:
            return
        counts = key == PREEMPTED  # True if the value counts as a notice.
        while not self._stopped.is_set():
            if value == alarm and counts:
                self._notify_once(message)
                return
            # For other keys only a change to the value is a notice.
            counts = counts or value != alarm
            query = {"wait_for_change": "true", "timeout_sec": _WAIT_SECONDS, "last_etag": etag}
            before = etag
            try:
                value, etag = self._request(key, _WAIT_SECONDS + _RESPONSE_SECONDS, query)
            except Exception:
                # The server restarts now and then (503).
                self._stopped.wait(self._retry)
            else:
                # The server does not wait for changes: do not poll it in a tight loop.
                if etag == before:
                    self._stopped.wait(min(self._retry, 1.0))

    def _request(
        self, key: str, timeout: float, query: dict[str, object] | None = None
    ) -> tuple[str, str]:
        """Returns the value of a key and its ETag.

        Raises:
            OSError: if the server does not respond, or is not a metadata server.
        """
        url = f"{self._url}/{key}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(url, headers={_HEADER: _FLAVOR})
        with self._opener.open(request, timeout=timeout) as response:
            if response.headers.get(_HEADER) != _FLAVOR:
                raise OSError(f"{url} is not a metadata server")
            return response.read(1000).decode().strip(), response.headers.get("ETag", "0")

    def _notify_once(self, message: str) -> None:
        with self._lock:
            if self.reason is not None or self._stopped.is_set():
                return
            self.reason = message
        try:
            self._notify(message)
        except Exception:
            # An error in the callback must not end a run that can still save.
            return
