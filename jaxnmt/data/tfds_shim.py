"""TensorFlow Datasets without TensorFlow.

Two modules on the way of a download (`extractor`, `shuffle`) use a handful of TensorFlow's file functions. Where TensorFlow
is not installed, `install` gives these two modules a stand-in; where it is, nothing is touched.
"""

from __future__ import annotations

import importlib.util
import types

from etils import epath


class _ResourceExhausted(OSError):
    """Never raised: an OSError says the same and must not be mistaken for TensorFlow's own error."""


def _stand_in() -> types.SimpleNamespace:
    """The part of the `tensorflow` module that TFDS needs to unpack archives and to shuffle what does not fit into memory."""
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
    """Lets TFDS download and prepare datasets without TensorFlow. Returns False, having done nothing, where TensorFlow is installed."""
    if importlib.util.find_spec("tensorflow") is not None:
        return False
    from tensorflow_datasets.core import shuffle
    from tensorflow_datasets.core.download import extractor

    extractor.tf = shuffle.tf = _stand_in()
    return True
