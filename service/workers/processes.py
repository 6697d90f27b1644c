"""Several processes on one port, for hosts with many cores and for GPUs that one process cannot keep busy.

The parent answers no request: it starts the workers, passes signals on, and waits. Each worker is a whole server with a
listening socket of its own on the shared port (``SO_REUSEPORT``), among which the kernel spreads connections.
A worker that ends unasked ends the server: the others drain, and the exit code says so. As with one process, whoever
started the server starts it again; it is never half there, and no counter is lost from a sum.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from service.contract.errors import PlumblineError
from service.engine import usable_cores
from service.settings import ServiceSettings
from service.workers.fleet import Fleet

logger = logging.getLogger(__name__)

Serve = Callable[[ServiceSettings, Fleet, list[socket.socket]], None]


class WorkerEnded(PlumblineError):  # noqa: N818  what happened
    """A worker ended that was not told to; the exit code is its own if that means something."""

    code = "worker"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def serve_workers(settings: ServiceSettings, serve: Serve) -> None:
    """Serve with ``settings.workers`` processes until a signal, which each of them obeys as a server of one does.

    :param serve: what each of them does; a function of a module, since it is called in another process.
    :raises WorkerEnded: if a worker ended unasked. :raises PlumblineError: if the address is taken.
    """
    with tempfile.TemporaryDirectory(prefix="plumbline-") as folder, _reserved(settings.host, settings.port) as port:
        shared = settings.model_copy(
            update={
                "port": port.getsockname()[1],
                "threads": settings.threads or max(1, usable_cores() // settings.workers),
            }
        )
        logger.info("%d workers on %s:%d", shared.workers, shared.host, shared.port)
        spawn = multiprocessing.get_context("spawn")
        workers: list[SpawnProcess] = []
        asked = threading.Event()

        def pass_on(number: int, frame: FrameType | None) -> None:
            asked.set()
            _signal(workers, number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        for index in range(1, settings.workers + 1):
            worker = spawn.Process(target=work, args=(serve, shared, index, Path(folder)), name=f"worker-{index}")
            worker.start()
            workers.append(worker)
        if asked.is_set():  # before every worker was there to be told
            _signal(workers, signal.SIGTERM)
        _wait(workers, asked)


def _wait(workers: list[SpawnProcess], asked: threading.Event) -> None:
    """Until every worker ended. :raises WorkerEnded: if one did so unasked."""
    running = list(workers)
    first: SpawnProcess | None = None
    while running:
        done = wait([worker.sentinel for worker in running])
        for worker in [one for one in running if one.sentinel in done]:
            worker.join()  # the sentinel is a little earlier than the exit code
            running.remove(worker)
            obeyed = asked.is_set() and worker.exitcode in (0, -signal.SIGTERM)
            if first is None and not obeyed:
                first = worker
                logger.error(
                    "%s ended with exit code %s; the others finish what they have", worker.name, worker.exitcode
                )
                _signal(running, signal.SIGTERM)
    if first is not None:
        code = first.exitcode or 1
        raise WorkerEnded(f"{first.name} ended with exit code {first.exitcode}.", code if code in (1, 2, 3) else 1)


def _signal(workers: list[SpawnProcess], number: int) -> None:
    for worker in workers:
        if worker.pid is not None and worker.exitcode is None:
            os.kill(worker.pid, number)


def work(serve: Serve, settings: ServiceSettings, index: int, folder: Path) -> None:
    """What a worker process does; ends it with the exit code of the error that stopped it."""
    os.setpgid(0, 0)  # Ctrl-C reaches the parent only, which passes it on once
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
    try:
        with listening_socket(settings.host, settings.port) as port:
            serve(settings, Fleet(index, settings.workers, folder), [port])
    except PlumblineError as error:
        logger.error("%s", error)
        raise SystemExit(error.exit_code) from error


def _follow_parent() -> None:
    """End as if asked when the parent is gone, killed for example: nobody else would pass a signal on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _reserved(host: str, port: int) -> socket.socket:
    """The port, held for the workers. :raises PlumblineError: if another server has it, shared or not."""
    try:
        with socket.create_server((host, port), family=_family(host)):
            pass  # alone: a shared socket would join another server's workers
        return listening_socket(host, port)
    except OSError as error:
        raise PlumblineError(f"cannot listen on {host}:{port}; is the port taken? ({error})") from error


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that shares its port; it takes connections once it listens."""
    shared = socket.socket(_family(host), socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind((host, port))
    return shared


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
