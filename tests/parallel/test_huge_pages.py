"""A process that starts itself once more is still the process that was asked for."""

import os
import subprocess
import sys

import pytest

from jaxnmt.parallel import compiler

PROGRAM = """
import os, resource, sys
before = os.getpid()
from jaxnmt.parallel import compiler
compiler.enable_huge_pages()
start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
buffer = bytearray(1 << 26)
for place in range(0, len(buffer), 4096):
    buffer[place] = 1
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
print(os.getpid(), faults, os.environ["GLIBC_TUNABLES"], sys.argv[1:], sys.stdin.read())
"""


def run(*arguments, **environment):
    settings = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | environment
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings)
    out, _ = process.communicate("input")
    pid, faults, rest = out.strip().split(" ", 2)
    return process, int(pid), int(faults), rest


def asks():
    return compiler.HUGE_PAGES.exists() and "[madvise]" in compiler.HUGE_PAGES.read_text()


@pytest.mark.skipif(not asks(), reason="huge pages are not given to those who ask here: nothing is done")
def test_the_process_goes_on_as_it_was_with_huge_pages():
    process, pid, faults, rest = run("a b", "--c")
    assert pid == process.pid
    assert rest == "glibc.malloc.hugetlb=1 ['a b', '--c'] input"
    assert faults < 16384 / 4  # 64 MiB are 16384 small pages


def test_what_the_user_has_tuned_stays():
    _, _, _, rest = run(GLIBC_TUNABLES="glibc.malloc.check=0")
    assert rest == "glibc.malloc.check=0 [] input"


@pytest.mark.parametrize(
    "setting, started", [("always [madvise] never", 1), ("always madvise [never]", 0), ("[always] madvise never", 0), (None, 0)]
)
def test_a_process_is_started_again_only_where_huge_pages_are_to_be_had(setting, started, tmp_path, monkeypatch):
    path, calls = tmp_path / "enabled", []
    if setting:
        path.write_text(setting)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execve", lambda *words: calls.append(words))
    monkeypatch.setattr(compiler, "HUGE_PAGES", path)
    compiler.enable_huge_pages()
    assert len(calls) == started
