"""Starts the processes of a run on this machine, one per device, and collects their results."""

import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar, cast

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from collegium.errors import UsageError
from collegium.ranks import ProcessLost
from collegium.signals import at_first_stop_signal
from collegium.user_code import Consent, current, given

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
GRACE = 10.0
"""Seconds that processes have to end once one has failed; a GPU that waits for another would wait forever."""


def launch(train: "partial[dict[str, Any]]", devices: int) -> dict[str, Any]:
    """Calls ``train`` in a process for each device; environment variables tell them how to connect.

    Networks that the call has as ``peers`` get the trained weights.

    Returns:
        The return value of the call on rank 0.

    Raises:
        UsageError: an argument of the call cannot be sent to another process.
        ProcessLost: a process was killed.
        Exception: the call raised it in a process.
    """
    content = _pickled(train)
    store = _loopback_store()
    shared = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(store.port), "WORLD_SIZE": str(devices), "NODE_RANK": "0"}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}  # rank 0 starts no other
    if sys.platform == "linux":  # else they would listen to each other on the network
        shared |= {name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    context = get_context("spawn")
    crew: dict[Connection, SpawnProcess] = {}
    try:
        for k in range(devices):
            receiver, sender = context.Pipe(duplex=False)
            own = shared | {"LOCAL_WORLD_SIZE": str(devices), "LOCAL_RANK": str(k), "RANK": str(k)}
            process = context.Process(target=_work, args=(content, own, current(), sender))
            process.start()
            sender.close()
            crew[receiver] = process
        # A stop signal goes to one process of the run, whose vote stops the others.
        with at_first_stop_signal(next(iter(crew.values())).terminate):
            outcomes = _outcomes(crew)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        leave = time.monotonic() + GRACE
        for process in crew.values():
            if not any(isinstance(error, ProcessLost) for error in errors):  # else gloo waits for the lost one
                process.join(max(0.0, leave - time.monotonic()))
    finally:
        for process in crew.values():
            process.kill()
            process.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, ProcessLost)), errors[0])
    result, weights = outcomes[0]
    for peer, trained in zip(train.keywords.get("peers") or (), weights, strict=True):
        peer.load_state_dict(trained)
    return dict(result)


def _loopback_store() -> TCPStore:
    """Where the processes meet; nobody on the network can reach it, as they could reach one that torch opens itself."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        return TCPStore(LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


def call_in_subprocess(call: "partial[T]") -> T:
    """Makes a call in a new process, so that its memory, on a GPU too, is free afterwards, and returns its result.

    Raises:
        UsageError: an argument of the call cannot be sent to another process.
        Exception: the call raised it.
    """
    content = _pickled(call)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return cast(T, pool.submit(_call, content, current()).result())


def _call(content: bytes, consent: Consent) -> Any:
    with given(consent):
        return pickle.loads(content)()


def _pickled(call: "partial[Any]") -> bytes:
    try:
        return pickle.dumps(call)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"an object given from Python cannot be sent to another process ({reason}); "
            "define its class in a module, or start the script with torchrun"
        ) from error


def _outcomes(crew: Mapping[Connection, SpawnProcess]) -> list[Any]:
    """The results or errors of the processes, in their order; where one failed, others may have none."""
    outcomes: dict[Connection, Any] = {}
    deadline = None
    while len(outcomes) < len(crew):
        ready = wait([c for c in crew if c not in outcomes], None if deadline is None else deadline - time.monotonic())
        if not ready:
            break
        for receiver in ready:
            assert isinstance(receiver, Connection)
            try:
                outcomes[receiver] = pickle.loads(receiver.recv_bytes())
            except EOFError:
                outcomes[receiver] = ProcessLost()
            if isinstance(outcomes[receiver], BaseException) and deadline is None:
                deadline = time.monotonic() + GRACE
    for receiver, process in crew.items():
        if receiver not in outcomes:
            process.kill()
    return [outcomes[receiver] for receiver in crew if receiver in outcomes]


def _work(content: bytes, environment: Mapping[str, str], consent: Consent, sender: Connection) -> None:
    """One process of a run."""
    os.environ.update(environment)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # so that Ctrl-C reaches only the process that started this one, which passes it on
    threading.Thread(target=_stop_when_orphaned, daemon=True).start()
    try:
        train = pickle.loads(content)
        with given(consent):
            result = train()
        first = environment["LOCAL_RANK"] == "0"
        weights = [_on_cpu(peer.state_dict()) for peer in train.keywords.get("peers") or ()] if first else []
        outcome = pickle.dumps((result, weights))
    except Exception as error:
        error.add_note(traceback.format_exc())
        try:
            outcome = pickle.dumps(error)
        except Exception:  # an error of a class that cannot be pickled
            outcome = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    sender.send_bytes(outcome)


def _on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in state.items()}


def _stop_when_orphaned() -> None:
    """Makes the run save its state and stop once the process that started this one has ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
