"""A SLURM cluster of several nodes on this computer, for as long as a test runs.

The daemons are Debian's (`apt-get install slurmctld slurmd slurm-client munge`). They run as root, in the foreground, without systemd and
without cgroups, from one folder that holds their configuration, state and logs. All nodes are this computer.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

ROOT = pathlib.Path(__file__).parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
NOTHING: Mapping[str, str] = MappingProxyType({})
POLL_SECONDS = 0.2
NODE_TIMEOUT = 20  # seconds without an answer until a node is down

_SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
GresTypes=gpu
ReturnToService=2
SlurmdTimeout={node_timeout}
KillWait=30
JobRequeue=1
"""


def missing() -> str:
    """Return why there can be no cluster here, or ""."""
    lacking = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
    if lacking:
        return f"no SLURM here ({', '.join(lacking)}): apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "the cluster's daemons need root"
    with contextlib.suppress(OSError):
        socket.getaddrinfo(_host(), None)
        return ""
    return f"the name of this computer, {_host()}, does not resolve: add it to /etc/hosts"


def _path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def _host() -> str:
    return socket.gethostname().split(".")[0]


class Cluster:
    """Nodes HOST, HOST-2, HOST-3 ... Only the first name resolves. It sorts first: of a job on several nodes, process 0 runs there."""

    def __init__(self, folder: pathlib.Path, nodes: int, cpus: int, gpus: int):
        """`cpus`, `gpus`: of each node, as SLURM counts them. A GPU is another /dev/null."""
        self.folder, self.nodes = folder, [_host(), *(f"{_host()}-{n}" for n in range(2, nodes + 1))]
        self._configure(cpus, gpus)
        self._write_command(folder / "bin")
        python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.environment |= {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}/bin:{_path()}",
            "PYTHONPATH": python_path,
            "JAX_PLATFORMS": "cpu",
            "JAXNMT_CACHE": str(folder / "cache"),
        }
        self._daemons: dict[str, subprocess.Popen] = {}
        self._guard: subprocess.Popen | None = None

    def _write_command(self, bin: pathlib.Path) -> None:
        """Write the command `jaxnmt` of the nodes. It first runs $BEFORE_JAXNMT; its processes wait $WAIT_SECONDS for each other."""
        bin.mkdir()
        (bin / "command.py").write_text(
            "import os, sys\nfrom jaxnmt import cli\nfrom jaxnmt.parallel import peers\n"
            'peers.WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", peers.WAIT_SECONDS))\nsys.exit(cli.main())\n'
        )
        (bin / "jaxnmt").write_text(f'#!/bin/bash\neval "$BEFORE_JAXNMT"\nexec {sys.executable} {bin}/command.py "$@"\n')
        (bin / "jaxnmt").chmod(0o755)

    def _configure(self, cpus: int, gpus: int) -> None:
        for name in ("state", "log", "munge", "cgroup"):
            (self.folder / name).mkdir()
        (self.folder / "munge").chmod(0o755)  # munged wants it so
        key = self.folder / "munge" / "key"
        key.write_bytes(random.randbytes(128))
        key.chmod(0o600)
        for gpu in range(gpus):
            os.mknod(self.folder / f"gpu{gpu}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # slurmd takes nothing but a character device
        port = random.randrange(21000, 29000)
        lines = _SLURM_CONF.format(host=_host(), port=port, folder=self.folder, node_timeout=NODE_TIMEOUT).splitlines()
        for number, name in enumerate(self.nodes, 1):
            (self.folder / "spool" / name).mkdir(parents=True)
            place = f"NodeName={name} NodeHostname={_host()} NodeAddr=127.0.0.1 Port={port + number}"
            lines.append(f"{place} CPUs={cpus} RealMemory=8000 Gres=gpu:{gpus} Features=fast State=UNKNOWN")
        lines.append("PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
        lines.append("PartitionName=other Nodes=ALL MaxTime=INFINITE State=UP")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{gpus - 1}]\n")
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={self.folder}/cgroup\n")  # read, not used

    # ---- its life

    def start(self) -> None:
        """Start the daemons and wait until all nodes are idle."""
        guard = [sys.executable, __file__, self.environment["SLURM_CONF"]]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        munge = {name: f"--{name}-file={self.folder}/munge/{name}" for name in ("key", "pid", "log", "seed")}
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge/socket", "--num-threads=2", *munge.values())
        self.until(lambda: (self.folder / "munge" / "socket").exists(), 20, "munged made no socket")
        self._daemon("slurmctld", "-D")
        for name in self.nodes:
            self.start_node(name)
        idle = lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D", check=False).strip() == str(len(self.nodes))  # noqa: E731
        self.until(idle, 60, "the nodes did not come up")

    def start_node(self, name: str) -> None:
        """Start a node's daemon."""
        self._daemon(f"slurmd-{name}", "slurmd", "-D", "-N", name)

    def _daemon(self, name: str, *command: str) -> None:
        command = command if command[0] == name or name.startswith("slurmd-") else (name, *command)
        log = (self.folder / "log" / f"{name}.out").open("w")
        with log:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self) -> list[str]:
        """End all jobs and all daemons. Returns what had to be killed: nothing, if all is well."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.cancel_all()
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(15)
        left = {pid: command_of(pid) for pid in self.processes()}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in self._daemons.values():
            daemon.wait()
        if self._guard:
            self._guard.communicate()
        return [f"{pid}: {command}" for pid, command in left.items() if command]

    def cancel_all(self) -> None:
        """Cancel all jobs and wait until their processes have ended."""
        if jobs := self.run("squeue", "-h", "-o", "%A").split():
            self.run("scancel", *jobs, check=False)
        self.until(lambda: not self.run("squeue", "-h"), 60, "jobs were cancelled and did not end")

    def processes(self, node: str = "") -> list[int]:
        """Return the ids of all processes that belong to this cluster, or those of a node's tasks."""
        return processes_of(self.environment["SLURM_CONF"], node)

    def node_processes(self, node: str) -> list[int]:
        """Return the ids of everything on a node: its daemon, what supervises its tasks, and the tasks."""
        tasks = self.processes(node)
        supervisors = {_parent(pid) for pid in tasks} - set(tasks)
        supervisors = {pid for pid in supervisors if "slurmstepd" in command_of(pid)}
        return [self._daemons[f"slurmd-{node}"].pid, *supervisors, *tasks]

    # ---- jobs

    def run(self, *command: str, check: bool = True, timeout: float = 600, environment: Mapping[str, str] = NOTHING, **options) -> str:
        """Run a command that finds this cluster. Returns its stdout."""
        done = subprocess.run(command, env=self.environment | environment, capture_output=True, text=True, timeout=timeout, **options)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}{done.stdout}")
        return done.stdout

    def submit(self, script: str, *options: str) -> Job:
        """Submit a job script."""
        return Job(self, self.run("sbatch", "--parsable", *options, input=script, cwd=self.folder).strip())

    def launch(self, *words: str, nodes: int = 2, options: Sequence[str] = (), **environment: str) -> Job:
        """Submit a command by `jaxnmt launch slurm`, one process a node without GPUs."""
        return Job(self, self._launch(words, nodes, options, environment).split()[-1])

    def script(self, *words: str, nodes: int = 2, options: Sequence[str] = ()) -> str:
        """Return the job script that `launch` would submit."""
        return self._launch(words, nodes, ["--print", *options], {})

    def _launch(self, words: Sequence[str], nodes: int, options: Sequence[str], environment: Mapping[str, str]) -> str:
        few = [
            part for flag, number in (("--gpus", "0"), ("--cpus", "1"), ("--hours", "1")) if flag not in options for part in (flag, number)
        ]
        command = ["jaxnmt", "launch", "slurm", "--nodes", str(nodes), *few, *options, "--", *words]
        return self.run(*command, cwd=self.folder, environment=environment)

    @staticmethod
    def until(seen: Callable[[], object], seconds: float, otherwise: str, every: float = POLL_SECONDS) -> None:
        """Wait for something, for at least so many seconds in which this process runs."""
        for _ in range(round(seconds / every)):
            if seen():
                return
            time.sleep(every)
        raise TimeoutError(otherwise)


class Job:
    """A job of the cluster. It logs to NAME-ID.log, as `jaxnmt launch slurm` has it."""

    def __init__(self, cluster: Cluster, number: str):
        self.cluster, self.number = cluster, number

    def fields(self) -> dict[str, str]:
        """Return what SLURM knows of it."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.cluster.run("scontrol", "show", "job", self.number)))

    def log(self) -> str:
        """Return what it has written so far."""
        return "".join(path.read_text(errors="replace") for path in self.cluster.folder.glob(f"*-{self.number}.log"))

    def until(self, pattern: str, seconds: float = 120) -> None:
        """Wait for a line in its log."""
        self._wait(lambda: re.search(pattern, self.log()), seconds, f"never said {pattern}")

    def until_state(self, *states: str, seconds: float = 120) -> dict[str, str]:
        """Wait until it is in one of these states. Returns what SLURM knows of it."""
        self._wait(lambda: self.fields()["JobState"] in states, seconds, f"did not become {' or '.join(states)}")
        return self.fields()

    def ended(self, seconds: float = 120) -> dict[str, str]:
        """Wait until it has ended for good, or is queued again. Returns what SLURM knows of it."""
        self._wait(lambda: _has_ended(self.fields()), seconds, "did not end")
        return self.fields()

    def restart_now(self) -> None:
        """Start it soon, and without a time limit: SLURM lets a job that was queued again wait for two minutes."""
        self.until_state("PENDING")
        time.sleep(3)  # a node refuses a job that comes back within a second: "Job credential revoked"
        self.cluster.run("scontrol", "update", f"JobId={self.number}", "StartTime=now", "TimeLimit=UNLIMITED")

    def signal(self, name: str = "TERM") -> None:
        """Send a signal to its tasks, as SLURM does ahead of the time limit."""
        self.cluster.run("scancel", f"--signal={name}", self.number)

    def _wait(self, seen: Callable[[], object], seconds: float, otherwise: str) -> None:
        try:
            self.cluster.until(seen, seconds, "")
        except TimeoutError:
            raise TimeoutError(f"job {self.number} {otherwise}; {self.fields()}; its log:\n{self.log()}") from None


def processes_of(configuration: str, node: str = "") -> list[int]:
    """Return the ids of all processes of the cluster with this slurm.conf, or those of a node's tasks."""
    marks = {f"SLURM_CONF={configuration}".encode(), *([f"SLURMD_NODENAME={node}".encode()] if node else [])}
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and marks <= set((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found


def guard(configuration: str) -> None:
    """Wait until whoever started the cluster has ended, however it ended; then kill what is left of the cluster."""
    sys.stdin.read()
    while left := processes_of(configuration):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _has_ended(job: dict[str, str]) -> bool:
    queued_again = job["JobState"] == "PENDING" and job["Reason"] == "BeginTime"
    return queued_again or job["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


def command_of(pid: int) -> str:
    """Return a process's command line; "" if it has ended."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(re.search(r"^PPid:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1])
    return 0


@contextlib.contextmanager
def cluster(folder: pathlib.Path, nodes: int = 3, cpus: int = 8, gpus: int = 2) -> Iterator[Cluster]:
    """Run a cluster while the block lasts.

    Raises:
        AssertionError: a process was left when all had been told to end; it has been killed.
    """
    made = Cluster(folder, nodes, cpus, gpus)
    try:
        made.start()
        yield made
    finally:
        left = made.stop()
    assert not left, left


if __name__ == "__main__":
    guard(sys.argv[1])
