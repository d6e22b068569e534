"""`plan` for GPUs that are not here: times by hand; in the slow tests, where their compiler is, real programs."""

import dataclasses
import importlib.util
import pathlib

import jax
import pytest

from jaxnmt import config as cfg
from jaxnmt.config.files import load_config, shipped_configs
from jaxnmt.data.packing import Shape
from jaxnmt.errors import UserError
from jaxnmt.lab.plan import compiled, gpus, prediction, report, topology, workload
from jaxnmt.lab.plan.chips import Chip, Target
from jaxnmt.lab.plan.hlo import Collective, Instruction, parse
from jaxnmt.lab.plan.timing import KERNEL_SECONDS, Operation, Schedule, place, schedule, sending

# 1,000 float32 numbers are 4,000 bytes: 4 s at 1,000 bytes/s. The product is 2 x 10 x 20 x 30 = 12,000 operations: 12 s at 1,000 a second,
# and twice as long in float32.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: f32[50,1000], q: s32[], r: f32[1000]) -> f32[50,1000] {
  %p = f32[50,1000]{1,0} parameter(0)
  %q = s32[] parameter(1)
  %r = f32[1000]{0} parameter(2)
  %row = f32[1,1000]{1,0} dynamic-slice(%p, %q, %q), dynamic_slice_sizes={1,1000}
  %flat = f32[1000]{0} bitcast(%row)
  %more = f32[1000]{0} add(%flat, %r)
  %back = f32[1,1000]{1,0} bitcast(%more)
  ROOT %new = f32[50,1000]{1,0} dynamic-update-slice(%p, %back, %q, %q)
}

%body (c: (s32[], f32[50,1000], f32[1000])) -> (s32[], f32[50,1000], f32[1000]) {
  %c = (s32[], f32[50,1000], f32[1000]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %a = f32[50,1000]{1,0} get-tuple-element(%c), index=1
  %b = f32[1000]{0} get-tuple-element(%c), index=2
  %one = f32[50,1000]{1,0} fusion(%a, %i, %b), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[50,1000], f32[1000]) tuple(%i, %one, %b)
}

%test (d: (s32[], f32[50,1000], f32[1000])) -> pred[] {
  %d = (s32[], f32[50,1000], f32[1000]) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (a: f32[50,1000], b: f32[1000], x: f32[10,20], y: f32[20,30]) -> f32[1000] {
  %a = f32[50,1000]{1,0} parameter(0)
  %b = f32[1000]{0} parameter(1)
  %x = f32[10,20]{1,0} parameter(2)
  %y = f32[20,30]{1,0} parameter(3)
  %zero = s32[] constant(0)
  %start = (s32[], f32[50,1000], f32[1000]) tuple(%zero, %a, %b)
  %loop = (s32[], f32[50,1000], f32[1000]) while(%start), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %sent = f32[1000]{0} all-reduce-start(%b), replica_groups={{0,1}}, to_apply=%add, backend_config={"is_sync":false}
  %product = (f32[10,30]{1,0}, s8[4096]{0}) custom-call(%x, %y), custom_call_target="__cublas$lt$matmul", backend_config={"lhs_contracting_dimensions":["1"]}
  %arrived = f32[1000]{0} all-reduce-done(%sent)
  %waited = f32[1000]{0} all-reduce-start(%arrived), replica_groups={{0,1}}, to_apply=%add, backend_config={"is_sync":true}
  %there = f32[1000]{0} all-reduce-done(%waited)
  ROOT %copied = f32[1000]{0} copy(%there)
}
"""  # noqa: E501
CHIP = Chip("chip", flops=1000.0, bandwidth=1000.0, link=400.0, network=50.0)


def test_the_time_of_a_program_by_hand():
    target = Target("two", CHIP, range(2))
    found = schedule(parse(PROGRAM), target, (0, 1), 1)
    turn = 4000 + 4 + 4000 + 4000  # the fusion reads a row and what it adds, and writes the row; the index has 4 bytes
    product, copy, send = 24.0, 8000 / 1000, 4000 / 400
    assert found.total.seconds == pytest.approx(5 * turn / 1000 + product + copy)
    assert found.products == product and found.total.kernels == 7
    assert found.total.accessed == 5 * turn + 4 * (200 + 600 + 300) + 8000
    assert (found.waiting, found.overlapped) == pytest.approx((send, send))  # one behind the product, one waited for
    slow = dataclasses.replace(target, chip=dataclasses.replace(CHIP, link=100.0))
    assert schedule(parse(PROGRAM), slow, (0, 1), 1).waiting == pytest.approx(40 - product + 40)
    fast = dataclasses.replace(target, chip=dataclasses.replace(CHIP, flops=1e15, bandwidth=1e15))
    assert schedule(parse(PROGRAM), fast, (0, 1), 1).total.seconds == pytest.approx(7 * KERNEL_SECONDS)


def test_where_the_time_goes_adds_up():
    computed = Schedule(operations={"a": Operation(2, 0.003, 2e9), "b": Operation(1, 0.001, 0.0), "c": Operation(1, 0.004, 1e9)})
    program = compiled.Compiled(Shape(1, 1, 1), 0, 0, True, compiled.Work(1.0, 0.0, 0.0), computed, 0, (), (0,), 0.0)
    rows = report.operations_table(program, 1).rows
    assert rows == (
        ("c", "1", "4.000", "50.0%", "1.00 GB"),
        ("2 others", "3", "4.000", "50.0%", "2.00 GB"),
        ("all", "4", "8.000", "100.0%", "3.00 GB"),
    )


@pytest.mark.parametrize(
    "op, wanted",
    [
        ("jit(train_step)/jvp(TransformerModule.features)/decoder/layer_3/mlp/wi/dot_general", "layer/mlp/wi/dot_general"),
        (
            "jit(train_step)/transpose(jvp(T.encode))/encoder/layer_0/self_attention/shard_map/mul",
            "encoder/layer/self_attention/mul, backward",
        ),
        ("jit(train_step)/jvp()/while/body/closed_call/BTV,VD->BTD/dot_general", "BTV,VD->BTD/dot_general"),
    ],
)
def test_places_in_the_model(op, wanted):
    assert place(Instruction("x", "f32[2]", "fusion", f'(%a), metadata={{op_name="{op}"}}')) == wanted


def test_where_a_host_waits():
    assert parse(PROGRAM).waits() == 0
    unknown = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"5"}}', "")
    assert parse(unknown).waits() == 1
    chosen = PROGRAM.replace(
        "ROOT %copied = f32[1000]{0} copy(%there)", "ROOT %c = f32[1000] conditional(%zero, %a), branch_computations={%x}"
    )
    assert parse(chosen).waits() == 1


def test_a_ring_over_hosts_passes_by_all_adapters():
    everyone = tuple(range(16))
    reduce = lambda group: Collective("all-reduce", group, 1, 1600, False)  # noqa: E731
    one, two = Target("one", CHIP, range(8), per_host=8), Target("two", CHIP, range(16), per_host=8)
    assert sending(reduce(everyone[:8]), one, everyone) == pytest.approx(2 * 7 / 8 * 1600 / 400)
    assert sending(reduce(everyone), two, everyone) == pytest.approx(2 * 15 / 16 * 1600 / 400)  # eight adapters are as fast as NVLink
    assert sending(reduce((0, 8)), two, everyone) == pytest.approx(1600 / 50)


def test_what_is_started_in_every_spelling():
    """JAX 0.12 writes operands and results of what is started."""
    both = PROGRAM.replace("%sent = f32[1000]{0} all", "%sent = (f32[1000]{0}, f32[1000]{0}) all")
    target = Target("two", CHIP, range(2))
    assert schedule(parse(both), target, (0, 1), 1) == schedule(parse(PROGRAM), target, (0, 1), 1)


@pytest.mark.parametrize("word, wanted", [("h100:8", (1, 8)), ("a100:1", (1, 1)), ("b200:4x8", (4, 8))])
def test_names_of_gpus(word, wanted):
    assert gpus.size_of(word)[1:] == wanted


def test_unknown_gpus_and_a_missing_compiler_are_refused(monkeypatch):
    for word in ("h100:9", "h100:0", "h100", "h100:2x", "p100:8", "h100:0x8"):
        with pytest.raises(UserError, match="h100:N.*at most 8"):
            topology.target(word)
    monkeypatch.setattr(gpus, "_has", lambda module: False)
    with pytest.raises(UserError, match=r"pip install 'jaxnmt\[plan-gpu\]'"):
        topology.target("h100:8")


def test_the_share_of_memory_that_jax_takes(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert gpus._share_of_memory() == 0.75
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert gpus._share_of_memory() == 0.9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "most")
    with pytest.raises(UserError, match="not a number"):
        gpus._share_of_memory()


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="the GPU compiler, pip install 'jaxnmt[plan-gpu]', is not installed"
)


def planned(name, on, **changes):
    experiment = cfg.replace(load_config(name), **changes)
    experiment = cfg.replace(experiment, **{"tokenizer.vocab_size": experiment.tokenizer.vocab_size or 10_000})
    lengths = workload.Lengths(experiment, pathlib.Path("no-such-run"), print)
    return prediction.predict(experiment, topology.target(on), lengths)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_compiles_for_gpus_and_nothing_waits(name):
    found = planned(name, "h100:8", **({"mesh.fsdp": 8} if name == "transformer_1b" else {}))  # which is for 16 devices
    assert found.fits and found.step_seconds and found.largest.collectives and found.largest.waits == 0


@pytest.mark.slow
@needs_compiler
def test_fused_attention_is_called_once_a_layer_and_direction(monkeypatch):
    texts = []
    monkeypatch.setattr(prediction.compiled.hlo, "parse", lambda text: texts.append(text) or parse(text))
    small = {"model.num_encoder_layers": 2, "model.num_decoder_layers": 3, "batching.tokens": 4096, "model.attention_dropout": 0.0}
    found = planned("wmt14_big", "h100:2", **small)
    assert found.largest.work.kernel_flops > 0
    assert texts[-1].count('custom_call_target="__cudnn$fmhaScaleBiasSoftmax"') == 2 + 2 * 3
    backward = [i for i in parse(texts[-1]).computations.values() for i in i if "fmhaScaleBiasSoftmaxBackward" in i.rest]
    assert len(backward) == 2 + 2 * 3
    assert all(len(i.arrays) == 4 for i in backward)  # of queries, keys and values, and the workspace: none of the mask
    planned("wmt14_big", "h100:2", **small | {"model.attention_dropout": 0.1})  # its dropout is not ours
    assert "__cudnn$fmha" not in texts[-1]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("on", "fsdp", "once"), [("h100:4", 1, 1.0), ("h100:2x4", 4, 1.25)])  # along fsdp, and a quarter of it along data
def test_the_gradient_of_a_table_that_several_layers_read_is_sent_once(on, fsdp, once):
    small = {"batching.tokens": 4096, "model.num_encoder_layers": 1, "model.num_decoder_layers": 1, "model.tie_embeddings": "all"}
    found = planned("transformer_small", on, **small, **{"mesh.fsdp": fsdp})
    reduced = sum(c.bytes for c in found.largest.collectives if c.kind in ("all-reduce", "reduce-scatter"))
    assert reduced / (4 * found.parameters) == pytest.approx(once, abs=0.05)  # a table sent twice would be 0.5 more


@pytest.mark.slow
@needs_compiler
def test_devices_share_the_update_and_send_no_more_than_a_sum():
    small = {"model.num_encoder_layers": 2, "model.num_decoder_layers": 2}
    found = planned("wmt14_big", "h100:8", **small)
    state = 3 * 4 * found.parameters  # parameters and Adam's two moments, float32
    assert found.largest.arguments < 1.05 * state / 8 + 2**20
    tables, kernels = (4 * 37_120 * 1024, 2 * (found.parameters - 37_120 * 1024))  # a table's gradient is summed in float32
    assert found.sent < 1.02 * 2 * 7 / 8 * (tables + kernels)


@pytest.mark.slow
@needs_compiler
def test_a_recurrent_step_stores_states_alone():
    found = planned("phrases/lstm_luong", "h100:1", **{"tokenizer.vocab_size": 2000})
    assert found.largest.schedule.total.kernels < 9000  # 11,839 with all that a step computes


@pytest.mark.slow
@needs_compiler
def test_a_program_that_is_too_large_is_refused():
    found = planned("transformer_1b", "a100:1", **{"mesh.fsdp": 1, "model.remat": "none", "batching.tokens": 131072})
    assert not found.fits and found.hours is None
    sentence = report.refusal(found, "transformer_1b")
    assert f"{0.75 * gpus.GPUS['a100'].memory / 2**30:.2f} GiB" in sentence and f"{found.largest.memory / 2**30:.2f} GiB" in sentence


@pytest.mark.slow
@needs_compiler
def test_a_planted_gather_shows(monkeypatch):
    from jaxnmt.training import step

    def gathered(programs):
        return sum(c.bytes for c in programs.largest.collectives if c.kind == "all-gather")

    settings = {"batching.tokens": 4096, "model.num_encoder_layers": 1, "model.num_decoder_layers": 1}
    before = gathered(planned("transformer_small", "h100:4", **settings))
    whole = step.train_step

    def faulty(model, optimizer, config, state, batch, **others):
        mesh = model.mesh
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        extra = jax.lax.with_sharding_constraint(batch["decoder_loss_weights"] * 2.0, everywhere).sort().sum()
        new, metrics = whole(model, optimizer, config, state, batch, **others)
        return new, metrics._replace(learning_rate=metrics.learning_rate + extra)

    monkeypatch.setattr(step, "train_step", faulty)
    assert compiled.TrainPrograms is step.TrainPrograms
    assert gathered(planned("transformer_small", "h100:4", **settings)) >= before + 4096 * 4
