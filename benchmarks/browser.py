"""A headless Chromium, controlled through a pipe (the DevTools protocol), for screenshots of pages that load slowly.

It needs only the standard library.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
# WebGL, which the projector needs, rendered in software.
WEBGL_FLAGS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_BROWSER = "screenshots need Chromium or Chrome on the path (Debian and Ubuntu: apt install chromium)"


class Page:
    """A tab of the browser."""

    def __init__(self, send: Any, session: str) -> None:
        self._send, self._session = send, session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol; return its result."""
        return self._send(method, parameters, self._session)

    def open(self, url: str, width: int = 1280, height: int = 800, scale: float = 1, dark: bool = False) -> None:
        """Load an address in a window of `width` x `height` pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        theme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.send("Page.navigate", url="about:blank")  # otherwise a new fragment would not reload the page
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression; RuntimeError if it throws."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true; TimeoutError after `seconds`."""
        end = time.monotonic() + seconds
        while not self.run(f"!!({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds} s: {condition}")
            time.sleep(0.25)

    def screenshot(self, path: Path, whole: bool = False) -> Path:
        """Write the window, or the whole page, to `path` as a PNG file; return `path`."""
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))
        return path


def find_browser() -> str | None:
    """Return the path of the browser, or None."""
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


@contextmanager
def browser(webgl: bool = False) -> Iterator[Page]:
    """Run a browser with one tab inside the block; SystemExit with a clear message if no browser is installed."""
    program = find_browser()
    if program is None:
        sys.exit(NO_BROWSER)
    command_pipe, answer_pipe = os.pipe(), os.pipe()  # (read, write)

    def connect_pipes() -> None:  # Chromium reads file descriptor 3 and writes to 4
        commands, answers = os.dup(command_pipe[0]), os.dup(answer_pipe[1])
        os.dup2(commands, 3)
        os.dup2(answers, 4)

    with tempfile.TemporaryDirectory(prefix="aetrain-browser-") as profile:
        flags = [*FLAGS, *(WEBGL_FLAGS if webgl else ())]
        command = [program, *flags, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            command,
            close_fds=False,
            preexec_fn=connect_pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_pipe[0])
        os.close(answer_pipe[1])
        with os.fdopen(command_pipe[1], "wb", buffering=0) as commands, os.fdopen(answer_pipe[0], "rb") as answers:
            try:
                yield open_tab(commands, answers)
            finally:
                process.terminate()
                process.wait(20)


def open_tab(commands: Any, answers: Any) -> Page:
    """Open a tab of the browser behind two files."""
    number, pending = 0, b""

    def send(method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        nonlocal number, pending
        number += 1
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        commands.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in pending:
                chunk = answers.read1(1 << 20)
                if not chunk:
                    raise RuntimeError("the browser has closed its pipe")
                pending += chunk
            text, _, pending = pending.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    target = send("Target.createTarget", {"url": "about:blank"})["targetId"]
    session = send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
    page = Page(send, session)
    page.send("Page.enable")
    return page
