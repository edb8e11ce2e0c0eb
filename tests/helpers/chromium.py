"""Chromium without a window, driven over its DevTools pipe with the standard library alone.

Protocol: https://chromedevtools.github.io/devtools-protocol/; messages are JSON, each ended by a
zero byte, read by the browser from its file descriptor 3 and written to 4.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WAIT_SECONDS = 60


def find_chromium():
    """Returns the path of a browser, of the variable CHROMIUM first; None if there is none."""
    named = os.environ.get("CHROMIUM")
    return next((path for name in (named, *NAMES) if name and (path := shutil.which(name))), None)


@contextlib.contextmanager
def browser(directory):
    """Starts a browser with its profile in a directory; yields a `Browser`."""
    # Numbers above those that the browser's ends of the pipes get.
    pipes = [[fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in os.pipe()] for _ in range(2)]
    (its_input, our_output), (our_input, its_output) = pipes
    nothing = os.open(os.devnull, os.O_RDWR)
    command = [
        find_chromium(),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={directory}",
        "--remote-debugging-pipe",
    ]
    process = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, its_input, 3),
            (os.POSIX_SPAWN_DUP2, its_output, 4),
            *((os.POSIX_SPAWN_DUP2, nothing, stream) for stream in (0, 1, 2)),
        ],
    )
    for end in (its_input, its_output, nothing):
        os.close(end)
    opened = Browser(our_input, our_output)
    try:
        yield opened
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            opened.send("Browser.close")
        _end(process)
        os.close(our_input)
        os.close(our_output)


def _end(process):
    """Waits until a process has ended, and kills it if it takes long."""
    for _ in range(100):
        if os.waitpid(process, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


class Browser:
    """A browser; `events` has what it reported of its pages."""

    def __init__(self, source, sink):
        self.events = []
        self._source, self._sink, self._number, self._buffer = source, sink, 0, b""

    def send(self, method, session=None, **params):
        """Calls a method and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        text = json.dumps(message).encode() + b"\0"
        while text:
            text = text[os.write(self._sink, text) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        """Waits for an event that was not reported before this call, or since `clear`."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._read())

    def _read(self):
        while b"\0" not in self._buffer:
            if not select.select([self._source], [], [], WAIT_SECONDS)[0]:
                raise RuntimeError(f"the browser says nothing for {WAIT_SECONDS} s")
            got = os.read(self._source, 1 << 20)
            if not got:
                raise RuntimeError("the browser has ended")
            self._buffer += got
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class Page:
    """A page at a width in a colour scheme.

    Attributes:
        width: its width in pixels.
        requests: URLs that were asked for.
        complaints: texts of errors, warnings and console messages.
    """

    def __init__(self, opened, url, width=1200, scheme="light"):
        self._browser = opened
        opened.events.clear()
        target = opened.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = opened.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable")
        self._resize(width)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._send("Emulation.setEmulatedMedia", features=features)
        self._send("Page.navigate", url=url)
        opened.wait("Page.loadEventFired")

    def _send(self, method, **params):
        return self._browser.send(method, self._session, **params)

    def _resize(self, width):
        self.width = width
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._send("Emulation.setDeviceMetricsOverride", **size)

    def print_media(self):
        """Shows the page as it is printed, at the width between the margins of a sheet of A4."""
        self._send("Emulation.setEmulatedMedia", media="print")
        self._resize(round((210 - 2 * 14) / 25.4 * 96))

    def evaluate(self, expression):
        """Returns the value of a JavaScript expression."""
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def screenshot(self):
        """Returns the whole page as PNG."""
        found = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def pdf(self):
        """Returns the printed page."""
        return base64.b64decode(self._send("Page.printToPDF", printBackground=False)["data"])

    @property
    def requests(self):
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self):
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self._browser.events if e.get("method") in kinds]
