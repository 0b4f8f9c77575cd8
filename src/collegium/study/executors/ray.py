"""A study's runs on a Ray cluster."""

import contextlib
import math
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from collegium import data as datasets
from collegium.errors import CollegiumError, DataError, TrainingError, UsageError
from collegium.extras import how_to_install
from collegium.files import open_log
from collegium.study.executors.local import POLL, Event, Job, terminated_as_interrupted
from collegium.study.executors.worker import work
from collegium.training.run_folder import RunFolder
from collegium.user_code import Consent, current, given

ANSWER = 5.0  # seconds within which a cluster answers
SEEN = 120.0  # seconds after which all machines see a new file; NFS remembers for up to 60 that there was none
LEASE = 180.0  # seconds after which the lock of a lost machine is given up; an NFS server does it after 90
ALONE = 60.0  # seconds to wait for a node where none is left
STOPPING = 60.0  # seconds in which a run that is cancelled ends; then it is cancelled again, as Ray may lose a request
TRIES = 3  # starts in a row that may break before the next checkpoint


class RayExecutor:
    """A Ray cluster: a task for each run, at once as many as its nodes have room for.

    A run whose node is lost, or whose process is killed, is started again on what is left of the cluster and goes on
    from its last checkpoint. It is given up when it broke three times in a row without getting further.

    All nodes must see the study's folder under the same path, and have this library and the data. A node's own
    COLLEGIUM_DATA says where they lie; one that has none takes that of the calling process.

    Args:
        address: HOST:PORT of the cluster's head; "auto" is the cluster that this machine belongs to.
        cpus_per_run: that Ray sets aside for a run, which computes with as many threads.
        gpus_per_run: the same of GPUs; 0.5 puts two runs on each. By default 1 where any node has a GPU, else 0. A run
            whose recipe says device cpu takes none.

    Raises:
        UsageError: Ray is not installed, nothing answers at the address, or a number is out of range.
    """

    def __init__(self, address: str = "auto", cpus_per_run: int = 1, gpus_per_run: float | None = None) -> None:
        if cpus_per_run < 1:
            raise UsageError(f"cpus_per_run must be 1 or more, got {cpus_per_run}")
        if gpus_per_run is not None and (gpus_per_run < 0 or gpus_per_run > 1 and gpus_per_run % 1):
            raise UsageError(f"gpus_per_run must be a share of a GPU or a whole number of them, got {gpus_per_run}")
        _ray()
        _reach(address)
        self.address, self.cpus_per_run, self.gpus_per_run = address, cpus_per_run, gpus_per_run
        self.gpus = 0.0  # of each run, known once connected

    def run(self, jobs: Sequence[Job]) -> Generator[Event]:
        """Computes the jobs; ends when nothing more can be done.

        Raises:
            UsageError: the cluster does not answer, or a node cannot compute the runs; nothing is computed.
            DataError: a node cannot read the data; nothing is computed.
            TrainingError: no node is left.
        """
        with _connected(self.address) as ray, _token(jobs) as token, terminated_as_interrupted():
            any_gpu = any(node["Alive"] and node["Resources"].get("GPU") for node in ray.nodes())
            self.gpus = float(any_gpu) if self.gpus_per_run is None else self.gpus_per_run
            needed = _Needed.by(jobs, token)
            self._check(ray, jobs, needed)
            waiting, runs, attempts = list(jobs), list[_Run](), _Attempts()
            asked, done = {job.key for job in jobs}, set[str]()
            deadline = time.monotonic() + ALONE
            try:
                while waiting or runs:
                    for job in [job for job in waiting if job.after not in asked or job.after in done]:
                        waiting.remove(job)
                        runs.append(self._submit(ray, job, needed))
                    if not runs:
                        break  # what is left waits for something that did not finish
                    ready, _ = ray.wait([run.says for run in runs], timeout=POLL)
                    for run in [run for run in runs if run.says in ready]:
                        event = run.next(ray)
                        if event.state != "started":
                            runs.remove(run)
                            if not run.started:  # it broke before it could say so
                                yield Event(event.key, "started")
                        if event.state == "done":
                            done.add(event.key)
                        if event.state == "broken" and attempts.another(run.job):
                            waiting.append(run.job)
                        yield event
                    if any(run.started for run in runs) or self._able(ray, [run.job for run in runs]):
                        deadline = time.monotonic() + ALONE
                    if time.monotonic() > deadline:
                        raise TrainingError(
                            f"no node of the Ray cluster at {self.address} is left that has "
                            f"{self._wanted(runs[0].job)}; repeat the command when there is one, and it goes on"
                        )
            finally:
                _stop(ray, runs)

    def _resources(self, job: Job) -> dict[str, float]:
        return {"CPU": self.cpus_per_run, "GPU": 0 if job.recipe.device == "cpu" else self.gpus}

    def _wanted(self, job: Job) -> str:
        return " and ".join(f"{n:g} {kind}{'s' if n > 1 else ''}" for kind, n in self._resources(job).items() if n)

    def _able(self, ray: Any, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """The nodes that can compute one of the jobs."""
        wanted = {tuple(self._resources(job).items()) for job in jobs}
        return [
            node
            for node in ray.nodes()
            if node["Alive"] and any(all(node["Resources"].get(k, 0) >= n for k, n in kinds) for kinds in wanted)
        ]

    def _check(self, ray: Any, jobs: Sequence[Job], needed: "_Needed") -> None:
        """Whether every node that may get a run has what it needs."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        able = self._able(ray, jobs)
        if not able and jobs:
            raise UsageError(
                f"no node of the Ray cluster at {self.address} has {self._wanted(jobs[0])}, which every run is to "
                "have; ask for fewer with --cpus-per-run or --gpus-per-run"
            )
        look = ray.remote(max_calls=1, max_retries=0, num_cpus=0)(_look)
        asked = [
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(needed)
            for node in able
        ]
        for node, answer in zip(able, asked, strict=True):
            try:
                lack = ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                reason = str(error).strip().splitlines()[-1]
                raise UsageError(f"node {_name(node)} cannot run Collegium, install the same there: {reason}") from None
            except ray.exceptions.RayError:  # the node is gone; others are left, or are waited for
                continue
            if lack is not None:
                kind, sentence = lack
                raise (DataError if kind == "data" else UsageError)(f"node {_name(node)} {sentence}")

    def _submit(self, ray: Any, job: Job, needed: "_Needed") -> "_Run":
        resources = self._resources(job)
        task = ray.remote(
            max_calls=1,  # a process of its own
            max_retries=0,
            num_returns="streaming",
            num_cpus=resources["CPU"],
            num_gpus=resources["GPU"],
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.cpus_per_run)}},
            name=job.key,
        )(_train)
        return _Run(job, task.remote(job.recipe.to_dict(), job.folder.absolute(), job.log.absolute(), needed))


@dataclass(frozen=True)
class _Needed:
    """What a node must have.

    Args:
        token: a file beside the runs' folders.
        folder: the current one of the calling process, from which a recipe's relative paths count.
        versions: of packages.
        data_folder: COLLEGIUM_DATA, for nodes that have none.
        data: every data set of the jobs: name and options.
        consent: of the calling process, to import code of the user's own.
    """

    token: Path
    folder: str
    versions: dict[str, str]
    data_folder: str | None
    data: list[tuple[str, dict[str, Any]]]
    consent: Consent

    @classmethod
    def by(cls, jobs: Sequence[Job], token: Path) -> "_Needed":
        data = {repr(job.recipe.data): (job.recipe.data_name, job.recipe.data_options) for job in jobs}
        return cls(token, os.getcwd(), _versions(), os.environ.get("COLLEGIUM_DATA"), list(data.values()), current())

    def settle(self) -> None:
        """Makes this process compute like the calling one."""
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        if self.data_folder is not None:
            os.environ.setdefault("COLLEGIUM_DATA", self.data_folder)

    def unseen(self) -> str | None:
        """What to do about a study's folder that is not to be seen here; None where it is."""
        deadline = time.monotonic() + ANSWER
        while not self.token.exists():
            if time.monotonic() > deadline:
                return (
                    f"does not see {self.token.parent}: the study's folder must be on storage that all nodes mount "
                    "at the same path; choose such a folder with --study"
                )
            time.sleep(POLL)
        return None


def _look(needed: _Needed) -> tuple[str, str] | None:
    """On a node: what it lacks, as a kind and the end of a sentence that begins with the node."""
    needed.settle()
    for package, version in needed.versions.items():
        if metadata.version(package) != version:
            own = metadata.version(package)
            return "version", f"has {package} {own} and this process {version}; install the same on all"
    unseen = needed.unseen()
    if unseen is not None:
        return "folder", unseen
    for name, options in needed.data:
        try:
            with given(needed.consent):
                datasets.load(name, **options)
        except CollegiumError as error:
            return "data", f"cannot read {name}: {error}; COLLEGIUM_DATA can be set where `ray start` is called"
    return None


def _train(recipe: dict[str, Any], folder: Path, log: Path, needed: _Needed) -> Generator[dict[str, str]]:
    """On a node: one run; says on which node it starts, and then what becomes of it."""
    yield {"state": "started", "node": _ray().get_runtime_context().get_node_id()}
    needed.settle()
    unseen = needed.unseen()
    if unseen is not None:
        yield {"state": "failed", "error": f"its node {unseen}"}
        return
    with open_log(log) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    with given(needed.consent):
        outcome = work(recipe, str(folder), LEASE)
    yield outcome


@dataclass
class _Run:
    """A job's task; ``says`` is Ray's generator of what it yields."""

    job: Job
    says: Any
    node: str = ""
    started: bool = False

    def next(self, ray: Any) -> Event:
        try:
            message: dict[str, str] = ray.get(next(self.says))
        except StopIteration:
            return Event(self.job.key, "broken", f"somebody cancelled it on node {self.node}", self._log())
        except ray.exceptions.RayTaskError as error:
            return Event(self.job.key, "failed", str(error).strip().splitlines()[-1], str(error))
        except ray.exceptions.RayError as error:
            return Event(self.job.key, "broken", self._why(ray, error), f"{error}\n\n{self._log()}")
        if message["state"] == "started":
            self.started = True
            self.node = next(_name(node) for node in ray.nodes() if node["NodeID"] == message["node"])
            return Event(self.job.key, "started")
        if message["state"] != "done":
            message["error"] += f" (on node {self.node})"
        elif not self._finished():
            unseen = f"node {self.node} finished it, but {self.job.folder}/result.json is not to be seen here"
            return Event(self.job.key, "broken", unseen)
        return Event(self.job.key, **message)  # type: ignore[arg-type]

    def _why(self, ray: Any, error: Exception) -> str:
        where = f" {self.node}" if self.node else ""
        if isinstance(error, ray.exceptions.NodeDiedError | ray.exceptions.LocalRayletDiedError):
            return f"its node{where} was lost"
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            return f"Ray ended its process because memory ran out on node{where}"
        if isinstance(error, ray.exceptions.WorkerCrashedError):
            return f"its process on node{where} was killed"
        return str(error).strip().partition("\n")[0]

    def _log(self) -> str:
        try:
            return self.job.log.read_text(errors="replace")[-4000:]
        except OSError:
            return ""

    def _finished(self) -> bool:
        deadline = time.monotonic() + SEEN
        while not (self.job.folder / "result.json").exists() and time.monotonic() < deadline:
            time.sleep(POLL)
        return (self.job.folder / "result.json").exists()


class _Attempts:
    """How often each job broke at the same checkpoint."""

    def __init__(self) -> None:
        self.broke: dict[str, tuple[list[str], int]] = {}

    def another(self, job: Job) -> bool:
        """Whether a job that has broken is worth another start."""
        newest = [file.name for file in RunFolder(job.folder).saved_checkpoints()[-1:]]
        before, times = self.broke.get(job.key, (newest, 0))
        times = times + 1 if newest == before else 1
        self.broke[job.key] = newest, times
        return times < TRIES


def _stop(ray: Any, runs: Sequence[_Run]) -> None:
    """Lets every run save its state and end; at a second interruption ends them as they are."""
    left, asked = list(runs), -math.inf
    try:
        while left:
            if time.monotonic() - asked > STOPPING:
                asked = time.monotonic()
                for run in left:
                    ray.cancel(run.says)  # a KeyboardInterrupt there, which training answers like Ctrl-C
            ready, _ = ray.wait([run.says for run in left], timeout=POLL)
            for run in [run for run in left if run.says in ready]:
                try:
                    ray.get(next(run.says))
                except (StopIteration, ray.exceptions.RayError):
                    left.remove(run)
    except KeyboardInterrupt:
        for run in left:
            ray.cancel(run.says, force=True)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster; a connection that the caller has made stays as it is."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    _reach(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"cannot join the Ray cluster at {address}: {reason}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray puts its own there
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Refuses an address where no cluster answers; Ray itself would try for more than a minute."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "/" in host or not host or not port.isdecimal():
        raise UsageError(
            f"{address} is no address of a Ray cluster: write HOST:PORT of its head, for example 10.0.0.1:6379, or "
            "auto, and give the command on one of its nodes"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER) as connection:
            # Ray speaks HTTP/2, in which either side begins with a SETTINGS frame (RFC 9113, section 3.4).
            if "RAY_USE_TLS" not in os.environ:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                if connection.recv(9)[3:4] != b"\x04":
                    raise OSError("something else than Ray answers")
    except OSError as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error}); `ray start --head` starts one and prints its address"
        ) from error


@contextlib.contextmanager
def _token(jobs: Sequence[Job]) -> Iterator[Path]:
    """A file beside the runs' folders, by which nodes know that they see the same storage."""
    folder = Path(os.path.commonpath([job.folder.absolute().parent for job in jobs])) if jobs else Path.cwd()
    token = folder / f".seen-{uuid.uuid4().hex}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(".seen-*"):  # of a process that was killed
        old.unlink(missing_ok=True)
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in ("collegium", "torch")}


def _name(node: dict[str, Any]) -> str:
    """How messages call a node: "gpu3 (10.0.0.3)"."""
    address, name = node["NodeManagerAddress"], node["NodeName"]
    return f"{node['NodeManagerHostname'] if name == address else name} ({address})"


def _ray() -> Any:
    # What happens to nodes is told in events; Ray would print the end of a lost node's log besides.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"Ray is not installed; to install it: {how_to_install('ray')}") from error
    return ray
