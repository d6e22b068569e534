"""Every law, put to every rung of the ladder: what `jaxnmt laws` prints."""

import functools

import pytest
import tiny

from jaxnmt.lab.laws import LAWS, Subject, ask

# What takes long to compile is kept out of `make test` where another rung has the same code: `make slow` has the rest. Between them these
# have both families, each context, dropout at each step and variational; whole runs of a Transformer, killed and resumed, on eight devices
# and counting compilations, are in the files beside this one.
TASKS = tiny.SUBJECTS.keys() - tiny.RUNGS
QUICK = {
    "causal": {"pre", "rotary", "bag", "elman", "bahdanau", "luong_location"} | TASKS,
    "greedy": {"pre", "bahdanau"} | TASKS,
    "beam": {"rotary", "bag", "cho", "gnmt", "luong_concat", "luong_location"} | TASKS,
    "alone": {"pre", "scanned", "elman", "bahdanau", "luong_dot", "luong_concat"} | TASKS,
    "scanned": {"scanned", "numbers"},
    "packed": {"learned", "rotary", "language"},
    "accumulated": {"cho", "bahdanau", "label_sets", "numbers", "language_lstm"},
    "compiled": set(),
    "compiles": {"label_sets"},
    "resume": {"label_sets"},
    "devices": set(),
    "overfit": {"bag", "label_sets", "numbers", "captions_lstm"},
    "reversal": {"rotary", "elman"},
}

LOOKS_AT_ORDER = {name for name in tiny.RUNGS if name not in ("bag", "post")}  # post has no positions
TRANSFORMERS = {"pre", "post", "rotary", "learned", "scanned", "masked", "denoising", "language"}
IN_ONE_PASS = {name for name, (_, task) in tiny.SUBJECTS.items() if not task.searches}
APPLIES = {
    **dict.fromkeys(("causal", "cached", "greedy", "beam"), tiny.SUBJECTS.keys() - IN_ONE_PASS),
    "neighbours": TRANSFORMERS,
    "packed": TRANSFORMERS,
    "scanned": {*TRANSFORMERS, "classifier", "numbers", "captions"},
    "overfit": {name for name in tiny.SUBJECTS if not name.startswith(("masked", "denoising", "language"))},
    "reversal": LOOKS_AT_ORDER,
}


# Asked again of programs compiled as users' are: laws that promise bits or equality, of two rungs that have most operations between them;
# laws of whole runs, of the rung that is compiled soonest.
AS_SHIPPED = dict.fromkeys(LAWS, {"rotary", "luong_concat"}) | {
    "compiled": {"rotary"},
    **dict.fromkeys(("resume", "devices"), {"bag"}),
    **dict.fromkeys(("overfit", "reversal", "compiles", "accumulated"), set()),
}


def case(rung, law):
    marks = [] if rung in QUICK.get(law, tiny.SUBJECTS) else [pytest.mark.slow]
    if rung in AS_SHIPPED[law]:
        marks.append(pytest.mark.as_shipped)
    return pytest.param(rung, law, marks=marks, id=f"{rung}-{law}")


@functools.lru_cache(maxsize=2)
def subject(rung):
    """Return a rung's model, with parameters that NumPy draws: to compile its initialisation takes longer than to compile most laws."""
    made = Subject(*tiny.SUBJECTS[rung])
    made.flat_params = tiny.params_of(made.flat_model)
    return made


@pytest.mark.parametrize(("rung", "law"), [case(rung, law) for rung in tiny.SUBJECTS for law in LAWS])
def test_the_law_holds(rung, law):
    verdict = ask(law, subject(rung))
    expected = True if rung in APPLIES.get(law, tiny.SUBJECTS) else None
    assert verdict.holds is expected, verdict.measured
