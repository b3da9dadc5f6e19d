"""Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_SECONDS = 60


class Page:
    """A page that is open."""

    def __init__(self, websocket: Any) -> None:
        self._websocket, self._numbers, self._session = websocket, itertools.count(1), {}
        self.complaints: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Runtime", "Page", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._session}
        self._websocket.send(json.dumps(message))
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        answer = json.loads(self._websocket.recv(_SECONDS))
        if answer.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(answer["params"]))
        if answer.get("method") == "Log.entryAdded":
            entry = answer["params"]["entry"]
            # Refusals of the server are logged, too.
            if entry["level"] != "verbose" and entry["source"] != "network":
                self.complaints.append(json.dumps(entry))
        self._loaded |= answer.get("method") == "Page.loadEventFired"
        return answer

    def run(self, code: str) -> Any:
        """The value of JavaScript, of a promise what comes of it; as if a user had touched the page."""
        options = {"awaitPromise": True, "userGesture": True, "returnByValue": True}
        found = self.call("Runtime.evaluate", expression=code, **options)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._next()

    def until(self, condition: str) -> None:
        """Wait until JavaScript is true."""
        self.run(
            f"new Promise((resolve, reject) => {{ const end = Date.now() + {1000 * _SECONDS // 2};"
            f"const look = () => ({condition}) ? resolve() : Date.now() > end ? reject(document.body.innerText) : setTimeout(look, 20);"
            "look(); })"
        )

    def choose(self, path: Path) -> None:
        """Give the server's page a file, as its user does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, by its name and its number in Windows; ``text`` is what it writes."""
        options = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **options, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def picture(self, path: Path) -> None:
        """A picture of what is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browsing(folder: Path, microphone: Path) -> Iterator[Page]:
    """A browser whose microphone hears a WAV file, once.

    Args:
        folder: for its profile.
        microphone: the file.
    """
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}%noloop",
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(folder)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            address = next(line.split()[-1] for line in process.stderr if "DevTools listening on" in line)
            with connect(address, max_size=None, compression=None) as websocket:
                yield Page(websocket)
        finally:
            process.terminate()
            process.communicate()
