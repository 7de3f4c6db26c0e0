"""Faults on purpose: the n-th call of a kind that touches the disk fails, as it does where a disk is full or gone."""

import builtins
import contextlib
import errno
import io
import os

from imgstack_ml.files import atomic

_SYSTEM_CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir", "ftruncate")


class InjectedFault(OSError):
    """What a call that was to fail raised."""


class FaultyDisk:
    """Counts calls that open, write, flush or rename, and lets the `fail_at`-th fail.

    `under` restricts `open` to paths below a folder, so that imports and the like go on.
    """

    def __init__(self, under, fail_at):
        self._under = os.fspath(under)
        self._fail_at = fail_at
        self.n_calls = 0
        self.failed = None

    def call(self, name):
        self.n_calls += 1
        if self.n_calls == self._fail_at:
            self.failed = name
            raise InjectedFault(errno.EIO, f"injected into {name}, call {self.n_calls}")

    def _concerns(self, path):
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._under)

    def wrap(self, name, function):
        def faulty(*args, **kwargs):
            if name not in ("open", "mkdir") or self._concerns(args[0]):
                self.call(name)
            return function(*args, **kwargs)

        return faulty

    def open_file(self, opener):
        def faulty_open(file, mode="r", *args, **kwargs):
            if not self._concerns(file) or not set(mode) & set("wax+"):
                return opener(file, mode, *args, **kwargs)
            self.call("open")
            opened = opener(file, mode, *args, **kwargs)
            return _FaultyFile(opened, self)

        return faulty_open


class _FaultyFile:
    """A file whose writes may fail half way."""

    def __init__(self, file, disk):
        self._file = file
        self._disk = disk

    def write(self, data):
        try:
            self._disk.call("write")
        except InjectedFault:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


@contextlib.contextmanager
def failing(monkeypatch, under, fail_at):
    """Make the `fail_at`-th call fail while the block runs; yields the disk, whose `failed` names it."""
    disk = FaultyDisk(under, fail_at)
    with monkeypatch.context() as patch:
        for name in _SYSTEM_CALLS:
            patch.setattr(os, name, disk.wrap(name, getattr(os, name)))
        patch.setattr(atomic, "_exchange", disk.wrap("exchange", atomic._exchange))
        patch.setattr(builtins, "open", disk.open_file(open))
        patch.setattr(io, "open", disk.open_file(io.open))
        yield disk


def every_fault(monkeypatch, under, operation):
    """Run `operation` with its first, second, … call failing until it succeeds; yields what failed, in between."""
    for n in range(1, 10_000):
        with failing(monkeypatch, under, n) as disk:
            try:
                operation()
            except OSError:
                pass
            finally:
                failed = disk.failed
        if failed is None:
            return
        yield failed
    raise AssertionError("the operation never succeeds")
