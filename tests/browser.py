"""Chromium without a window, driven over WebDriver; every name but 127.0.0.1 is mapped away."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are missing")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, ENTER, RIGHT, DOWN = "\ue004", "\ue007", "\ue014", "\ue015"


class Browser:
    """One page in Chromium; elements are named by CSS selectors."""

    def __init__(self, port: int, profile: Path) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        arguments = [*FLAGS, f"--user-data-dir={profile}"]
        options = {"binary": CHROMIUM, "args": arguments}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        found = self._http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        self._path = f"/session/{found['sessionId']}"

    def _do(self, path: str, **body: Any) -> Any:
        value = self._http.post(self._path + path, json=body).json()["value"]
        assert not (isinstance(value, dict) and "error" in value), value
        return value

    def close(self) -> None:
        self._http.delete(self._path)
        self._http.close()

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        # Headless windows have a least width; the page's own is set over the DevTools protocol.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        self._do("/url", url="about:blank")
        self._do("/url", url=url)

    def devtools(self, name: str, **parameters: Any) -> Any:
        return self._do("/goog/cdp/execute", cmd=name, params=parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        return self._do("/execute/sync", script=script, args=list(arguments))

    def text(self, selector: str) -> str:
        """What is shown of an element; nothing where it is hidden or missing."""
        script = "const found = document.querySelector(arguments[0]);"
        script += "return found?.checkVisibility() ? found.innerText : ''"
        return str(self.run(script, selector))

    def value(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).value", selector))

    def _element(self, selector: str) -> str:
        return str(self._do("/element", using="css selector", value=selector)[_ELEMENT])

    def click(self, selector: str) -> None:
        self._do(f"/element/{self._element(selector)}/click")

    def type(self, selector: str, text: str, *, clear: bool = False) -> None:
        element = self._element(selector)
        if clear:
            self._do(f"/element/{element}/clear")
        self._do(f"/element/{element}/value", text=text)

    def press(self, keys: str) -> None:
        """Keys to whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._do("/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        for _attempt in range(150):
            if condition():
                return
            time.sleep(0.1)
        raise AssertionError(f"not seen: {what}; console: {self.console()}")

    def wait_for(self, selector: str, *words: str) -> str:
        self.wait(lambda: all(word in self.text(selector) for word in words), f"{words} in {selector}")
        return self.text(selector)

    def console(self) -> list[str]:
        """Errors and warnings of the page since they were asked for last, those of its policy included."""
        rows = self._do("/se/log", type="browser")
        return [row["message"] for row in rows if row["level"] in ("SEVERE", "WARNING")]

    def is_readable(self) -> bool:
        """Whether nothing sticks out to the right."""
        return bool(self.run("return document.documentElement.scrollWidth <= innerWidth"))

    def screenshot(self, path: Path) -> None:
        data = self._http.get(self._path + "/screenshot").json()["value"]
        path.write_bytes(base64.b64decode(data))


def started_browser(profile: Path) -> Generator[Browser, None, None]:
    """A browser, for a fixture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(DRIVER), f"--port={port}"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _attempt in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        browser = Browser(port, profile)
        yield browser
        browser.close()
    finally:
        driver.terminate()
        driver.wait(20)
