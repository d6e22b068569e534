"""One kill in each phase; `python tests/kill_resume.py` does twenty."""

import kill_resume
import pytest


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    said = []
    identical = kill_resume.run_trials(tmp_path, list(kill_resume.PHASES), seed=2, say=said.append)
    assert identical == len(kill_resume.PHASES), "\n".join(said)
