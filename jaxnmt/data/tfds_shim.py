"""TensorFlow Datasets without TensorFlow.

Two modules of TFDS that downloads need (`extractor`, `shuffle`) use a few file functions of TensorFlow. If TensorFlow is not installed,
`install` gives these modules a stand-in.
"""

from __future__ import annotations

import importlib.util
import types

from etils import epath


class _ResourceExhausted(OSError):
    """Never raised. TFDS catches TensorFlow's error of this name; an OSError must pass."""


def _stand_in() -> types.SimpleNamespace:
    """Return the part of the `tensorflow` module that TFDS uses to unpack archives and to shuffle data that does not fit in memory."""
    return types.SimpleNamespace(
        compat=types.SimpleNamespace(as_text=lambda text: text.decode() if isinstance(text, bytes) else text),
        io=types.SimpleNamespace(
            gfile=types.SimpleNamespace(
                GFile=lambda path, mode="r": epath.Path(path).open(mode),
                exists=lambda path: epath.Path(path).exists(),
                remove=lambda path: epath.Path(path).unlink(),
            )
        ),
        errors=types.SimpleNamespace(ResourceExhaustedError=_ResourceExhausted),
    )


def install() -> bool:
    """Let TFDS download and prepare datasets without TensorFlow. Return False, without a change, if TensorFlow is installed."""
    if importlib.util.find_spec("tensorflow") is not None:
        return False
    from tensorflow_datasets.core import shuffle
    from tensorflow_datasets.core.download import extractor

    extractor.tf = shuffle.tf = _stand_in()
    return True
