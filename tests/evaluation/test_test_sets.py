"""Which sentences a run is scored on, and as what language."""

import json

import pytest

from jaxnmt.config import Data, Experiment, Tokenizer, UserError, replace
from jaxnmt.data import identity
from jaxnmt.data.prepared import prepare
from jaxnmt.evaluation.test_sets import open_test_set


@pytest.fixture
def experiment(tmp_path):
    """Of two files, some of whose pairs are held out; a run of it has begun."""
    for language in ("en", "zh"):
        (tmp_path / f"a.{language}").write_text("".join(f"{language} {i} x y\n" for i in range(300)))
    data = Data(train=(str(tmp_path / "a.en"), str(tmp_path / "a.zh")), cache=str(tmp_path / "cache"), held_out=20, workers=1)
    experiment = Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0, joint=False))
    prepared = prepare(experiment, tmp_path / "tokenizer", lambda line: None)
    (tmp_path / identity.RECORD).write_text(json.dumps(prepared.fingerprints))
    assert prepared.languages == ("en", "zh")
    return experiment


def test_languages_are_those_of_the_text_trained_on_unless_source_or_field_knows_better(experiment, tmp_path):
    held_out = open_test_set(experiment, tmp_path, "validation")
    assert held_out.languages == ("en", "zh") and len(held_out.sources) > 5
    for name, languages in (("dev.tsv", ("en", "zh")), ("dev.en-ko.tsv", ("en", "ko"))):
        (tmp_path / name).write_text("a\tb\n")
        assert open_test_set(experiment, tmp_path, "test", (str(tmp_path / name),)).languages == languages
    said = replace(experiment, **{"data.target_language": "ja"})
    assert open_test_set(said, tmp_path, "validation").languages == ("en", "ja")


def test_held_out_pairs_of_other_text_are_refused(experiment, tmp_path):
    (tmp_path / "a.en").write_text("".join(f"en {i} z\n" for i in range(300)))
    with pytest.raises(UserError, match="not the text that .* was trained on .* --data"):
        open_test_set(experiment, tmp_path, "test")
