"""A run's numbers as TensorBoard shows them, and as its records have them; read without TensorFlow."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboardX.proto.event_pb2 import Event, SessionLog

Scalars = dict[tuple[str, int], np.float32]
"""{(kind/name, step): value}"""


def _events(file: Path) -> Iterator[Event]:
    """Those of a file as TensorFlow writes records: eight bytes of length and four of its checksum, the event, four of its checksum."""
    data, place = file.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield Event.FromString(data[place + 12 : place + 12 + length])
        place += 12 + length + 4
    assert place == len(data), f"{file} is cut off"


def shown(run: Path) -> Scalars:
    """As TensorBoard does: a session that starts at a step takes the place of what earlier ones wrote from there on."""
    found: Scalars = {}
    for event in (event for file in sorted((run / "tensorboard").iterdir()) for event in _events(file)):
        if event.session_log.status == SessionLog.START:
            found = {(name, step): value for (name, step), value in found.items() if step < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = np.float32(value.simple_value)
    return found


def recorded(run: Path) -> Scalars:
    """The numbers in metrics.jsonl."""
    found: Scalars = {}
    for record in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        values = record | record.get("timing", {})
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float) and name != "step"}
        found |= {(f"{record['kind']}/{name}", record["step"]): np.float32(value) for name, value in numbers.items()}
    return found
