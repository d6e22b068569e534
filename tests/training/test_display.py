"""What training shows on stderr: text as it is, records that are not cut, and the time that is left."""

import io
import re
import sys

import pytest

from jaxnmt.training import display, progress

VALUES = {"epoch": 1.5, "loss": 4.2345, "perplexity": 68.123, "learning_rate": 1e-3, "gradient_norm": 0.512, "padding": 0.1}
TIMING = {"target_tokens_per_second": 12345.0, "utilisation": 0.35, "input_wait": 0.01, "seconds_left": 136456}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def shown(monkeypatch, stream, width=80, term="xterm"):
    """What is written to stderr when a line was said and a record logged."""
    monkeypatch.setattr(sys, "stderr", stream)
    for name, value in {"COLUMNS": str(width), "LINES": "24", "TERM": term}.items():
        monkeypatch.setenv(name, value)
    made = display.Display(1000, 0, pytest.fail, shown=True)
    made.start()
    made.say("phrases/en-fr:train: :smile: [bold]x[/bold] " + "a long line " * 20 + "ends")
    made.step(200)
    made.show(200, display.train_line(VALUES, TIMING))
    made.stop()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_line_is_printed_as_it_is(stream, monkeypatch):
    said = "phrases/en-fr:train: :smile: [bold]x[/bold] " + "a long line " * 20 + "ends"
    assert said in shown(monkeypatch, stream())


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_word_of_a_record_is_cut_on_a_terminal(width, monkeypatch):
    text = shown(monkeypatch, Terminal(), width)
    last = text[text.rindex("epoch") :].split()
    record = display.train_line(VALUES, TIMING).split()
    assert last[: len(record)] == record and "200/1000" in text and "…" not in text


def test_a_stream_that_is_no_terminal_gets_one_line_a_record(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = shown(monkeypatch, io.StringIO()).splitlines()
    assert lines[1:] == [f"step 200/1,000  {display.train_line(VALUES, TIMING)}"]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines_too(monkeypatch):
    assert shown(monkeypatch, Terminal(), term="dumb").splitlines()[1:] == [f"step 200/1,000  {display.train_line(VALUES, TIMING)}"]


@pytest.mark.parametrize(("minutes", "left"), [(0, 9950.0), (14, 600.0), (1000, 9950.0), (3, 0.0)])
def test_the_time_left_ends_with_the_steps_or_with_the_minutes(minutes, left, monkeypatch):
    """After 240 s of training, 995 steps of 10 s are to come; 14 minutes are 840 s."""
    monkeypatch.setattr(progress.time, "perf_counter", lambda: 1000.0)
    assert progress.Clock(before=240.0, most=60 * minutes).seconds_left(995 * 10.0) == left
