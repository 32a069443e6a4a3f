"""A real browser without a window, driven through its debugging pipe: what a page does, and how it looks."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)
FAULTS = {"Runtime.exceptionThrown", "Page.javascriptDialogOpening"}

LOOK = """
(() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const small = [], outside = [], overlapping = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || element.closest("script, style") || !element.getClientRects().length) continue;
    const scale = element.ownerSVGElement ? Math.hypot(element.getScreenCTM().b, element.getScreenCTM().d) : 1;
    const size = scale * parseFloat(getComputedStyle(element).fontSize);
    if (size < 11) small.push(`${text}: ${size.toFixed(1)} px`);
  }
  for (const svg of document.querySelectorAll("svg")) {
    const box = svg.getBoundingClientRect();
    const labels = [...svg.querySelectorAll("text")].map(one => [one.textContent.trim(), one.getBoundingClientRect()]);
    labels.forEach(([text, one], number) => {
      if (one.left < box.left - 1 || one.right > box.right + 1 || one.top < box.top - 1 || one.bottom > box.bottom + 1)
        outside.push(text);
      for (const [other, two] of labels.slice(number + 1))
        if (Math.min(one.right, two.right) - Math.max(one.left, two.left) > 1
            && Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > 3)
          overlapping.push(`${text} | ${other}`);
    });
  }
  return {small, outside, overlapping, width: document.documentElement.scrollWidth};
})()
"""
"""What is too small to be read (as it is drawn), lies outside of its picture, or on another label; and the width."""


def path_of_browser() -> str | None:
    """Where a Chromium is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Page:
    """An open page; `faults` has errors on its console and dialogs that scripts opened, `fetched` what it asked for."""

    browser: "Browser"
    session: str
    faults: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    loaded: bool = False

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.ask(method, self.session, **parameters)

    def evaluate(self, code: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: str) -> None:
        """Press and release a key that types nothing but a letter."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=code, text=key if len(key) == 1 else "")

    def picture(self, file: Path) -> None:
        """Keep what the whole page looks like."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """A running browser: commands go into one pipe, answers and events come out of another, each ended by a zero."""

    def __init__(self, writing: int, reading: int) -> None:
        self.writing, self.reading = os.fdopen(writing, "wb"), os.fdopen(reading, "rb")
        self.number, self.rest = 0, b""
        self.pages: dict[str, Page] = {}

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        asked = self.number
        message = {"id": asked, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        self.writing.write(json.dumps(message).encode() + b"\0")
        self.writing.flush()
        while True:
            said = self._next()
            if said.get("id") == asked:
                assert "error" not in said, (method, said)
                return said["result"]

    @contextmanager
    def page(self, file: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Page]:
        """Open a file and wait until it is loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.ask("Emulation.setEmulatedMedia", features=[scheme])
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.ask("Page.navigate", url=file.resolve().as_uri())
        while not page.loaded:
            self._next()
        try:
            yield page
        finally:
            self.ask("Target.closeTarget", targetId=target)
            del self.pages[session]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            read = self.reading.read1(1 << 16)
            assert read, "the browser ended"
            self.rest += read
        message, _, self.rest = self.rest.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        if page := self.pages.get(said.get("sessionId", "")):
            self._note(page, said.get("method", ""), said.get("params", {}))
        return said

    def _note(self, page: Page, event: str, about: dict[str, Any]) -> None:
        page.loaded |= event == "Page.loadEventFired"
        if event == "Network.requestWillBeSent":
            page.fetched.append(about["request"]["url"])
        if event == "Page.javascriptDialogOpening":  # it waits for an answer
            self.number += 1
            answer = {"id": self.number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            self.writing.write(json.dumps({**answer, "sessionId": page.session}).encode() + b"\0")
            self.writing.flush()
        wrong = event == "Log.entryAdded" and about["entry"]["level"] == "error"
        wrong |= event == "Runtime.consoleAPICalled" and about["type"] in {"error", "assert"}
        if wrong or event in FAULTS:
            page.faults.append(json.dumps(about)[:300])


@contextmanager
def browser(path: str, profile: Path) -> Iterator[Browser]:
    """
    Run a browser.

    :param path: Of its program.
    :param profile: A folder for what it keeps.
    """
    (to_read, writing), (reading, to_write) = os.pipe(), os.pipe()
    given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]

    def at_their_places() -> None:
        for place, end in enumerate(given, start=3):  # it reads commands from 3 and writes answers to 4
            os.dup2(end, place)

    process = subprocess.Popen(
        [path, *FLAGS, f"--user-data-dir={profile}"],
        preexec_fn=at_their_places,  # noqa: PLW1509 - no thread of the tests holds a lock that this wants
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (to_read, to_write, *given):
        os.close(end)
    running = Browser(writing, reading)
    try:
        yield running
    finally:
        running.writing.close()
        running.reading.close()
        process.terminate()
        process.wait()
