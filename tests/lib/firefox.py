"""Firefox without a window, driven by WebDriver BiDi over a WebSocket."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

import pytest
from tornado.websocket import websocket_connect

from tests.lib import chromium

FIREFOX = shutil.which("firefox") or shutil.which("firefox-esr")
KEYS = dict(zip(("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"), "\ue012\ue013\ue014\ue015", strict=True))
KEYS |= {"Enter": "\ue007", "Escape": "\ue00c", "Home": "\ue011"}
PREFERENCES = {
    "layout.css.prefers-color-scheme.content-override": 1,  # light
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Browser(chromium.Browser):
    """A browser with one page, as `chromium.Browser`, without dark mode, print, pages without scripts, and traces."""

    def __enter__(self):
        self.profile = tempfile.mkdtemp()
        with open(f"{self.profile}/user.js", "w") as file:
            file.writelines(f'user_pref("{key}", {json.dumps(value)});\n' for key, value in PREFERENCES.items())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [FIREFOX, "--headless", "--no-remote", "--profile", self.profile, f"--remote-debugging-port={port}"],
            env={**os.environ, "HOME": self.profile},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._loop, self._ids, self.events = asyncio.new_event_loop(), itertools.count(1), []
        self._socket = self._loop.run_until_complete(self._connect(f"ws://127.0.0.1:{port}/session"))
        self.call("session.new", capabilities={})
        self._page = self.call("browsingContext.getTree")["contexts"][0]["context"]
        self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        return self

    async def _connect(self, url, seconds=60):
        end = time.monotonic() + seconds
        while True:
            try:
                return await websocket_connect(url, max_message_size=2**28)
            except OSError:
                assert time.monotonic() < end, "Firefox does not answer"
                await asyncio.sleep(0.2)

    def __exit__(self, *_):
        self._socket.close()
        self._loop.run_until_complete(asyncio.sleep(0.1))
        self._loop.close()
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **params):
        """Call a method of the protocol, and return its result."""
        found = self._loop.run_until_complete(self._answer(next(self._ids), method, params))
        assert found["type"] == "success", (method, found)
        return found["result"]

    async def _answer(self, number, method, params):
        await self._socket.write_message(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.read_message(), 60))
            if message.get("id") == number:
                return message
            self.events.append(message)

    def open(self, path, *, width=1200, height=900, dark=False, touch=False, media="", scripts=True):
        """Open a page of the disk, in a window of some size."""
        if dark or media or not scripts:
            pytest.skip("BiDi has no dark mode, print, and pages without scripts")
        self.call("browsingContext.setViewport", context=self._page, viewport={"width": width, "height": height})
        self.events.clear()
        self.url = path.as_uri()
        self.call("browsingContext.navigate", context=self._page, url=self.url, wait="complete")
        self.evaluate(chromium.DRAWN)

    def evaluate(self, expression):
        """Evaluate JavaScript in the page."""
        found = self.call(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._page},
            awaitPromise=True,
            userActivation=True,
        )
        assert found["type"] == "success", found
        text = found["result"].get("value")
        return None if text is None else json.loads(text)

    def screenshot(self, path=None, *, whole=True):
        """Return the page as PNG, or write it."""
        part = "document" if whole else "viewport"
        data = base64.b64decode(self.call("browsingContext.captureScreenshot", context=self._page, origin=part)["data"])
        if path is None:
            return data
        path.write_bytes(data)
        return path

    def mouse(self, kind, x, y, *, pressed=False, modifiers=0):
        """Move, press or release the mouse."""
        then = {"Moved": [], "Pressed": [{"type": "pointerDown", "button": 0}]}
        then["Released"] = [{"type": "pointerUp", "button": 0}]
        self._point("mouse", [_move((x, y)), *then[kind]])

    def drag(self, points, *, modifiers=0):
        """Draw a line with the mouse."""
        self._point("mouse", _line(points))

    def touch(self, points):
        """Touch at the first point, go along the others, and let go."""
        self._point("touch", _line(points))

    def _point(self, kind, actions):
        self._perform(
            {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": actions},
        )

    def _perform(self, device):
        self.call("input.performActions", context=self._page, actions=[device])

    def key(self, name):
        """Press a key."""
        actions = [{"type": kind, "value": KEYS[name]} for kind in ("keyDown", "keyUp")]
        self.call(
            "input.performActions", context=self._page, actions=[{"type": "key", "id": "key", "actions": actions}]
        )

    @property
    def problems(self):
        """What the console complained about, and exceptions."""
        return [json.dumps(event["params"]) for event in self.events if event["method"] == "log.entryAdded"]

    @property
    def requests(self):
        """URLs asked for, except those of data and of the page itself."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "network.beforeRequestSent"]
        return [url for url in asked if not url.startswith("data:") and url != self.url]

    def trace(self, action):
        """Firefox gives no trace by this protocol."""
        pytest.skip("BiDi has no trace")


def _move(point):
    return {"type": "pointerMove", "x": float(point[0]), "y": float(point[1])}


def _line(points):
    down, up = ({"type": f"pointer{kind}", "button": 0} for kind in ("Down", "Up"))
    return [_move(points[0]), down, *map(_move, points[1:]), up]
