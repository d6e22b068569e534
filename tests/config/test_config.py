"""Configurations: loading, JSON, comparison, and values that cannot be."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Annotated

import pytest

from jaxnmt.config import Experiment, Positive, Recurrent, Transformer, constraint, replace
from jaxnmt.config import checks as config_checks
from jaxnmt.config.fields import constraints, leaves
from jaxnmt.config.files import changed_fields, find_config, load_config, read_config, save_config, shipped_configs, with_absolute_paths
from jaxnmt.config.model_code import load_module
from jaxnmt.errors import UserError
from jaxnmt.runs import directory as run_directory

NAMES = {name for name, _, _ in leaves(Experiment())}
SHIPPED = ("multi30k", "multi30k_tiny", "quickstart", "tatoeba", "transformer_small", "wmt14_base", "wmt14_big")

OWN_MODEL = """import dataclasses
from jaxnmt.config import Experiment

@dataclasses.dataclass(frozen=True)
class Mine:
    width: int = 3

def config():
    return Experiment(model=Mine(7))
"""


def test_the_shipped_configs_are_there():
    assert set(SHIPPED) <= set(shipped_configs())


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_config_is_valid_says_its_command_and_survives_json(name, tmp_path):
    experiment = load_config(name)
    config_checks.validate(experiment)
    assert f"jaxnmt train {name}" in (load_module(find_config(name)).__doc__ or "")
    save_config(experiment, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == experiment


def test_a_name_is_found_with_dashes_and_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("transformer-small") == load_config("transformer_small")


def test_a_model_of_the_users_own_survives_json(tmp_path):
    (tmp_path / "mine.py").write_text(OWN_MODEL)
    experiment = load_config(str(tmp_path / "mine.py"))
    save_config(experiment, tmp_path / "config.json")
    again = read_config(tmp_path / "config.json")
    assert type(again.model).__name__ == "Mine" and again.model.width == 7


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("x = 1\nimport no_such_module\n", 2, "no_such_module"),
        ("x = 1\n\nx = = 2\n", 3, "SyntaxError"),
        ("x = 1\n", 1, "no function config()"),
        ("\ndef config():\n    return 3\n", 2, "int"),
        ("from jaxnmt.config import *\n\ndef config():\n    return Experiment(\n        nonsense=3)\n", 4, "nonsense"),
    ],
)
def test_a_broken_config_file_is_named_with_its_line(text, line, says, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(str(path))
    assert f"{path}, line {line}:" in str(error.value) and says in str(error.value)


def test_an_unknown_config_is_answered_with_the_nearest_and_all():
    with pytest.raises(UserError, match="did you mean multi30k_tiny") as error:
        load_config("multi30k_tyni")
    assert all(name in str(error.value) for name in SHIPPED)


def test_json_that_is_none_and_fields_that_do_not_exist_are_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(UserError, match="is not a configuration"):
        read_config(path)
    path.write_text(json.dumps({"training": {"stepz": 3}}))
    with pytest.raises(UserError, match="did you mean training.steps"):
        read_config(path)
    path.write_text(json.dumps({"training": {"steps": 3}}))
    assert read_config(path) == replace(Experiment(), **{"training.steps": 3})


def test_differences_name_each_changed_field_and_nothing_else():
    new = replace(Experiment(), **{"model.dropout": 0.3, "data.train": ("a", "b")})
    assert changed_fields(Experiment(), new) == {"data.train": ((), ("a", "b")), "model.dropout": (0.1, 0.3)}
    assert changed_fields(new, new) == {}


def test_files_become_absolute_and_other_words_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.en", "a.de", "p.tsv"):
        (tmp_path / name).write_text("x\n")
    words = ("a.en,a.de@3", "a.en", "a.de", "p.tsv@0.5", "phrases/en-fr:train@2", "missing.en")
    found = with_absolute_paths(replace(Experiment(), **{"data.train": words})).data.train
    here = str(tmp_path)
    assert found == (f"{here}/a.en,{here}/a.de@3", f"{here}/a.en", f"{here}/a.de", f"{here}/p.tsv@0.5", *words[4:])


@pytest.mark.parametrize("model", [Transformer(), Recurrent()])
def test_every_number_of_ours_has_a_constraint_that_its_default_meets_and_minus_7_and_nan_do_not(model):
    numbers = [leaf for leaf in leaves(replace(Experiment(), model=model)) if type(leaf[2]) in (int, float)]
    assert len(numbers) > 40
    for name, hint, value in numbers:
        assert len(list(constraints(hint))) == 1, name
        assert config_checks.value_problem(name, hint, value) == ""
        assert config_checks.value_problem(name, hint, type(value)(-7)).startswith(f"{name} is -7")
        assert config_checks.value_problem(name, hint, float("nan")) != ""


@pytest.mark.parametrize(
    ("field", "valid", "invalid"),
    [
        ("model.emb_dim", [2, 2**40], [0, -2]),
        ("model.dropout", [0.0, 0.99, 0], [1.0, 1, -0.01, float("inf")]),
        ("schedule.plateau_factor", [0.0, 1.0], [1.01, -0.01]),
        ("data.held_out", [0, 1], [-1]),
        ("data.max_length", [2], [1, 0]),
        ("training.seed", [0, 2**32 - 1], [2**32, -1]),
        ("mesh.fsdp", [-1, 1, 8], [0, -2]),
        ("schedule.learning_rate", [1e-9, 5.0], [0.0, float("inf")]),
    ],
)
def test_a_constraint_is_where_its_words_say(field, valid, invalid):
    ((name, hint, _),) = [leaf for leaf in leaves(Experiment()) if leaf[0] == field]
    assert [value for value in valid if config_checks.value_problem(name, hint, value)] == []
    assert [value for value in invalid if not config_checks.value_problem(name, hint, value)] == []


def test_fields_that_may_change_within_a_run_exist():
    assert all(name in NAMES or any(field.startswith(name) for field in NAMES) for name in run_directory.HARMLESS)


def test_a_model_of_the_users_own_has_its_own_constraints_and_rules():
    @dataclasses.dataclass(frozen=True)
    class Other:
        width: Positive[int] = 3
        kernel: Annotated[int, constraint("odd", lambda value: value % 2 == 1)] = 5
        free: float = -1.0

        def build(self, source_size, target_size, target_vocab): ...

        def problems(self):
            if self.width > self.kernel:
                yield f"model.width {self.width} is above model.kernel {self.kernel}"

    valid = replace(dataclasses.replace(Experiment(), model=Other()), **{"batching.layout": "buckets"})
    config_checks.validate(valid)
    for change, says in [
        ({"model.width": 0}, "model.width is 0; it must be above 0"),
        ({"model.width": "3"}, "model.width is '3'; it must be a whole number"),
        ({"model.kernel": 4}, "model.kernel is 4; it must be odd"),
        ({"model.width": 7}, "model.width 7 is above model.kernel 5"),
    ]:
        with pytest.raises(UserError, match=f"^{says}$"):
            config_checks.validate(replace(valid, **change))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.emb_dim": 100, "model.num_heads": 3}, ["model.emb_dim 100", "model.num_heads 3"]),
        ({"model.dropout": 1.0}, ["model.dropout", "1.0", "below 1"]),
        ({"model.dropout": -0.1}, ["model.dropout", "-0.1"]),
        ({"tokenizer.joint": False}, ["model.tie_embeddings all", "tokenizer.joint"]),
        ({"training.steps": 0}, ["training.steps", "0"]),
        ({"schedule.learning_rate": float("nan")}, ["schedule.learning_rate", "nan"]),
        ({"batching.tokens": 64}, ["batching.tokens 64", "128"]),
        ({"training.accumulation": 64}, ["batching.tokens 4096", "training.accumulation 64"]),
        ({"model.positions": "rotary", "model.head_dim": 5}, ["rotary", "5"]),
        ({"schedule.warmup_steps": 0}, ["noam", "schedule.warmup_steps"]),
        ({"optimizer.name": "adafactor", "model.scan_layers": True}, ["adafactor", "model.scan_layers"]),
        ({"schedule.name": "cosine", "training.steps": 500}, ["schedule.warmup_steps 1000", "training.steps is 500"]),
        ({"mesh.fsdp": -1}, ["mesh.data", "mesh.fsdp"]),
        ({"mesh.tensor": 0}, ["mesh.tensor", "0"]),
        ({"decoding.n_best": 6}, ["decoding.n_best 6", "decoding.beam_size 5"]),
        ({"tokenizer.vocab_size": 200}, ["tokenizer.vocab_size", "200", "260"]),
        ({"tokenizer.model": ("a", "b")}, ["tokenizer.model", "2"]),
        ({"optimizer.weight_decay": 0.1}, ["optimizer.weight_decay 0.1", "adam", "adamw"]),
        ({"training.seed": 20240101123456}, ["training.seed", "20240101123456", "4,294,967,296"]),
        ({"validation.patience": 3, "validation.every": 0}, ["validation.patience 3 needs validations", "validation.every is 0"]),
        ({"tokenizer.character_coverage": 0.9}, ["tokenizer.character_coverage is 0.9", "0.98 to 1"]),
        ({"tokenizer.character_coverage": 0.0, "tokenizer.kind": "bpe"}, ["tokenizer.character_coverage is 0;", "0.98 to 1"]),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_fields(changes, says):
    with pytest.raises(UserError) as error:
        config_checks.validate(replace(Experiment(), **changes))
    assert all(part in str(error.value) for part in says), str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.context": "fixed"}, "model.copy needs attention over the source, and model.context fixed has no attention"),
        ({"model.window": 3}, "model.copy needs attention that sums to 1, and that of model.window 3 does not"),
        ({"model.score": "general", "model.coverage": 1.0}, "model.coverage 1 needs additive attention: model.context bahdanau, or luong"),
        ({"tokenizer.joint": False, "model.tie_embeddings": "none"}, "model.copy needs tokenizer.joint True"),
        ({"decoding.shortlist": 20}, "decoding.shortlist renumbers tokens, and model.copy needs the original ids: set it to 0"),
        ({"model.coverage": -1.0}, "model.coverage is -1.0; it must be 0 or more"),
    ],
)
def test_what_does_not_go_with_copying_is_refused(changes, says):
    pointer = load_config("summary_pointer")
    config_checks.validate(replace(pointer, **{"model.coverage": 1.0}))
    with pytest.raises(UserError, match=f"^{says}"):
        config_checks.validate(replace(pointer, **changes))


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        ("topics", {"batching.layout": "packed"}, "batching.layout packed does not work for the task Classification"),
        ("topics", {"validation.metric": "bleu"}, "validation.metric bleu is not for the task Classification"),
        (
            "mlm_small",
            {"tokenizer.joint": False, "model.tie_embeddings": "none"},
            "tokenizer.joint False does not work for the task MaskedLanguage",
        ),
        ("lm_lstm", {"model.context": "luong"}, "the task Language has no source to attend to"),
        ("scenes", {"task.patch": 5}, "task.size 48 is not divisible by task.patch 5"),
        ("scenes", {"task.patch": 6}, "task.regions convolution halves the picture"),
        ("scenes", {"task.attention_penalty": 1.0}, "task.attention_penalty 1 is for a Recurrent model with attention"),
        ("scenes", {"decoding.shortlist": 5}, "decoding.shortlist needs words of the source, and a picture has no words"),
    ],
)
def test_what_does_not_go_with_a_task_is_refused(config, changes, says):
    config_checks.validate(load_config(config))
    with pytest.raises(UserError, match=f"^{says}"):
        config_checks.validate(replace(load_config(config), **changes))


def test_packed_rows_are_for_the_transformer_alone():
    @dataclasses.dataclass(frozen=True)
    class Other:
        width: int = 3

        def build(self, source_size, target_size, target_vocab): ...

    with pytest.raises(UserError, match="Other needs batching.layout buckets"):
        config_checks.validate(dataclasses.replace(Experiment(), model=Other()))
    config_checks.validate(replace(dataclasses.replace(Experiment(), model=Other()), **{"batching.layout": "buckets"}))
    config_checks.validate(dataclasses.replace(Experiment(), model=Transformer(head_dim=5, num_heads=3)))


def run_of(tmp_path, **changes):
    run = tmp_path / "run"
    run_directory.start(run, replace(Experiment(), **changes))
    (run / "checkpoints" / "1").mkdir(parents=True)
    return run


def test_a_run_has_begun_once_it_has_a_checkpoint(tmp_path):
    assert run_directory.start(tmp_path / "run", Experiment()) is False
    assert run_directory.start(tmp_path / "run", Experiment()) is False
    (tmp_path / "run" / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    assert run_directory.start(tmp_path / "run", Experiment()) is False
    (tmp_path / "run" / "checkpoints" / "5").mkdir()
    assert run_directory.start(tmp_path / "run", Experiment()) is True
    assert run_directory.read(tmp_path / "run") == Experiment()


def test_a_run_whose_checkpoints_are_somewhere_else_is_not_begun_anew(tmp_path):
    run = tmp_path / "run"
    run_directory.start(run, Experiment())
    (run / "metrics.jsonl").write_text("{}\n")
    (run / "checkpoints").symlink_to(tmp_path / "not" / "mounted")
    with pytest.raises(UserError, match=f"checkpoints is a link to {tmp_path}/not/mounted, .* mount or create it"):
        run_directory.start(run, Experiment())
    (run / "checkpoints").unlink()
    (run / "average").mkdir()
    with pytest.raises(UserError, match="has an average of checkpoints and no checkpoints"):
        run_directory.start(run, replace(Experiment(), **{"training.steps": 7}))
    assert (run / "metrics.jsonl").read_text() == "{}\n"


TAKEN = [
    *({"training.steps": 20_000}, {"logging.every": 7}, {"checkpoints.keep_latest": 9}, {"decoding.beam_size": 2}),
    *({"mesh.fsdp": 2}, {"model.remat": "full"}, {"data.workers": 2}),
    *({"data.source_language": "en"}, {"data.target_language": "zh"}),
]


@pytest.mark.parametrize("changes", TAKEN)
def test_a_change_that_does_not_touch_the_training_is_taken(changes, tmp_path):
    run = run_of(tmp_path)
    run_directory.start(run, replace(Experiment(), **changes))
    assert run_directory.read(run) == replace(Experiment(), **changes)


@pytest.mark.parametrize("cause", [{"validation.patience": 3}, {"schedule.name": "plateau"}])
@pytest.mark.parametrize(
    ("beam", "metric", "change", "taken"),
    [
        (1, "bleu", {"decoding.max_length_extra": 4}, False),
        (1, "bleu", {"decoding.max_length_ratio": 4.0}, False),
        (1, "loss", {"decoding.max_length_extra": 4}, True),
        (1, "bleu", {"decoding.length_penalty": 0.5}, True),  # of a beam of one it changes no word
        (2, "bleu", {"decoding.length_penalty": 0.5}, False),
        (1, "bleu", {"decoding.length_normalization": "average"}, True),
        (2, "bleu", {"decoding.length_normalization": "average"}, False),
        (1, "bleu", {"data.target_language": "zh"}, False),  # which may choose BLEU's tokenizer
        (1, "bleu", {"data.source_language": "zh"}, True),
        (1, "loss", {"data.target_language": "zh"}, True),
        (2, "bleu", {"decoding.beam_size": 3, "decoding.n_best": 2, "decoding.batch_size": 9}, True),  # validations have their own beam
    ],
)
def test_what_validations_translate_with_may_not_change_where_their_bleu_decides(cause, beam, metric, change, taken, tmp_path):
    old = {"validation.metric": metric, "validation.beam_size": beam}
    run = run_of(tmp_path, **old, **cause)
    if taken:
        run_directory.start(run, replace(Experiment(), **old, **cause, **change))
    else:
        with pytest.raises(UserError, match=next(iter(change))):
            run_directory.start(run, replace(Experiment(), **old, **cause, **change))
    if "validation.patience" in cause:  # without it, validations decide nothing but which checkpoint is the best
        run_directory.start(run, replace(Experiment(), **old, **change))


def test_changes_to_the_training_are_refused_each_with_both_values(tmp_path):
    run = run_of(tmp_path)
    with pytest.raises(UserError) as error:
        run_directory.start(run, replace(Experiment(), **{"model.dropout": 0.3, "training.seed": 2, "logging.every": 7}))
    assert "model.dropout: 0.1 → 0.3" in str(error.value) and "training.seed: 1 → 2" in str(error.value)
    assert "logging.every" not in str(error.value)
    assert run_directory.read(run) == Experiment()


def test_without_a_checkpoint_a_run_begins_anew_and_nothing_of_an_earlier_try_is_left(tmp_path):
    run = tmp_path / "run"
    run_directory.start(run, replace(Experiment(), **{"training.seed": 7}))
    for name in (
        "tokenizer/tokenizer.json",
        "samples/4.txt",
        "tensorboard/events",
        "data.json",
        "batches.json",
        "metrics.jsonl",
        "model.py",
    ):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("of another seed")
    (run / "notes.txt").write_text("mine")
    assert run_directory.start(run, Experiment()) is False
    assert run_directory.read(run) == Experiment()
    assert {path.name for path in run.iterdir()} == {"config.json", "notes.txt"}


def test_a_process_killed_while_it_writes_the_first_file_leaves_a_folder_that_can_be_used(tmp_path):
    (tmp_path / ".config.json.12.abcd").write_text("{")
    assert run_directory.start(tmp_path, Experiment()) is False


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_more_steps_are_refused_where_the_schedule_counts_from_the_end(name, tmp_path):
    run = run_of(tmp_path, **{"schedule.name": name})
    with pytest.raises(UserError, match="training.steps: 10000 → 20000"):
        run_directory.start(run, replace(Experiment(), **{"schedule.name": name, "training.steps": 20_000}))


def test_fewer_steps_are_refused(tmp_path):
    with pytest.raises(UserError, match="training.steps: 10000 → 500"):
        run_directory.start(run_of(tmp_path), replace(Experiment(), **{"training.steps": 500}))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="neither empty nor a run"):
        run_directory.start(tmp_path, Experiment())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(UserError, match="is a file"):
        run_directory.start(tmp_path / "letter.txt", Experiment())


@pytest.mark.parametrize("name", ["train.log", "train.log.1", "log", "log.txt", "nohup.out", "slurm-7.err"])
def test_a_folder_that_holds_a_log_may_become_a_run(name, tmp_path):
    (tmp_path / name).write_text("starting\n")
    with run_directory.locked(tmp_path, print):
        assert run_directory.start(tmp_path, Experiment()) is False
    assert run_directory.read(tmp_path) == Experiment() and (tmp_path / name).read_text() == "starting\n"


def test_a_folder_that_holds_what_the_command_prints_to_may_become_a_run(tmp_path):
    code = "import pathlib\nfrom jaxnmt import config\nfrom jaxnmt.runs import directory\n"
    code += "directory.start(pathlib.Path('.'), config.Experiment())"
    for stream in ("stdout", "stderr"):
        run = tmp_path / stream
        run.mkdir()
        with (run / "said.txt").open("w") as file:
            done = subprocess.run([sys.executable, "-c", code], cwd=run, **{stream: file})
        assert done.returncode == 0 and run_directory.read(run) == Experiment()


def test_a_folder_of_logs_is_no_log(tmp_path):
    (tmp_path / "log").mkdir()
    with pytest.raises(UserError, match="neither empty nor a run"):
        run_directory.start(tmp_path, Experiment())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schedule.name": "cosin"}, "schedule.name is 'cosin'; it must be one of noam, cosine"),
        ({"validation.metric": "BLEU"}, "validation.metric is 'BLEU'; it must be one of"),
        ({"model.norm_order": "Pre"}, "model.norm_order is 'Pre'; it must be one of pre, post"),
        ({"training.steps": 1e5}, "training.steps is 100000.0; it must be a whole number"),
        ({"training.steps": True}, "training.steps is True; it must be a whole number"),
        ({"training.seed": None}, "training.seed is None; it must be a whole number"),
        ({"model.dropout": "0.1"}, "model.dropout is '0.1'; it must be a number"),
        ({"model.scan_layers": 1}, "model.scan_layers is 1; it must be True or False"),
        ({"data.train": "pairs.tsv"}, r"data.train is 'pairs.tsv'; it must be words .*: write \('pairs.tsv',\)$"),
        ({"data.train": ["a.en", "a.de"]}, r"data.train is .*; it must be words .*: write \('a.en', 'a.de'\)$"),
        ({"data.train": (pathlib.Path("a.tsv"),)}, "data.train is .*; it must be words"),
        ({"data": None}, "data is None; it must be Data"),
    ],
)
def test_what_a_config_file_sets_is_of_its_fields_type(change, says):
    with pytest.raises(UserError, match=f"^{says}"):
        config_checks.validate(replace(Experiment(), **change))


def test_a_whole_number_is_a_number_too():
    assert config_checks.with_settings(Experiment(), {"optimizer.clip_norm": 1}).optimizer.clip_norm == 1
