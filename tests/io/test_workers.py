"""Calls in several processes: in order, on cores of their own, and no process is left."""

import functools
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxnmt.errors import UserError
from jaxnmt.io import workers

EVAL = functools.partial(functools.partial, eval)  # returns the function; every process can unpickle it
SLEEP, PID = "__import__('time').sleep({}) or ", "__import__('os').getpid()"


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_come_in_the_order_of_the_arguments():
    slow_first = [(SLEEP.format(0.5 if not i else 0) + str(i),) for i in range(7)]
    assert list(workers.in_order(EVAL, iter(slow_first), 2, "")) == list(range(7))


def test_what_the_function_raises_is_raised_after_the_results_before_it():
    results = workers.in_order(EVAL, [("1",), ("1 / 0",), ("3",)], 2, "")
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_few_calls_are_under_way():
    taken = []
    results = workers.in_order(EVAL, ((taken.append(i), str(i))[1:] for i in range(100)), 2, "")
    for done in range(1, 10):
        next(results)
        assert len(taken) <= done + 4
    results.close()


def test_a_result_is_not_kept_waiting_by_a_pause():
    def endless():
        yield ("1",)
        while True:
            time.sleep(0.05)
            yield None

    results = workers.in_order(EVAL, endless(), 2, "")
    assert next(results) == 1
    results.close()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(workers.cores()) < 2, reason="needs two cores, and a say in them")
def test_each_process_has_cores_of_its_own():
    call = SLEEP.format(1) + f"({PID}, tuple(__import__('os').sched_getaffinity(0)))"
    of_process = dict(workers.in_order(EVAL, [(call,)] * 4, 2, "", divide_cores=True))
    one, other = of_process.values()
    assert sorted([*one, *other]) == workers.cores() and abs(len(one) - len(other)) <= 1


def test_a_killed_process_is_reported():
    with pytest.raises(UserError, match="it died"):
        list(workers.in_order(EVAL, [(f"__import__('os').kill({PID}, 9)",), ("2",)], 2, "it died"))


def test_no_process_is_left_by_an_iterator_that_is_closed_during_a_call():
    results = workers.in_order(EVAL, [(PID,), (SLEEP.format(60) + PID,), (SLEEP.format(60) + PID,)], 2, "")
    pid, began = next(results), time.monotonic()
    results.close()
    assert time.monotonic() - began < 20 and not is_alive(pid)


def test_no_process_is_left_by_a_parent_that_is_killed():
    script = (
        "from jaxnmt.io import workers; import functools, time\n"
        f"for pid in workers.in_order(functools.partial(functools.partial, eval), [({PID!r},), ({SLEEP.format(60) + PID!r},)], 1, ''):\n"
        "    print(pid, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(worker)
