"""A headless Chromium for tests, driven over its own debugging pipe: nothing to install but the browser.

with Browser(1920, 1080) as browser:
    browser.open(url)
    browser.press("PageDown")
    assert browser.run("document.title") == "..."
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(not BROWSER or os.name == "nt", reason="no Chromium (apt-get install chromium)")
CODES = {"PageDown": 34, "PageUp": 33, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39, "Enter": 13}
PIPES = """import fcntl, os, sys  # the browser reads its commands from 3 and writes its answers to 4
held = [fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 60) for pipe in sys.argv[1:3]]
os.dup2(held[0], 3), os.dup2(held[1], 4)
os.execv(sys.argv[3], sys.argv[3:])"""


class Browser:
    """One page of the size given. ``errors``: what its console complained of, and uncaught exceptions."""

    def __init__(self, width=1280, height=720, dark=False):
        self.size, self.dark, self.last, self.errors = (width, height), dark, 0, []
        self.buffer = b""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        down, up = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        flags += ["--hide-scrollbars", f"--user-data-dir={self.folder.name}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PIPES, str(down[0]), str(up[1]), BROWSER, *flags],
            pass_fds=(down[0], up[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(down[0])
        os.close(up[1])
        self.writer, self.reader, self.session = down[1], up[0], None
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.resize(*self.size)
        return self

    def __exit__(self, *_):
        try:
            self.session = None
            self.send("Browser.close")
        except (OSError, EOFError, TimeoutError):
            pass
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.writer)
        os.close(self.reader)
        self.folder.cleanup()

    def send(self, method, seconds=60, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = self.receive(end - time.monotonic())
            if answer and answer.get("id") == self.last:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
        raise TimeoutError(method)

    def receive(self, seconds):
        while b"\0" not in self.buffer:
            if not select.select([self.reader], [], [], max(seconds, 0))[0]:
                return None
            more = os.read(self.reader, 1 << 16)
            if not more:
                raise EOFError("the browser has gone")
            self.buffer += more
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        method, what = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(what["exceptionDetails"].get("exception", {}).get("description", "exception"))
        if method == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(what["entry"]["text"])
        return message

    def resize(self, width, height):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, expression):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, seconds=30):
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"after {seconds} s not true: {expression}"
            time.sleep(0.05)

    def press(self, key):
        """A key, as the keyboard sends it."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = CODES.get(key, 27 if key == "Escape" else ord(key[0].upper()))
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
