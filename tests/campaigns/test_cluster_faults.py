"""Clusters that lose workers, or their scheduler, in the middle of a fit; files that one worker cannot read."""

import os
import random
import signal
import threading
import time
from functools import partial

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, Scheduler, Status, Worker, get_worker

from imgstack_ml import ImagePCA, IntensityRescaler, StackCenterer, imread, open_stack
from imgstack_ml.errors import BadImageError
from imgstack_ml.passes import checkpoint as _checkpoint
from imgstack_ml.passes import cluster as _cluster
from imgstack_ml.passes import runner as _passes
from tests.lib import fit_stack
from tests.lib.images import write_folder
from tests.lib.workers import fast_workers, start_server

N_WORKERS = 3
WORKER_BYTES = 500_000_000
TOO_MANY_BYTES = 700_000_000
SOLVERS = list(fit_stack.CASES)

pytestmark = pytest.mark.filterwarnings("ignore:After . products")  # tol=0, so that all passes are made


@pytest.fixture(scope="module")
def client():
    """Workers that nannies start again: those of this file only, since tests stop them."""
    settings = {
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        # So long after a worker is lost, Dask looks for it again, and gives up on it where it is lost anew just then.
        "distributed.deploy.lost-worker-timeout": "1 hour",
    }
    with (
        fast_workers(),
        dask.config.set(settings),
        LocalCluster(
            n_workers=N_WORKERS,
            threads_per_worker=1,
            processes=True,
            memory_limit=WORKER_BYTES,
            dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def serial():
    with dask.config.set(scheduler="synchronous"):
        return {solver: fit_stack.estimator(solver).fit(fit_stack.stack(solver)) for solver in SOLVERS}


def assert_same(found, expected):
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(found.components_, expected.components_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.mean_, expected.mean_, rtol=1e-10)
    assert found.n_passes_ == expected.n_passes_


def note(log):
    with open(log, "a") as file:
        file.write("block\n")


def n_noted(log):
    return log.read_bytes().count(b"\n") if log.exists() else 0


def make_or_fail(block_id, case, log, seconds, fault, fatal):
    """Make a block; the worker that is the first to note the block number `fatal` has the fault."""
    note(log)
    try:
        if block_id[0] == fatal:
            os.close(os.open(log.parent / "fault", os.O_CREAT | os.O_EXCL))
            fault()
    except FileExistsError:
        pass
    return fit_stack.pixels(case, block_id[0])


def leave():
    os._exit(1)


def take_too_much():
    """Take more memory than the worker may, and wait for the end that comes of it."""
    ballast = np.ones(TOO_MANY_BYTES // 8)
    threading.Event().wait(60)
    raise AssertionError(f"nobody ended a worker that holds {ballast.nbytes:,} bytes")


def nothing_yet():
    """The fault comes from outside."""


class Killer(threading.Thread):
    """Kills workers by SIGKILL a moment after some block was begun."""

    def __init__(self, victims, log, last):
        super().__init__()
        self._victims, self._log, self._last = victims, log, last
        self.over = threading.Event()

    def run(self):
        while n_noted(self._log) < self._last:
            if self.over.wait(0.001):
                return
        for victim in self._victims:
            os.kill(victim, signal.SIGKILL)


def n_tasks(dask_scheduler):
    return len(dask_scheduler.tasks)


def wait_until(is_so, seconds=60):
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_so()


def processes(client):
    """Wait until each nanny's worker runs and is known to the scheduler, and give their process numbers.

    The scheduler may for a moment count a worker that is dead already; and a nanny whose worker dies while it starts
    gives up on it.
    """
    nannies = client.cluster.workers.values()
    assert len(nannies) == N_WORKERS
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        known = client.scheduler_info(n_workers=-1)["workers"]
        started = [nanny.process and nanny.process.status == Status.running for nanny in nannies]
        if all(started) and {nanny.worker_address for nanny in nannies} == set(known):
            return [nanny.pid for nanny in nannies]
        time.sleep(0.05)
    raise TimeoutError(f"after a minute there are not all of {list(nannies)}, but {list(known)}")


@pytest.mark.parametrize(
    ("way", "n_runs"),
    [("SIGKILL", 1), *(pytest.param(way, 10, marks=pytest.mark.slow) for way in ("SIGKILL", "exit", "memory limit"))],
)
def test_a_lost_worker_changes_nothing(client, serial, way, n_runs, tmp_path):
    rng = random.Random(f"{way} {n_runs}")
    fault = {"SIGKILL": nothing_yet, "exit": leave, "memory limit": take_too_much}[way]
    for run in range(n_runs):
        before = processes(client)
        solver = SOLVERS[run % len(SOLVERS)]
        case = fit_stack.CASES[solver]
        n_blocks = case.shape[0] // case.rows
        log = tmp_path / str(run) / "log"
        log.parent.mkdir()
        killer = Killer([rng.choice(before)], log, rng.randint(1, n_blocks - 5))
        if way == "SIGKILL":
            killer.start()
        make = partial(make_or_fail, fault=fault, fatal=rng.randrange(n_blocks))
        found = fit_stack.estimator(solver).fit(fit_stack.stack(solver, make, log=log))
        killer.over.set()
        assert_same(found, serial[solver])
        wait_until(lambda before=before: processes(client) != before)  # there was a fault
        wait_until(lambda: not client.run_on_scheduler(n_tasks))  # and nothing of the fit stays
    print(f"\n{n_runs} workers lost by {way}: all fits equal the serial one")


def test_what_was_sent_is_sent_again_where_all_who_hold_it_are_lost(client, serial, tmp_path):
    """One copy may be all there is: Dask drops others to save memory."""
    before = processes(client)
    log = tmp_path / "log"
    killer = Killer(before, log, 8)
    killer.start()
    found = fit_stack.estimator("randomized").fit(fit_stack.stack("randomized", log=log))
    killer.over.set()
    assert_same(found, serial["randomized"])
    wait_until(lambda: not set(before) & set(processes(client)))
    wait_until(lambda: not client.run_on_scheduler(n_tasks))


def test_a_file_that_one_worker_cannot_read_is_named(client, tmp_path):
    processes(client)
    for i in range(200):
        (tmp_path / f"{i}.raw").write_bytes(b"here")
    names = client.run(lambda dask_worker: dask_worker.name)
    read = partial(read_or_refuse, unlucky=min(names.values(), key=str))
    stack = imread(f"{tmp_path}/*.raw", imread=read)
    with pytest.raises(BadImageError, match=rf"{tmp_path}/\d+\.raw' cannot be read .*Permission denied"):
        ImagePCA(2).fit(stack)


def read_or_refuse(path, unlucky):
    """Read a file, where the process is not that worker; the client itself reads the first one."""
    try:
        name = get_worker().name
    except ValueError:
        name = None
    if name == unlucky:
        raise PermissionError(13, "Permission denied")
    return np.full((4, 5), int(os.path.basename(path).removesuffix(".raw")), np.uint8)


def test_a_file_that_is_gone_is_named(client, tmp_path):
    processes(client)
    write_folder(tmp_path, 40)
    stack = open_stack(tmp_path, chunks=4)
    os.remove(stack.files[23])
    with pytest.raises(BadImageError, match=os.path.basename(stack.files[23])):
        ImagePCA(2).fit(stack)


@pytest.mark.parametrize("patience", [3.0, pytest.param(_cluster._PATIENCE, marks=pytest.mark.slow, id="as shipped")])
@pytest.mark.parametrize("lost", ["scheduler", "workers"])
def test_a_lost_cluster_is_an_error_and_the_fit_goes_on_elsewhere(lost, patience, tmp_path, serial, monkeypatch):
    monkeypatch.setattr(_checkpoint, "_SHARE", float("inf"))
    monkeypatch.setattr(_cluster, "_PATIENCE", patience)
    log, address = tmp_path / "log", tmp_path / "scheduler.json"
    over = threading.Event()
    scheduler = start_server(Scheduler, host="127.0.0.1", dashboard=False, scheduler_file=str(address))
    workers = []

    def kill():
        while n_noted(log) < 30 and not over.is_set():
            time.sleep(0.001)
        for process in [scheduler] if lost == "scheduler" else workers:
            process.kill()
        times.append(time.monotonic())

    times = []
    pca = fit_stack.estimator("randomized", tmp_path / "unfinished")
    try:
        while not address.exists():
            time.sleep(0.01)
        # One would merge in another order: waves are shorter.
        workers += [start_server(Worker, scheduler_file=str(address), nthreads=1, dashboard=False) for _ in range(2)]
        with Client(scheduler_file=str(address), set_as_default=True) as client:
            client.wait_for_workers(2, timeout=60)
            thread = threading.Thread(target=kill)
            thread.start()
            with pytest.raises(Exception, match="scheduler" if lost == "scheduler" else "has lost all its workers"):
                pca.fit(fit_stack.stack("randomized", partial(make_or_fail, fault=nothing_yet, fatal=0), log=log))
            took = time.monotonic() - times[0]
            assert took < 60
            over.set()
            thread.join()
    finally:
        for process in (scheduler, *workers):
            process.kill()
            process.join()
    print(f"\nthe loss of the {lost} was an error after {took:.1f} s")
    assert (tmp_path / "unfinished" / "fit.json").exists()
    with dask.config.set(scheduler="synchronous"):
        assert_same(pca.fit(fit_stack.stack("randomized")), serial["randomized"])


# What a retry could see


def frozen(value):
    """Make all arrays in it read-only."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, list | tuple):
        for item in value:
            frozen(item)
    return value


@pytest.mark.parametrize("name", [*SOLVERS, "float32", "centerer", "rescaler"])
def test_steps_and_merges_change_nothing_that_they_were_given(name, monkeypatch):
    calls = {"step": 0, "merge": 0}
    run = _passes.PassRunner.run

    def strict(self, step, merge, *, shared=(), **options):
        def strict_step(blocks, start, *given):
            calls["step"] += 1
            return frozen(step(frozen(blocks), start, *frozen(given)))

        def strict_merge(a, b):
            calls["merge"] += 1
            return frozen(merge(frozen(a), frozen(b)))

        return thawed(run(self, strict_step, strict_merge, shared=shared, **options))

    monkeypatch.setattr(_passes.PassRunner, "run", strict)
    with dask.config.set(scheduler="synchronous"):
        if name in SOLVERS:
            fit_stack.estimator(name).fit(fit_stack.stack(name))
        else:
            stack = fit_stack.stack("gram")
            {
                "float32": lambda: fit_stack.estimator("randomized", memory_limit="44MB", tol=1e-12).fit(
                    fit_stack.stack("randomized").astype("float32")
                ),
                "centerer": lambda: StackCenterer(with_std=True).fit(stack),
                "rescaler": lambda: IntensityRescaler(in_range="stack").fit(stack),
            }[name]()
    assert calls["step"] > 1 or name in ("centerer", "rescaler")
    assert calls["step"] >= 1


def thawed(value):
    """Give the caller a result of its own, as it is where nobody froze it."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple):
        return type(value)(map(thawed, value))
    return type(value)(*map(thawed, value)) if isinstance(value, tuple) else value
