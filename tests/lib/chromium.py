"""Debian's Chromium without a window, driven by the Chrome DevTools Protocol over a pair of pipes."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars
""".split()  # noqa: SIM905 (a list would be long)
DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))"
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Home": 36}


class Browser:
    """A browser with one page; `with Browser() as browser`.

    Attributes
    ----------
    problems : list of str
        What the console and the page's security policy complained about, and exceptions.
    requests : list of str
        URLs asked for, except those of data and of the page itself.
    """

    def __enter__(self):
        self.profile = tempfile.mkdtemp()
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"]
        script = f'exec 3<&{to_child} 4>&{from_child}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(to_child, from_child),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer, self._ids, self.session, self.events = b"", itertools.count(1), None, []
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **params):
        """Call a method of the protocol, and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        found = self._wait(lambda message: message.get("id") == number)
        assert "error" not in found, (method, found["error"])
        return found["result"]

    def wait_for(self, event):
        """Wait for an event, and return its parameters."""
        known = next((e for e in self.events if e["method"] == event), None)
        return (known or self._wait(lambda message: message.get("method") == event))["params"]

    def _wait(self, is_wanted, seconds=60):
        end = time.monotonic() + seconds
        while True:
            while b"\0" not in self._buffer:
                assert select.select([self._in], [], [], max(0, end - time.monotonic()))[0], "Chromium does not answer"
                part = os.read(self._in, 2**20)
                assert part, "Chromium has ended"
                self._buffer += part
            text, _, self._buffer = self._buffer.partition(b"\0")
            message = json.loads(text)
            if "method" in message:
                self.events.append(message)
            if is_wanted(message):
                return message

    def open(self, path, *, width=1200, height=900, dark=False, touch=False, media="", scripts=True):
        """Open a page of the disk, in a window of some size."""
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.events.clear()
        self.url = path.as_uri()
        self.call("Page.navigate", url=self.url)
        self.wait_for("Page.loadEventFired")
        if scripts:
            self.evaluate(DRAWN)

    def evaluate(self, expression):
        """Evaluate JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path=None, *, whole=True):
        """Return the page as PNG, or write it."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        if path is None:
            return base64.b64decode(data)
        path.write_bytes(base64.b64decode(data))
        return path

    def place_of(self, selector):
        """Left, top, width and height of an element, after scrolling to it."""
        return self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'});"
            "const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
        )

    def mouse(self, kind, x, y, *, pressed=False, modifiers=0):
        """Move, press or release the mouse: ``"Moved"``, ``"Pressed"``, ``"Released"``."""
        x, y = float(x), float(y)
        button = "none" if kind == "Moved" and not pressed else "left"
        self.call(
            "Input.dispatchMouseEvent",
            type=f"mouse{kind}", x=x, y=y, button=button, buttons=int(pressed), clickCount=1, modifiers=modifiers,
        )  # fmt: skip

    def drag(self, points, *, modifiers=0):
        """Draw a line with the mouse."""
        self.mouse("Pressed", *points[0], pressed=True, modifiers=modifiers)
        for point in points[1:]:
            self.mouse("Moved", *point, pressed=True, modifiers=modifiers)
        self.mouse("Released", *points[-1], modifiers=modifiers)

    def touch(self, points):
        """Touch at the first point, go along the others, and let go."""
        for i, (x, y) in enumerate(points):
            kind = "touchMove" if i else "touchStart"
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": float(x), "y": float(y)}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def click(self, selector):
        """Click the middle of an element."""
        left, top, width, height = self.place_of(selector)
        self.drag([(left + width / 2, top + height / 2)])

    def key(self, name):
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=KEYS[name])

    @property
    def problems(self):
        """What the console complained about, and exceptions."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    @property
    def requests(self):
        """URLs asked for, except those of data and of the page itself."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:") and url != self.url]

    def trace(self, action):
        """Milliseconds of each handler of an event while an action runs, by the browser's own trace: {type: [ms]}.

        It is the time of the page's thread: of a machine that is busy with other work, this is what the handler takes.
        """
        self.call("Tracing.start", categories="devtools.timeline", transferMode="ReportEvents")
        action()
        self.events.clear()
        self.call("Tracing.end")
        self.wait_for("Tracing.tracingComplete")
        found = {}
        for event in self.events:
            if event["method"] == "Tracing.dataCollected":
                for one in event["params"]["value"]:
                    if one["name"] == "EventDispatch" and "dur" in one:
                        found.setdefault(one["args"]["data"]["type"], []).append(one.get("tdur", one["dur"]) / 1000)
        return found
