"""What `export --to onnx` refuses, with the library or without."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import foreign
import pytest

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.errors import UserError
from jaxnmt.interop import onnx


def test_without_the_library_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    run = foreign.run(tmp_path / "run")
    for name in [each for each in sys.modules if each.startswith("jaxnmt.interop.onnx_")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"needs the library onnx .*: pip install 'jaxnmt\[onnx\]'"):
        jaxnmt.export_model(run, tmp_path / "out", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v.tsv"]


def test_the_card_names_settings_that_the_loader_leaves_out():
    decoding = cfg.Decoding(no_repeat_ngram_size=3, batch_tokens=4096, patience=1.0)
    text = onnx.usage(SimpleNamespace(config=cfg.replace(cfg.Experiment(), decoding=decoding)))
    assert "It leaves out settings of the run: no_repeat_ngram_size 3." in text
