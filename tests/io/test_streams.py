"""Lines in, as they come, and out, whole or not at all."""

import gzip
import io
import os
import sys
import threading
import time

import pytest

from jaxnmt.errors import UserError
from jaxnmt.io import streams


@pytest.fixture
def pipe(monkeypatch):
    """The end of stdin that others write to."""
    read, write = os.pipe()
    with open(read, "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        yield write


def test_a_line_of_a_pipe_is_not_kept_waiting_for_the_next(pipe):
    lines = streams.line_batches("", 1000)
    too_late = threading.Timer(5, os.close, (pipe,))  # so that a failure is no hang
    too_late.start()
    for line in (b"one", b"two\nthree"):
        os.write(pipe, line + b"\n")
        assert next(lines) == line.decode().split("\n")
    too_late.cancel()
    os.write(pipe, b"no line end")
    os.close(pipe)
    assert list(lines) == [["no line end"]]


def test_a_pipe_that_does_not_block_is_read_to_its_end(pipe):
    """A parent may have left it so; without data it looks like the end."""
    os.set_blocking(sys.stdin.fileno(), False)

    def bring():
        for line in (b"two\n", b"three\n"):
            time.sleep(0.3)
            os.write(pipe, line)
        os.close(pipe)

    os.write(pipe, b"one\n")
    threading.Thread(target=bring).start()
    assert sum(streams.line_batches("", 1000), []) == ["one", "two", "three"]


@pytest.mark.parametrize("pause", [0.0, 0.002])
def test_however_a_pipe_brings_its_lines_they_are_the_files(pipe, tmp_path, monkeypatch, pause):
    monkeypatch.setattr(streams, "GATHER", 0.001)
    text = "".join(f"Zeile {i} ä€\n" + "\n" * (i % 3 == 0) for i in range(60)).encode() + b"\r\nlast"
    (tmp_path / "text").write_bytes(text)

    def bring():
        for start in range(0, len(text), 7):  # through the middle of letters
            os.write(pipe, text[start : start + 7])
            time.sleep(pause)
        os.close(pipe)

    threading.Thread(target=bring).start()
    found, expected = (list(streams.line_batches(name, 8)) for name in ("", str(tmp_path / "text")))
    assert sum(found, []) == sum(expected, []) and max(map(len, found)) <= 8
    assert [len(window) for window in expected[:-1]] == [8] * (len(expected) - 1)


def test_an_output_file_is_whole_or_not_there(tmp_path):
    with pytest.raises(RuntimeError), streams.line_writer(str(tmp_path / "out")) as write:
        write("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_stays_what_it_is_and_a_link_a_link(tmp_path):
    (tmp_path / "old").write_text("old\n")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link", "pipe"):
        with streams.line_writer(str(tmp_path / name)) as write:
            write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "old").read_text() == "new\n"
    assert (tmp_path / "pipe").is_fifo() and os.read(pipe, 9) == b"new\n"
    os.close(pipe)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "link", "pipe"}


def test_a_full_device_is_named():
    with pytest.raises(UserError, match="--output /dev/full cannot be written: No space left"), streams.line_writer("/dev/full") as write:
        write("a line")
    with pytest.raises(UserError, match="--output /dev/full cannot be written: No space left"), streams.line_writer("/dev/full") as write:
        write("a line" * 9999)  # more than a buffer holds


def test_a_packed_input_that_is_cut_off_is_told_in_a_sentence(tmp_path):
    whole = gzip.compress(bytes(range(256)) * 99)
    for name, data in (("cut", whole[:-9]), ("other", b"no gzip")):
        (tmp_path / f"{name}.gz").write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.gz is not (a whole gzip file|gzip data)"):
            list(streams.line_batches(str(tmp_path / f"{name}.gz"), 8))


def test_minus_is_stdin_and_stdout(pipe, capfdbinary):
    os.write(pipe, "ä\nb\n".encode())
    os.close(pipe)
    assert sum(streams.line_batches("-", 8), []) == ["ä", "b"]
    with streams.line_writer("-") as write:
        write("ö")
    assert capfdbinary.readouterr().out == "ö\n".encode() and not os.path.exists("-")


def test_a_long_line_of_a_pipe_takes_time_in_proportion(pipe):
    """64 MiB in blocks of 64 KiB: joined anew for each block, they take 20 s; joined once, less than 1 s."""
    block = b"x" * 2**16

    def bring():
        for _ in range(2**10):
            os.write(pipe, block)
        os.write(pipe, b"\nlast")
        os.close(pipe)

    threading.Thread(target=bring).start()
    start = time.process_time()
    assert [len(line) for window in streams.line_batches("", 8) for line in window] == [2**26, 4]
    assert time.process_time() - start < 5
