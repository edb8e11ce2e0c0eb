"""A metadata server like Compute Engine's, on this machine."""

import http.server
import threading
import urllib.parse

from moe_jax.training.fault_tolerance.preemption import MAINTENANCE, PREEMPTED


class MetadataServer(http.server.ThreadingHTTPServer):
    """Answers like Compute Engine's: at once, or, with `wait_for_change`, when a value changes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.values = {PREEMPTED: "FALSE", MAINTENANCE: "NONE"}
        self.changed = threading.Condition()
        self.asked, self.failures, self.flavor, self.over = [], 0, "Google", False
        # Set when a question waits for a change of this key.
        self.waiting = {key: threading.Event() for key in self.values}
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/computeMetadata/v1"

    def close(self):
        """Answers all questions and ends."""
        with self.changed:
            self.over = True
            self.changed.notify_all()
        self.shutdown()
        self.server_close()

    def handle_error(self, *args):
        """Prints nothing: who asked may have been killed."""

    def set(self, key, value):
        """Changes a value, once somebody waits for that."""
        assert self.waiting[key].wait(30)
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, parts = self.server, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        key = parts.path.removeprefix("/computeMetadata/v1/")
        server.asked.append((key, query, self.headers.get("Metadata-Flavor")))
        with server.changed:
            if query.get("wait_for_change") == "true":
                if server.failures:
                    server.failures -= 1
                    self.send_error(503)
                    return
                server.waiting[key].set()
                last = query["last_etag"]
                server.changed.wait_for(lambda: server.over or tag(server.values[key]) != last, 60)
            value = server.values[key]
        self.send_response(200)
        self.send_header("Metadata-Flavor", server.flavor)
        self.send_header("ETag", tag(value))
        self.send_header("Content-Length", str(len(value)))
        self.end_headers()
        self.wfile.write(value.encode())

    def log_message(self, *args):
        """Prints nothing."""


def tag(value):
    return f"tag-of-{value}"
