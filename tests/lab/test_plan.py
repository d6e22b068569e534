"""`plan`: what it reads of a compiled program, and plans for simulated devices; for TPUs in the slow tests, where their compiler is."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.cli.verbs import planning
from jaxnmt.config.files import load_config, shipped_configs
from jaxnmt.data.packing import Shape
from jaxnmt.errors import UserError
from jaxnmt.lab.plan import compiled, prediction, report, topology, workload
from jaxnmt.lab.plan.chips import Chip, Target
from jaxnmt.lab.plan.compiled import Work, work
from jaxnmt.lab.plan.hlo import Collective, collectives, first_group, parse
from jaxnmt.lab.plan.prediction import estimate
from jaxnmt.lab.plan.timing import Operation, Schedule, sending

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%layer (carry: (s32[], f32[8,16], bf16[4,4])) -> (s32[], f32[8,16], bf16[4,4]) {
  %carry = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, /*index=2*/bf16[4,4]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i, %two)
  %g = f32[8,16]{1,0:T(8,128)} get-tuple-element(%carry), index=1
  %b = bf16[4,4]{1,0:T(8,128)(2,1)} get-tuple-element(%carry), index=2
  %reduced = (f32[8,16]{1,0:T(8,128)}, bf16[4,4]{1,0:T(8,128)(2,1)}) all-reduce(%g, %b), replica_groups={{0,1},{2,3}}, to_apply=%add
  %r = f32[8,16]{1,0:T(8,128)} get-tuple-element(%reduced), index=0
  ROOT %out = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, bf16[4,4]{1,0:T(8,128)(2,1)}) tuple(%next, %r, %b)
}

%below (carry.1: (s32[], f32[8,16], bf16[4,4])) -> pred[] {
  %carry.1 = (s32[], f32[8,16], bf16[4,4]) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%carry.1), index=0
  %six = s32[]{:T(128)} constant(6)
  ROOT %lt = pred[]{:T(512)} compare(%j, %six), direction=LT
}

%gathering (p: bf16[2,16]) -> bf16[8,16] {
  %p = bf16[2,16] parameter(0)
  ROOT %inside = bf16[8,16] all-gather(%p), replica_groups=[1,4]<=[4], dimensions={0}, backend_config={"estimated_cycles":"7"}
}

ENTRY %main (a: f32[8,16], b.1: bf16[4,4]) -> f32[8,16] {
  %a = f32[8,16]{1,0} parameter(0)
  %b.1 = bf16[4,4]{1,0} parameter(1)
  %start = (s32[], f32[8,16], bf16[4,4]) tuple(%a, %a, %b.1)
  %loop = (s32[], f32[8,16], bf16[4,4]) while(%start), condition=%below, body=%layer
  %fused = bf16[8,16] fusion(%b.1), kind=kCustom, calls=%gathering
  %gather = (bf16[2,16]{1,0}, bf16[8,16]{1,0}) all-gather-start(%b.1), replica_groups=mesh['x'=2,'y'=2] {'x','y'}, dimensions={0}
  %gathered = bf16[8,16] all-gather-done(%gather)
  %scatter = f32[2,16] reduce-scatter(%a), replica_groups=[1,4]<=[4], to_apply=%add
  %send = (f32[8,16], f32[8,16], u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%a), source_target_pairs={{0,1},{1,0}}
  %alone = f32[8,16] all-reduce(%a), replica_groups={{0},{1},{2},{3}}, to_apply=%add
  ROOT %done = f32[8,16] collective-permute-done(%send)
}
"""


@pytest.mark.parametrize(
    "spelling, wanted",
    [
        ("replica_groups={{0,2},{1,3}}, x", (0, 2)),
        ("replica_groups=[2,2]<=[4]", (0, 1)),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", (0, 2)),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, use", (0, 2)),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", (0, 1)),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'b'}, dimensions", (0, 1)),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'c'}, dimensions", (0, 2)),
        ("source_target_pairs={{0,1},{1,0}}", (0, 1)),
        ("replica_groups={}, x", (0, 1, 2, 3)),
    ],
)
def test_the_first_group_in_every_spelling(spelling, wanted):
    assert first_group(spelling, 4) == wanted


def test_collectives_are_counted_as_often_as_they_run():
    found = {(c.kind, c.overlapped): c for c in collectives(parse(PROGRAM).runs(1), 4)}
    assert {key: (c.count, c.bytes) for key, c in found.items()} == {
        ("all-reduce", False): (3, 3 * (8 * 16 * 4 + 4 * 4 * 2)),  # a loop to 6 that counts by 2
        ("all-gather", False): (1, 8 * 16 * 2),  # inside a fusion
        ("all-gather", True): (1, 8 * 16 * 2),
        ("reduce-scatter", False): (1, 8 * 16 * 4),  # the whole, of which each keeps a quarter
        ("collective-permute", True): (1, 8 * 16 * 4),
    }
    assert found["all-reduce", False].sent == found["all-reduce", False].bytes  # of 2: 2 x 1/2
    assert found["reduce-scatter", False].sent == 3 / 4 * 512


def test_a_loop_of_unknown_length_counts_as_told():
    program = parse(PROGRAM.replace("constant(6)", "parameter(1)")).runs(unknown_trips=10)
    assert {c.count for c in collectives(program, 4) if c.kind == "all-reduce"} == {10}
    told = PROGRAM.replace("body=%layer", 'body=%layer, backend_config={"known_trip_count":{"n":"5"}}')
    assert {c.count for c in collectives(parse(told).runs(1), 4) if c.kind == "all-reduce"} == {5}


def slice_of(name, rows, columns, closed):
    places = tuple((i, j) for i in range(rows) for j in range(columns))
    return Target(name, Chip("chip", link=100.0), range(rows * columns), places, ((rows, closed), (columns, closed)))


def test_what_the_tpu_compiler_spells_in_its_own_way():
    """A gather behind a product, told three times; a reduce-scatter as an all-reduce of which a part is kept."""
    gather = "replica_groups=[1,4]<=[4], dimensions={0}"
    text = f"""
%begins (p: bf16[2,16]) -> bf16[8,16] {{
  %x = bf16[8,16] all-gather(%p), {gather}
}}

%async_collective_fusion.1 (p: bf16[2,16]) -> bf16[8,16] {{
  %y = bf16[8,16] all-gather(%p), {gather}
}}

%ends (p: bf16[2,16]) -> bf16[8,16] {{
  %z = bf16[8,16] all-gather(%p), {gather}
}}

%all-reduce-scatter.1 (p: bf16[8,16]) -> bf16[2,16] {{
  %r = bf16[8,16] all-reduce(%p), replica_groups={{{{0,1,2,3}}}}, to_apply=%add
  ROOT %part = bf16[2,16] dynamic-slice(%r)
}}

ENTRY %main (p: bf16[2,16]) -> bf16[2,16] {{
  %async-collective-start = bf16[8,16] fusion(%p), kind=kCustom, calls=%begins
  %fusion.1 = bf16[8,16] fusion(%p), kind=kCustom, calls=%async_collective_fusion.1
  %async-collective-done = bf16[8,16] fusion(%p), kind=kCustom, calls=%ends
  ROOT %fusion.2 = bf16[2,16] fusion(%fusion.1), kind=kCustom, calls=%all-reduce-scatter.1
}}
"""
    found = collectives(parse(text).runs(1), 4)
    assert [(c.kind, c.overlapped, c.count, c.sent) for c in found] == [
        ("all-gather", True, 1, 3 / 4 * 256),
        ("reduce-scatter", False, 1, 3 / 4 * 256),
    ]


def test_time_of_a_collective_by_its_links():
    row, everyone = (0, 1, 2, 3), tuple(range(16))
    gather = lambda group: Collective("all-gather", group, 1, 1600, False)  # noqa: E731
    flat, ring = slice_of("flat", 4, 4, False), slice_of("ring", 4, 4, True)
    assert sending(gather(row), flat, everyone) == pytest.approx(1200 / 100)
    assert sending(gather(row), ring, everyone) == pytest.approx(1200 / 200)  # both ways round
    assert sending(gather(everyone), ring, everyone) == pytest.approx(1500 / 400)  # along both axes
    turned = [4 * (i % 4) + i // 4 for i in range(16)]
    assert sending(gather(row), slice_of("thin", 4, 4, False), turned) == pytest.approx(1200 / 100)


def flops(function, *shapes, unknown_trips=1):
    return work(jax.jit(function).trace(*(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes)).jaxpr, unknown_trips).flops


def test_flops_of_products_loops_and_choices():
    product = 2.0 * 3 * 5 * 7
    assert flops(lambda a, b: a @ b, (3, 5), (5, 7)) == product
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 3, 5), (4, 5, 7)) == 4 * product
    square = 2.0 * 5**3
    assert flops(lambda a: jax.lax.scan(lambda c, _: (c @ c, None), a, None, length=6)[0], (5, 5)) == 6 * square
    unbounded = lambda a: jax.lax.while_loop(lambda c: c.sum() > 0, lambda c: c @ c, a)  # noqa: E731
    assert flops(unbounded, (5, 5), unknown_trips=9) == 9 * square
    assert flops(lambda a: jax.lax.cond(a.sum() > 0, lambda: a, lambda: a @ a), (5, 5)) == square


def test_what_is_computed_again_counts_again():
    layer = lambda w: jnp.sum(jnp.tanh(w @ w) @ w)  # noqa: E731
    plain, again = (flops(jax.grad(f), (5, 5)) for f in (layer, jax.checkpoint(layer)))
    assert again == plain + 2.0 * 5**3  # the first product; the second's result is not needed


def test_flops_of_a_kernel():
    from jaxnmt.models.fused_attention import Mask, splash

    heads, segments = jax.ShapeDtypeStruct((2, 256, 3, 64), np.float32), jax.ShapeDtypeStruct((2, 256), np.int32)
    attend = jax.jit(lambda q, s: splash(q, q, q, Mask(s, s), interpret=True))
    found = work(attend.trace(heads, segments).jaxpr, 1)
    assert found.kernel_flops == found.flops == 2 * (2.0 * 2 * 3 * 256 * 256 * 64)  # scores, and the weighted sum
    assert found.kernel_bytes >= 4 * heads.size * 4


EXPERIMENT = cfg.Experiment(
    tokenizer=cfg.Tokenizer(vocab_size=384),
    batching=cfg.Batching(tokens=512, row_length=32),
    data=cfg.Data(max_length=32),
    model=cfg.replace(tiny.BASE, emb_dim=32, mlp_dim=64, dropout=0.1),
)
HERE = lambda memory=None: Target("here", Chip("chip", memory, 1e12, 1e11, 1e10), jax.devices("cpu")[:1])  # noqa: E731


def lengths_of(experiment):
    return workload.Lengths(experiment, pathlib.Path("no-such-run"), print)


@pytest.fixture(scope="module")
def planned():
    return prediction.predict(EXPERIMENT, HERE(), lengths_of(EXPERIMENT))


def test_without_data_the_largest_shape_is_planned(planned):
    ((share, program, _),) = planned.steps
    assert share.shape == (16, 32, 32) and share.target_tokens == 512 and "no prepared data" in planned.batches
    assert program.work.flops >= planned.model_flops > 0
    state = 3 * 4 * planned.parameters  # parameters and Adam's two moments
    assert state < program.arguments < 1.1 * state + 100_000


def test_time_follows_from_the_chip(planned):
    ((_, program, time),) = planned.steps
    assert time.computing >= time.arithmetic == pytest.approx(program.work.flops / 1e12)
    assert planned.target_tokens_per_s == pytest.approx(512 / time.seconds)
    assert planned.hours == pytest.approx(10_000 * time.seconds / 3600)
    json.dumps(report.record(planned, "tiny"))


def test_an_estimate_by_hand(planned):
    sent = (
        Collective("all-reduce", (0, 1, 2, 3), 1, 10, False),  # of 4: 2 x 3/4 of its bytes
        Collective("all-gather", (0, 1, 2, 3), 1, 40, True),
        Collective("collective-permute", (0, 1), 1, 5, True),  # by two links at once
        Collective("collective-permute", (1, 0), 1, 10, True),
    )
    target = Target("four", Chip("chip", flops=100.0, bandwidth=10.0, link=5.0, clock=2.0), range(4))
    computed = Schedule(operations={"a product": Operation(1, 5.0, 0.0)})
    program = compiled.Compiled(Shape(1, 1, 1), 0, 0, True, Work(800.0, 400.0, 0.0), computed, 0, sent, (0, 1, 2, 3), 0.0)
    found = estimate(program, target)
    assert (found.arithmetic, found.computing, found.waiting, found.overlapped) == pytest.approx((2, 5 + 1, 3, 6 + 2))
    assert found.seconds == pytest.approx(3 + 8) and dataclasses.replace(found, overlapped=1.0).seconds == pytest.approx(3 + 6)
    (step,) = planned.steps
    quick, often = step._replace(share=step.share._replace(share=0.25)), step.share._replace(share=0.75)
    time, slow = step.time, dataclasses.replace(step.time, computing=3 * step.time.computing)
    two = dataclasses.replace(planned, steps=(quick, step._replace(share=often, time=slow)))
    assert two.step_seconds == pytest.approx(0.25 * time.seconds + 0.75 * slow.seconds)


def test_the_table_of_a_gpu_has_means_over_the_shapes(planned):
    (step,) = planned.steps
    schedules = [Schedule(products=n / 1e3, operations={"a product": Operation(100 * n, n / 1e3, 1e6 * n)}) for n in (1, 5)]
    programs = [dataclasses.replace(step.program, schedule=schedule, waits=n) for n, schedule in enumerate(schedules)]
    steps = tuple(
        step._replace(share=step.share._replace(share=share), program=program)
        for share, program in zip((0.25, 0.75), programs, strict=True)
    )
    gpu = dataclasses.replace(planned, target=Target("gpu", Chip("gpu", None, 1e12, 1e11, 1e10), jax.devices("cpu")[:1]), steps=steps)
    rows = {row[0].strip(): row[1] for row in report.tables(gpu, "tiny")[0].rows}
    assert rows["in matrix products and fused attention"] == "4.0 ms"
    assert rows["kernels; bytes read and written"] == "400; 4.000 MB" and rows["places where the host waits"] == "1"


def test_what_does_not_fit_is_refused_with_the_numbers(planned):
    (step,) = planned.steps
    small = dataclasses.replace(
        planned, target=HERE(2**20), steps=(step._replace(program=dataclasses.replace(step.program, fits=False), time=None),)
    )
    sentence = report.refusal(small, "tiny")
    assert not small.fits and small.hours is None
    assert f"{step.program.memory / 2**20:.2f} MiB" in sentence and "1.00 MiB" in sentence and "16 rows x 32" in sentence
    assert "does not fit" in "".join(map(str, report.tables(small, "tiny")))
    assert not prediction.predict(EXPERIMENT, HERE(2**10), lengths_of(EXPERIMENT)).fits


def test_the_exit_status_tells_whether_it_fits(monkeypatch, capsys):
    for memory, status in ((2**30, 0), (2**10, 1)):
        monkeypatch.setattr(topology, "target", lambda name, memory=memory: HERE(memory))
        assert planning.plan("tiny", planning.Plan(on="cpu:1", run="no-such-run", experiment=EXPERIMENT)) == status
        assert ("tiny does not fit here" in capsys.readouterr().err) == bool(status)


def test_a_search_ranks_what_fits():
    ranked = prediction.search(EXPERIMENT, HERE(2**30), lengths_of(EXPERIMENT), print)
    assert {p.experiment.batching.tokens for p in ranked} == {512, 1024}  # remat is not tried where its absence fits
    assert all(p.experiment.model.remat == "none" for p in ranked)
    speeds = [p.target_tokens_per_s for p in ranked]
    assert speeds == sorted(speeds, reverse=True)
    assert "--batching.tokens 1024 --model.remat none" in str(report.search_table(ranked, "tiny", HERE(2**30)))


def test_the_search_for_translations_is_planned():
    experiment = cfg.replace(EXPERIMENT, **{"decoding.batch_size": 4, "decoding.beam_size": 2, "data.max_length": 8})
    program = compiled.decoding(experiment, HERE(), lengths_of(experiment).vocabularies)
    assert program.shape == (4, 8, 32) and program.arguments > 4 * 10_000 and estimate(program, HERE()).seconds > 0
    assert "4 sentences of 8" in str(report.decoding_table(program, HERE(), "tiny"))


def test_the_compilers_refusal_is_read():
    told = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
    assert compiled.required(told, 2**30) == int(19.5 * 2**30)
    told = "Ran out of memory on HBM, the total memory required for HLO temporaries (500.00G) exceeds available HBM (15.75G)."
    assert compiled.required(told, 2**30) == 500 * 2**30
    with pytest.raises(UserError, match="rejects the program: INTERNAL: no"):
        compiled.required("INTERNAL: no\nmore", 0)


def test_with_data_the_batches_are_the_runs(tmp_path):
    from jaxnmt.data.prepared import prepare
    from jaxnmt.training.loop import Trainer, default_hooks

    experiment = tiny.experiment(tmp_path, **{"batching": cfg.Batching(layout="buckets", tokens=128, max_shapes=3), "training.steps": 12})
    run = tmp_path / "run"
    run.mkdir()
    trainer = Trainer(experiment, run, default_hooks())
    trainer.store.close()
    lengths = workload.Lengths(experiment, run, print)
    shares = lengths.shares(experiment, trainer.mesh)
    assert {share.shape for share in shares} <= set(trainer.plan.shapes)
    assert sum(share.share for share in shares) == pytest.approx(1)
    data = prepare(experiment, run / "tokenizer", say=print)
    batches = [trainer.plan.batch(step) for step in range(12)]
    tokens = sum(len(data.train[c].target[i]) + 1 for b in batches for c, i in zip(b.corpus, b.index, strict=True))
    assert sum(share.share * share.target_tokens for share in shares) * 12 == pytest.approx(tokens)


def test_words_without_data_have_no_number():
    experiment = cfg.replace(EXPERIMENT, **{"tokenizer.kind": "words", "tokenizer.vocab_size": 0})
    with pytest.raises(UserError, match="tokenizer.vocab_size 0"):
        lengths_of(experiment)


def test_unknown_topologies_are_refused_with_those_known(monkeypatch):
    for name in ("v5e:3x5", "v9:2x2", "cpu:0", "cpu", "tpu"):
        with pytest.raises(UserError, match="v5e:1x1, 2x2.*cpu:N.*gpu"):
            topology.target(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
        topology.target("v5e:2x2")


def test_least_traffic_by_hand():
    model = cfg.replace(tiny.BASE, emb_dim=8, num_encoder_layers=2, num_decoder_layers=3, dtype="bfloat16")
    least = lambda **mesh: prediction.least_sent(model, 1000, {"data": 1, "fsdp": 1, "tensor": 1} | mesh, Shape(16, 32, 64))  # noqa: E731
    assert least() == 0
    assert least(data=4) == 2 * 3 / 4 * 2000
    assert least(fsdp=4) == 2 * 3 / 4 * 2000
    assert least(data=2, fsdp=4) == 2 * 1 / 2 * 2000 / 4 + 2 * 3 / 4 * 2000
    again = cfg.replace(model, scan_layers=True)
    assert prediction.least_sent(again, 1000, {"data": 1, "fsdp": 4, "tensor": 1}, Shape(16, 32, 64)) == 3 * 3 / 4 * 2000
    source, target = 16 * 32 * 8 * 2, 16 * 64 * 8 * 2
    assert least(tensor=2) == 2 * 1 / 2 * ((4 * 2 + 1 + 1) * source + (6 * 3 + 2) * target)


def test_candidates_of_a_search_divide_the_devices():
    tried = list(prediction.candidates(EXPERIMENT, 16))
    assert {c.mesh.data * c.mesh.fsdp * c.mesh.tensor for c in tried} == {16}
    assert {c.model.remat for c in tried} == {"none", "dots", "full"} and {c.mesh.fsdp for c in tried} == {1, 8, 16}


def command(tmp_path, *words):
    """`jaxnmt plan` in a process of its own, where JAX has no devices yet -> its numbers."""
    file = tmp_path / "plan.json"
    run = [sys.executable, "-m", "jaxnmt", "plan", "quickstart", *words, "--json", str(file), "--run", str(tmp_path / "none")]
    done = subprocess.run(run, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


SMALL = ("--model.emb-dim", "32", "--model.mlp-dim", "64", "--model.num-heads", "8", "--model.num-encoder-layers", "1")
SMALL += ("--model.num-decoder-layers", "1", "--tokenizer.vocab-size", "384", "--tokenizer.byte-fallback", "False")


def test_copies_send_their_gradients_once(tmp_path):
    found = command(tmp_path, "--on", "cpu:8", *SMALL, "--model.tie-embeddings", "none")  # a tied table is reduced at each of its uses
    (shape,) = found["shapes"]
    reduced = sum(c["bytes"] for c in shape["collectives"] if c["kind"] == "all-reduce")
    assert found["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert 1.0 <= reduced / (4 * found["parameters"]) < 1.2
    assert found["hours"] is None  # simulated devices have no speed


needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed")


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_compiles_for_tpus(name):
    experiment, target = load_config(name), topology.target("v5e:4x4")
    size = experiment.tokenizer.vocab_size or 10_000  # `words` takes all there are
    experiment = cfg.replace(experiment, **{"tokenizer.vocab_size": size})
    if name == "transformer_1b":  # its batch is for 256 devices
        experiment = cfg.replace(experiment, **{"batching.tokens": experiment.batching.tokens // 16})
    found = prediction.predict(experiment, target, lengths_of(experiment))
    assert found.fits and found.step_seconds and found.largest.collectives


@pytest.mark.slow
@needs_libtpu
def test_the_kernel_is_used_and_saves_memory():
    target = topology.target("v5e:2x2")
    experiment = cfg.replace(EXPERIMENT, **{"batching.tokens": 4096, "batching.row_length": 512, "model.dtype": "bfloat16"})
    lengths = lengths_of(experiment)
    assert prediction.predict(experiment, target, lengths).largest.work.kernel_flops > 0
    dropped = cfg.replace(experiment, **{"model.attention_dropout": 0.1})
    assert prediction.predict(dropped, target, lengths).largest.work.kernel_flops == 0
    wide = cfg.replace(load_config("transformer_1b"), **{"mesh.fsdp": 4})
    with_kernel, plain = compiled.kernel_saving(wide, target, Shape(4, 2048, 2048))  # a row for each chip: short rows save nothing
    assert with_kernel < plain
