"""A run may lie in a folder whose name `glob` would take for a pattern."""

import shutil

import pytest
import tiny

from jaxnmt import cli
from jaxnmt.runs.directory import checkpoints as steps

ODD = "a*b?[c-d]"


@pytest.mark.slow
def test_a_run_in_such_a_folder_is_trained_resumed_averaged_translated_and_moved(tmp_path, capsys):
    source, target = tiny.write_text(tmp_path, "text", 120, 1).split(",")
    text = ["--data.train", source, target, "--validation.every", "4", "--checkpoints.every", "2"]
    made = []
    for run in (tmp_path / "plain" / "run", tmp_path / ODD / "run"):
        assert cli.main(["train", tiny.write_config(tmp_path), "--run", str(run), *text, "--training.steps", "4"]) == 0
        assert cli.main(["resume", str(run), "--training.steps", "8"]) == 0
        assert "resuming from checkpoint 4" in capsys.readouterr().err
        assert cli.main(["runs", "average", str(run), "--last", "2"]) == 0
        (tmp_path / "in").write_text("a b c\nd e\n")
        capsys.readouterr()
        for checkpoint in ("best", "average"):
            assert cli.main(["translate", str(run), "--checkpoint", checkpoint, "--input", str(tmp_path / "in"), "--n-best", "2"]) == 0
        made.append((steps(run), capsys.readouterr().out))
    assert made[0] == made[1] and steps(run)[-1] == 8 and len(made[0][1].splitlines()) == 8
    shutil.move(tmp_path / "plain" / "run", tmp_path / ODD / "[2]")
    assert cli.main(["resume", str(tmp_path / ODD / "[2]"), "--training.steps", "9"]) == 0
    assert "resuming from checkpoint 8" in capsys.readouterr().err
