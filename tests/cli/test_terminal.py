"""The command line in a real terminal: bars and their width, Ctrl-C, and silence where nobody watches."""

import contextlib
import os
import re
import select
import signal
import sys
import time
from itertools import groupby

import numpy as np
import pytest

import imgstack_ml as im
from imgstack_ml.cli import main
from tests.lib import workers
from tests.lib.commands import run
from tests.lib.images import random_pixels, write_image

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals of this kind", allow_module_level=True)

import fcntl
import pty
import struct
import termios

CTRL_C = b"\x03"
SIDE = 400


def in_terminal(name, commands):
    """Run commands, the last one as a shell would, in a session of its own that the terminal of that name controls.

    Without that, Ctrl-C would reach no process.
    """
    for variable in ("COLUMNS", "LINES"):
        os.environ.pop(variable, None)
    os.setsid()
    terminal = os.open(name, os.O_RDWR)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background ignore SIGINT
    *before, last = commands
    for command in before:
        assert main(command, prog_name="imgstack-ml", standalone_mode=False) is None
    main(last, prog_name="imgstack-ml")


class Session:
    """Commands, one after the other, in a terminal with `columns` columns; `text` is all that they have shown."""

    def __init__(self, *commands, columns=100):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        commands = [[str(word) for word in command] for command in commands]
        self._process = workers.start(in_terminal, os.ttyname(theirs), commands)
        self._theirs = theirs
        self.text = ""

    def wait_for(self, pattern, seconds=120):
        """Read until `pattern` was shown, or, for None, to the end."""
        end = time.monotonic() + seconds
        while pattern is None or not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            if not select.select([self._ours], [], [], 0.1)[0]:
                if pattern is None and not self._process.is_alive():
                    return
                continue
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # what Linux says at the end
                data = b""
            if not data:
                assert pattern is None, self.text
                return
            self.text += data.decode()

    def press(self, key):
        os.write(self._ours, key)

    def finish(self):
        """Return the exit code."""
        self.wait_for(None)
        self._process.join(60)
        return self._process.exitcode

    def close(self):
        """End the program, where a test failed before its end."""
        os.close(self._ours)
        os.close(self._theirs)
        self._process.kill()
        self._process.join()

    @property
    def bars(self):
        """What each bar has drawn, one state after the other."""
        return [state for line in self.text.split("\n") for state in line.rstrip("\r").split("\r") if "%" in state]


@pytest.fixture
def session():
    """Begin commands that end with the test."""
    with contextlib.ExitStack() as opened:

        def begin(*commands, **options):
            begun = Session(*commands, **options)
            opened.callback(begun.close)
            return begun

        yield begin


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A picture under 2000 names: 320 MB that take seconds to decode, and no disk."""
    folder = tmp_path_factory.mktemp("many") / "in"
    picture = write_image(folder / "0.png", random_pixels((SIDE, SIDE)))
    for i in range(1, 2000):
        os.link(picture, folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    im.save_model(im.ImagePCA(1).fit(random_pixels((3, SIDE, SIDE))), path)
    return path


def test_bars_tell_pace_and_time_left_in_wide_and_narrow_terminals_and_nothing_elsewhere(
    session, many, model, tmp_path
):
    images = many / "1[0-4]?.png"
    transform = ["transform", model, images, "--on-error", "skip", "-o"]
    sessions = {
        columns: session(["scan", images, "--verify"], [*transform, tmp_path / f"{columns}.csv"], columns=columns)
        for columns in (100, 40)
    }
    unwatched = run(*transform, tmp_path / "s.npy")
    for begun in sessions.values():
        assert begun.finish() == 0
    wide, narrow = (sessions[columns].bars for columns in (100, 40))
    # One bar of scan, and two of transform.
    complete = [state for state in wide if re.search(r": 100%\|.*\| 50/50 \[\d\d:\d\d<00:00", state)]
    assert [name for name, _ in groupby(complete, lambda state: state.split(":")[0].strip())] == ["verify", "scores"]
    assert sum(state.startswith("verify") for state in complete) >= 2
    assert all(re.search(r", +[\d.]+ images/s, \d+ MB/s\]", state) for state in complete)
    complete = [state for state in narrow if state.startswith("100% 00:00")]
    assert len(complete) >= 3
    assert all(re.search(r"^100% 00:00 +[\d.]+ images/s, \d+ MB/s", state) for state in complete)
    for columns, states in ((100, wide), (40, narrow)):
        assert len(states) > 3
        assert max(map(len, states)) < columns  # a full line would push the next one down
    assert "50 rows in" in sessions[40].text
    assert unwatched.exit_code == 0
    assert [line.split()[0] for line in unwatched.stderr.splitlines()] == ["reading", "decoding", "projecting"]
    assert "\r" not in unwatched.output
    assert len(np.load(tmp_path / "s.npy")) == 50


def test_ctrl_c_ends_at_once_and_leaves_nothing_half_written(session, many, model, tmp_path):
    (tmp_path / "a").mkdir()
    written = {
        "fit": ("pca", many, "-o", tmp_path / "fit", "-k", 1, "--solver", "randomized", "--memory-limit", "320MB"),
        "store": ("reconstruct", model, many, "-o", tmp_path / "a/store.zarr"),
    }
    sessions = {name: session(command) for name, command in written.items()}
    for begun in sessions.values():
        begun.wait_for(r" [1-9]\d*/2000 ")
        begun.press(CTRL_C)
    for name, begun in sessions.items():
        assert begun.finish() == 130, name
        assert re.search(r"\ninterrupted\r\n", begun.text), name  # on a line of its own, after the bar
        assert "Traceback" not in begun.text
    assert not os.listdir(tmp_path / "a")
    left = set(os.listdir(tmp_path)) - {"a"}
    # What a fit had read is kept where it can be resumed.
    assert left == ({"fit"} if "--resume" in sessions["fit"].text else set())
    assert not left or os.listdir(tmp_path / "fit") == ["checkpoint"]
