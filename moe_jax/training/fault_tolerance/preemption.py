"""Notice that a machine in Compute Engine is about to be taken away, before the SIGTERM.

The machine's metadata server says so in two places: `instance/preempted` becomes TRUE when a spot
machine is pre-empted, and `instance/maintenance-event` becomes TERMINATE_ON_HOST_MAINTENANCE before
its host is maintained. Both can be waited for. A live migration (MIGRATE_ON_HOST_MAINTENANCE) stops
nothing and is let pass.
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
# How long the server is looked for: where there is none, there is no notice.
_PROBE_SECONDS = 1.0
# How long one question waits for a change, and what is allowed on top for the answer.
_WAIT_SECONDS, _ANSWER_SECONDS = 60, 10.0
_RETRY_SECONDS = 5.0


class PreemptionNotice:
    """Asks the metadata server, from threads of its own. Use as a context manager.

    Never raises. It does nothing where the server does not answer within a second (on other clouds,
    on a laptop) and where `url` is empty.

    A maintenance event that stands when watching starts is no notice: it may stand for an hour, and
    a run that is started again in that time would stop again at once.

    Args:
        notify: called with a sentence, once, from another thread.
        url: of the server, up to the version; by default what `MOE_JAX_METADATA_URL` says, or
            Compute Engine's.
        retry_seconds: from a question that failed to the next.

    Attributes:
        reason: the sentence, None before a notice.
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
        self._over = threading.Event()
        self._lock = threading.Lock()
        # Not through a proxy: the server is this machine's own.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> "PreemptionNotice":
        for key in _MESSAGES if self._url else ():
            name = f"notice of {key}"
            threading.Thread(target=self._watch, args=(key,), name=name, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # The threads are left to their questions: they end with the process.
        self._over.set()

    def _watch(self, key: str) -> None:
        """Follows one key until its notice comes or watching is over."""
        alarm, message = _MESSAGES[key]
        try:
            value, etag = self._ask(key, _PROBE_SECONDS)
        except Exception:
            return
        counts = key == PREEMPTED
        while not self._over.is_set():
            if value == alarm and counts:
                self._tell(message)
                return
            # Only a change to it is a notice.
            counts = counts or value != alarm
            query = {"wait_for_change": "true", "timeout_sec": _WAIT_SECONDS, "last_etag": etag}
            before = etag
            try:
                value, etag = self._ask(key, _WAIT_SECONDS + _ANSWER_SECONDS, query)
            except Exception:
                # Restarts of the server, 503: it comes back.
                self._over.wait(self._retry)
            else:
                # Nothing changed: not to ask in a tight loop a server that does not wait.
                if etag == before:
                    self._over.wait(min(self._retry, 1.0))

    def _ask(
        self, key: str, timeout: float, query: dict[str, object] | None = None
    ) -> tuple[str, str]:
        """Returns a value of the server and its tag.

        Raises:
            OSError: if the server does not answer, or is not a metadata server.
        """
        url = f"{self._url}/{key}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(url, headers={_HEADER: _FLAVOR})
        with self._opener.open(request, timeout=timeout) as answer:
            if answer.headers.get(_HEADER) != _FLAVOR:
                raise OSError(f"{url} is not a metadata server")
            return answer.read(1000).decode().strip(), answer.headers.get("ETag", "0")

    def _tell(self, message: str) -> None:
        with self._lock:
            if self.reason is not None or self._over.is_set():
                return
            self.reason = message
        try:
            self._notify(message)
        except Exception:
            # A notice that cannot be passed on must not end a run that could still save.
            return
