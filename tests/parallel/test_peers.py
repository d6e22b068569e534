"""How processes find each other: what the environment says, and what is said when they do not."""

import os
import socket
import subprocess
import sys
import types

import pytest

from jaxnmt.errors import Unreachable, UserError
from jaxnmt.parallel import distributed, peers

STEP = {
    "SLURM_JOB_ID": "4096",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.fixture
def environment(monkeypatch):
    """`environment(NAME=value)` sets variables; no other one speaks of processes or GPUs."""
    for name in os.environ:
        if name.startswith(("SLURM", "JAX_COORDINATOR", "JAX_NUM_PROC", "JAX_PROCESS", "CUDA_VIS", "ROCR_VIS", "MEGASCALE", "TPU")):
            monkeypatch.delenv(name)
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-015],host2", "node001"),
        ("node[001,007-015],host2", "node001"),
        ("rack[2-3]-n[05-07]", "rack2-n05"),
        ("gpu-a[9]-ib,gpu-b1", "gpu-a9-ib"),
    ],
)
def test_process_0_of_a_slurm_step_is_on_its_first_node(nodes, first, environment):
    environment(**STEP | {"SLURM_STEP_NODELIST": nodes})
    assert peers.read_environment() == peers.Peers(f"{first}:61440", 4, 3, [1], is_fixed=True)


def test_steps_of_one_job_have_ports_of_their_own(environment):
    ports = set()
    for step in range(4):
        environment(**STEP | {"SLURM_STEP_ID": str(step)})
        ports.add(int(peers.read_environment().address.rpartition(":")[2]))
    assert len(ports) == 4 and all(61440 <= port < 65536 for port in ports)
    environment(JAX_COORDINATOR_PORT="1234")
    assert peers.read_environment().address == "node001:1234"


@pytest.mark.parametrize(
    ("visible", "own"),
    [({}, 1), ({"CUDA_VISIBLE_DEVICES": "0,1"}, 1), ({"CUDA_VISIBLE_DEVICES": "1"}, 0), ({"ROCR_VISIBLE_DEVICES": "3"}, 0)],
)
def test_a_task_of_slurm_takes_a_gpu_that_it_sees(visible, own, environment):
    environment(**STEP, **visible)
    assert peers.read_environment().devices == [own]


def test_a_site_may_give_a_task_all_gpus_of_its_node(environment):
    environment(**STEP, JAX_LOCAL_DEVICE_IDS="0,1,2,3")
    assert peers.read_environment().devices is None  # JAX reads the variable


def test_variables_of_ours_come_before_those_of_slurm(environment):
    environment(**STEP, JAX_COORDINATOR_ADDRESS="10.0.0.1:8476")
    assert peers.read_environment() == peers.Peers("10.0.0.1:8476", 4, 3, [1], is_fixed=True)
    environment(JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="0")
    assert peers.read_environment() == peers.Peers("10.0.0.1:8476", 2, 0)


@pytest.mark.parametrize("address", ["10.0.0.1", "host:", "host:port", ":80", "host:70000", "host:99999999999999999999"])
def test_an_address_is_a_host_and_a_port(address, environment):
    environment(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="0")
    with pytest.raises(UserError, match="must be host:port of process 0"):
        distributed.initialize()


@pytest.mark.parametrize("port", ["abc", "0", "65536"])
def test_a_port_is_a_number(port, environment):
    environment(**STEP, JAX_COORDINATOR_PORT=port)
    with pytest.raises(UserError, match=f"JAX_COORDINATOR_PORT is '{port}'"):
        peers.read_environment()


class Clock:
    """Time that passes when somebody sleeps."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_name_that_does_not_resolve_is_waited_for_only_where_it_may_come(monkeypatch, capsys):
    tries, clock = [], Clock()
    failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def resolve(host, port):
        tries.append((host, port))
        if len(tries) < 4:
            raise failure

    monkeypatch.setattr(peers, "socket", types.SimpleNamespace(getaddrinfo=resolve, gethostname=lambda: "here", EAI_AGAIN=socket.EAI_AGAIN))
    monkeypatch.setattr(peers, "time", clock)
    monkeypatch.setattr(peers, "_check_port", lambda address: None)
    with pytest.raises(Unreachable, match="process 3 of 4: process 0 is at node001:61440, and node001 does not resolve on here") as error:
        with peers.connect_timeout(peers.Peers("node001:61440", 4, 3, [1], is_fixed=True)):
            raise AssertionError("it did not wait")
    assert error.value.status == 75 and len(tries) == 1 and capsys.readouterr().err == ""
    with peers.connect_timeout(peers.Peers("pod-0.set:8476", 2, 0)):  # on Kubernetes
        assert tries[-1] == ("pod-0.set", 8476) and clock.now == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "pod-0.set does not resolve (Name or service not known); trying for 5 min" in said[0]
    assert said[1] == "process 0 at pod-0.set:8476, waiting for 1 other"
    tries[:] = [("", 0)] * 2
    failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")  # as a busy name server answers
    with peers.connect_timeout(peers.Peers("node001:61440", 4, 3, [1], is_fixed=True)):
        assert len(tries) == 4
    tries.clear()
    failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(peers, "WAIT_SECONDS", 3.0)
    with pytest.raises(Unreachable, match="does not resolve"), peers.connect_timeout(peers.Peers("pod-0.set:8476", 2, 0)):
        raise AssertionError("it did not wait")


def joined(index, count, port):
    """Start a process that waits two seconds for the others."""
    code = "import sys\nfrom jaxnmt import cli\nfrom jaxnmt.parallel import peers\npeers.WAIT_SECONDS = 2\nsys.exit(cli.main(sys.argv[1:]))"
    variables = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(index)}
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "prepare", "quickstart"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=90,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.fixture
def port():
    with socket.socket(socket.AF_INET6) as taken:  # by nobody who answers, until the test ends
        taken.bind(("::", 0))
        yield taken.getsockname()[1]


def test_a_process_that_finds_nobody_says_so_in_a_sentence(port):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    status, said = joined(0, 3, port)
    assert status == 75 and said[0] == f"process 0 at 127.0.0.1:{port}, waiting for 2 others"
    assert said[1].startswith(f"error: process 0 of 3: not all of the 2 others have connected to process 0 at 127.0.0.1:{port} after ")
    status, said = joined(1, 3, port)
    assert status == 75 and len(said) == 1
    assert said[0].startswith(f"error: process 1 of 3: process 0 at 127.0.0.1:{port} cannot be reached, or waits for others after ")


def test_a_port_that_another_program_has_is_named(port):
    status, said = joined(0, 2, port)
    assert status == 75 and len(said) == 1
    assert said[0].startswith(f"error: process 0 cannot take its port of 127.0.0.1:{port} (Address already in use)")
