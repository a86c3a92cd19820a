"""A headless Chromium that is told what to do through a pipe (the DevTools protocol), with nothing but the standard
library: to look at pages that draw themselves late, as TensorBoard's do."""

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

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
SOFTWARE = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL, for the projector


class Page:
    """One tab."""

    def __init__(self, send: Any, session: str) -> None:
        self._send, self._session = send, session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; its result."""
        return self._send(method, parameters, self._session)

    def open(self, url: str, width: int = 1280, height: int = 800, scale: float = 1, dark: bool = False) -> None:
        """Go to an address in a window of a size, in pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        theme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.send("Page.navigate", url="about:blank")  # or a new fragment would not load the page anew
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """What an expression gives there."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait for an expression to become true."""
        end = time.monotonic() + seconds
        while not self.run(f"!!({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"still not true after {seconds} s: {condition}")
            time.sleep(0.25)

    def shot(self, path: Path, whole: bool = False) -> Path:
        """The window, or the whole page, as a PNG."""
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))
        return path


def found() -> str | None:
    """The program, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser(webgl: bool = False) -> Iterator[Page]:
    """A browser with one tab, gone afterwards; SystemExit with a clear message where there is none."""
    program = found()
    if program is None:
        sys.exit("screenshots need Chromium or Chrome on the path (Debian and Ubuntu: apt install chromium)")
    ours, theirs = os.pipe(), os.pipe()  # (read, write) of what it is told, and of what it says

    def in_place() -> None:  # Chromium reads file descriptor 3 and writes to 4
        told, says = os.dup(ours[0]), os.dup(theirs[1])
        os.dup2(told, 3), os.dup2(says, 4)

    with tempfile.TemporaryDirectory(prefix="aetrain-browser-") as profile:
        said = [program, *FLAGS, *(SOFTWARE if webgl else ()), f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            said, close_fds=False, preexec_fn=in_place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(ours[0]), os.close(theirs[1])
        with os.fdopen(ours[1], "wb", buffering=0) as tell, os.fdopen(theirs[0], "rb") as hear:
            try:
                yield _tab(tell, hear)
            finally:
                process.terminate()
                process.wait(20)


def _tab(tell: Any, hear: Any) -> Page:
    number, pending = 0, b""

    def send(method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        nonlocal number, pending
        number += 1
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        tell.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in pending:
                chunk = hear.read1(1 << 20)
                if not chunk:
                    raise RuntimeError("the browser has gone")
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
