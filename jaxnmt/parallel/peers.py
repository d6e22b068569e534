"""How the processes of one command find each other: what the environment says of them, where process 0 is, and how long they wait."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator

from jaxnmt.errors import Unreachable, UserError

WAIT_SECONDS = 300.0
"""How long a process waits for the others to start: hosts of one job may be minutes apart."""
_RESOLVE_SECONDS = 60.0
"""How long a fixed name is tried while the name server is busy."""
_VARIABLES = (  # what `are_several` reads, and JAX after it; of SLURM, all that a step sets
    *("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAXNMT_DISTRIBUTED"),
    *("MEGASCALE_COORDINATOR_ADDRESS", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"),
)
_FIRST_PORT, _PORTS = 61440, 4096  # above the ports that Linux gives to connections


@dataclasses.dataclass(frozen=True)
class Peers:
    """The processes that the environment describes. JAX finds out what is None."""

    address: str | None = None
    """host:port of process 0."""
    count: int | None = None
    index: int | None = None
    """Number of this process."""
    devices: list[int] | None = None
    """GPUs of this process, as numbers among those that it sees; None: all."""
    is_fixed: bool = False
    """The address does not change while a job runs: a name that is not known now will not be later."""

    @property
    def is_complete(self) -> bool:
        """Return whether JAX has nothing left to find out."""
        return None not in (self.address, self.count, self.index)


def are_several() -> bool:
    """Return whether the environment says that this process is one of several.

    It is one where `JAX_COORDINATOR_ADDRESS` (host:port of process 0) is set, with `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`; in a SLURM
    step of several tasks; on a TPU slice of several hosts as Kubernetes sets it up, or one of several slices; and where
    `JAXNMT_DISTRIBUTED=auto` leaves it to JAX to find out (Cloud TPU machines, whose metadata it reads).
    """
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES") or ""
    return (
        bool(os.environ.get("JAX_COORDINATOR_ADDRESS") or os.environ.get("MEGASCALE_COORDINATOR_ADDRESS"))
        or _is_slurm_step()
        or "," in hosts
        or os.environ.get("JAXNMT_DISTRIBUTED") == "auto"
    )


def single_process_environment() -> dict[str, str]:
    """Return the environment without what says that a process is one of several: for a process that we start and that is not."""
    return {name: value for name, value in os.environ.items() if name not in _VARIABLES and not name.startswith("SLURM_STEP")}


def read_environment() -> Peers:
    """Read the JAX_ variables and, for what they leave open, those of a SLURM step.

    Raises:
        UserError: a variable is not a number, or the address is not host:port.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS") or None
    if address and not (re.fullmatch(r".+:\d+", address) and _is_port(address.rpartition(":")[2])):
        raise UserError(f"JAX_COORDINATOR_ADDRESS is {address!r} in the environment; it must be host:port of process 0")
    port = os.environ.get("JAX_COORDINATOR_PORT")
    if port and not _is_port(port):
        raise UserError(f"JAX_COORDINATOR_PORT is {port!r} in the environment; it must be a number from 1 to 65535")
    told = Peers(address, _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID"))
    if told.is_complete or told.count == 1 or not _is_slurm_step():
        return told
    local = _number("SLURM_LOCALID") or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("ROCR_VISIBLE_DEVICES") or ""
    # Each task takes one GPU: of those that all tasks of the node see, its own; or the one that SLURM lets it see.
    devices = None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else [local % (visible.count(",") + 1)] if visible else [local]
    return Peers(
        told.address or _slurm_address(),
        _number("SLURM_STEP_NUM_TASKS") if told.count is None else told.count,
        _number("SLURM_PROCID") if told.index is None else told.index,
        devices,
        is_fixed=True,
    )


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65536


def _is_slurm_step() -> bool:
    return os.environ.get("SLURM_STEP_NUM_TASKS", "1") not in ("", "1")


def _slurm_address() -> str | None:
    """Return the first node of the step, where process 0 runs, and a port: neither the job's other steps nor its neighbours have it."""
    nodes, job, step = (os.environ.get(f"SLURM_{name}", "") for name in ("STEP_NODELIST", "JOB_ID", "STEP_ID"))
    if not nodes or not job.isdecimal():
        return None
    first = re.match(r"([^,\[]|\[[^\]]*\])*", nodes)[0]  # type: ignore[index]
    host = re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)  # node[001-015,020] -> node001
    port = _FIRST_PORT + (int(job) + 1021 * (int(step) if step.isdecimal() else 0)) % _PORTS
    return f"{host}:{os.environ.get('JAX_COORDINATOR_PORT') or port}"


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    if value is not None and not value.isdecimal():
        raise UserError(f"{name} is {value!r} in the environment; it must be a whole number")
    return None if value is None else int(value)


@contextlib.contextmanager
def patience(peers: Peers) -> Iterator[None]:
    """Say where process 0 is; end this process if the block, in which the processes connect, has not ended after `WAIT_SECONDS`.

    JAX says nothing while it waits, and then aborts without naming the address.

    Raises:
        Unreachable: the name of process 0's host does not resolve; or this is process 0, and its port is another program's.
    """
    give_up = threading.Timer(WAIT_SECONDS, _give_up, [peers])
    give_up.daemon = True
    give_up.start()
    try:
        if peers.address:
            _resolve(peers, _RESOLVE_SECONDS if peers.is_fixed else WAIT_SECONDS)
        if peers.address and peers.index == 0 and peers.count:
            _check_port(peers.address)
            _say(f"process 0 at {peers.address}, waiting for {peers.count - 1} other{'s' if peers.count > 2 else ''}")
        yield
    finally:
        give_up.cancel()


def _resolve(peers: Peers, seconds: float) -> None:
    """Wait until the name of process 0's host resolves: on Kubernetes it does so once that process's pod has a host."""
    assert peers.address
    host, _, port = peers.address.rpartition(":")
    end = time.monotonic() + seconds
    is_waiting = False
    while True:
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
            return
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            is_temporary = getattr(error, "errno", None) == socket.EAI_AGAIN
        if (peers.is_fixed and not is_temporary) or time.monotonic() > end - 2:
            raise Unreachable(
                f"{_who(peers)}process 0 is at {peers.address}, and {host} does not resolve on {socket.gethostname()} ({why}): "
                "give its name to this host, or set JAX_COORDINATOR_ADDRESS to host:port of process 0 as this host knows it"
            )
        if not is_waiting:
            _say(f"{_who(peers)}process 0 is at {peers.address}, and {host} does not resolve ({why}); trying for {_minutes(seconds)}")
        is_waiting = True
        time.sleep(1)


def _check_port(address: str) -> None:
    """Refuse a port of this host that another program has: some versions of jaxlib crash there."""
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has just ended is no program
        try:
            ours.bind(("", int(address.rpartition(":")[2])))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):  # such as a host without IPv4
                return
            raise Unreachable(
                f"process 0 cannot take its port of {address} ({error.strerror}): "
                "end the program that has it, or give another port in JAX_COORDINATOR_ADDRESS, in a SLURM step in JAX_COORDINATOR_PORT"
            ) from error


def _give_up(peers: Peers) -> None:
    at = f" at {peers.address}" if peers.address else ""
    if peers.index == 0 and peers.count:
        found = f"not all of the {peers.count - 1} others have connected to process 0{at}"
    else:
        found = f"process 0{at} cannot be reached, or waits for others"
    waited = _minutes(WAIT_SECONDS)
    with contextlib.suppress(OSError):
        _say(f"error: {_who(peers)}{found} after {waited}: see whether all have started and reach that port, then start all again")
    os._exit(Unreachable.status)


def _who(peers: Peers) -> str:
    return "" if peers.index is None or peers.count is None else f"process {peers.index} of {peers.count}: "


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} minute{'' if seconds == 60 else 's'}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
