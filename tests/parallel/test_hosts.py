"""Which rows each host reads: the sentences of every step are the same for any number of hosts, none is missing, none comes twice."""

import collections
import dataclasses

import numpy as np
import pytest

from jaxnmt.config import Batching, Experiment, Mesh, replace
from jaxnmt.data.batching import BatchPlan
from jaxnmt.data.corpus import in_memory
from jaxnmt.data.loader import assemble, batches
from jaxnmt.errors import UserError
from jaxnmt.parallel.sharding import local_rows, make_mesh, num_shards

ACCUMULATION = 2
PAIRS = 700


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh looks at; no program is compiled for it."""

    id: int
    process_index: int
    slice_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"
    client: object = None


class Hosts:
    """So many hosts with two devices each, and the rows that each reads of a run's batches."""

    def __init__(self, count, **axes):
        self.devices = [Device(i, i // 2) for i in range(2 * count)]
        self.mesh = make_mesh(Mesh(**axes), self.devices)
        self.count = count

    def rows(self, host, rows):
        return local_rows(self.mesh, rows, tuple(d for d in self.devices if d.process_index == host))

    def plan(self, layout="packed"):
        batching = Batching(layout=layout, tokens=230, row_length=16, max_shapes=2)
        settings = {"training.seed": 1, "training.accumulation": ACCUMULATION, "data.max_length": 16}
        experiment = replace(Experiment(batching=batching), **settings)
        return BatchPlan([CORPUS.lengths], [1.0], experiment, num_shards("B", self.mesh))

    def read(self, layout, start, stop):
        """{step: how often each pair is read, by all hosts together}."""
        plan, found = self.plan(layout), {}
        for step in range(start, stop):
            planned = plan.batch(step)
            assert planned.shape.rows % (ACCUMULATION * num_shards("B", self.mesh)) == 0
            shares = [planned.only(self.rows(host, planned.shape.rows)) for host in range(self.count)]
            found[step] = collections.Counter(index for share in shares for index in share.index.tolist())
        return found


def corpus():
    random = np.random.default_rng(0)
    return in_memory(
        [(random.integers(4, 99, random.integers(1, 15)), random.integers(4, 99, random.integers(1, 15))) for _ in range(PAIRS)]
    )


CORPUS = corpus()
AXES = [{}, {"fsdp": 2}, {"fsdp": -1, "data": 1}]


@pytest.mark.parametrize("layout", ["packed", "buckets"])
@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_hosts_of_any_number_read_the_sentences_of_a_step_once(count, axes, layout):
    planned = Hosts(1).plan(layout)
    for step, read in Hosts(count, **axes).read(layout, 0, 40).items():
        assert read == collections.Counter(planned.batch(step).index.tolist())


def test_hosts_that_share_a_copy_of_the_model_read_the_same_sentences():
    hosts = Hosts(4, tensor=4)
    for step, read in hosts.read("packed", 0, 20).items():
        assert read == collections.Counter(2 * Hosts(1).plan().batch(step).index.tolist())
    assert hosts.rows(0, 16).tolist() == hosts.rows(1, 16).tolist() == list(range(8))


def test_no_sentence_is_missing_or_doubled_after_resuming_on_4_2_1_and_3_hosts():
    epoch = Hosts(1).plan().steps_per_epoch
    cuts = [0, epoch // 5, epoch // 2, epoch // 2 + 1, epoch]
    total = collections.Counter()
    for count, start, stop in zip((4, 2, 1, 3), cuts, cuts[1:], strict=False):
        for read in Hosts(count).read("packed", start, stop).values():
            total += read
    assert total == collections.Counter(range(PAIRS))


def test_a_hosts_arrays_are_its_rows_of_the_batch():
    hosts = Hosts(3, fsdp=2)
    plan = hosts.plan()
    for host in range(3):
        for _, planned, arrays in batches(plan, [CORPUS], 2, 6, lambda rows, host=host: hosts.rows(host, rows)):
            whole = assemble(planned, [CORPUS])
            for name, x in arrays.items():
                np.testing.assert_array_equal(x, whole[name][hosts.rows(host, planned.shape.rows)])


def test_rows_that_do_not_divide_are_filled_up_and_leave_the_batch_as_it_is():
    one, three = Hosts(1).plan("buckets"), Hosts(3).plan("buckets")
    assert [s.rows for s in one.shapes] != [s.rows for s in three.shapes]
    for step in range(one.steps_per_epoch):
        filled, plain = three.batch(step), one.batch(step)
        assert filled.row.tolist() == plain.row.tolist() and filled.index.tolist() == plain.index.tolist()
        assert filled.row.max() < plain.shape.rows <= filled.shape.rows


def test_only_copies_are_spread_over_slices():
    devices = [Device(i, i // 4, slice_index=(0, 1)[i % 2]) for i in range(8)]  # as they say, whatever their order
    mesh = make_mesh(Mesh(fsdp=2, tensor=2), devices)
    assert [{d.slice_index for d in copy.flat} for copy in mesh.devices] == [{0}, {1}]
    told = make_mesh(Mesh(data=4, fsdp=2, slices=2), [Device(i, i // 4) for i in range(8)])
    assert {d.id for d in told.devices[:2].flat} == {0, 1, 2, 3}
    with pytest.raises(UserError, match="2 slices, which do not divide mesh.data 1"):
        make_mesh(Mesh(fsdp=8), devices)
    with pytest.raises(UserError, match="mesh.slices 3 does not divide 8"):
        make_mesh(Mesh(slices=3), devices)
    assert make_mesh(Mesh(fsdp=8, slices=1), devices).devices.size == 8


def test_gpus_of_several_hosts_may_share_parameters():
    hosts = [Device(i, i // 4, slice_index=i // 4, platform="gpu") for i in range(8)]
    assert make_mesh(Mesh(fsdp=8), hosts).shape["fsdp"] == 8
    assert [{d.slice_index for d in copy.flat} for copy in make_mesh(Mesh(fsdp=4), hosts).devices] == [{0}, {1}]
    with pytest.raises(UserError, match="2 slices, which do not divide mesh.data 1"):
        make_mesh(Mesh(fsdp=8, slices=2), hosts)


@dataclasses.dataclass(frozen=True)
class Chip(Device):
    coords: tuple[int, int, int] = (0, 0, 0)
    core_on_chip: int = 0


@pytest.mark.parametrize("axes", [(16, 1, 1), (4, 4, 1), (2, 8, 1), (1, 2, 8), (2, 2, 4)])
def test_a_grid_may_split_an_axis_of_a_tpus_torus(axes):
    chips = [Chip(i, i // 4, platform="tpu", device_kind="TPU v6 lite", coords=(i % 4, i // 4, 0)) for i in range(16)]
    mesh = make_mesh(Mesh(*axes), chips)
    assert mesh.devices.shape == axes and {chip.id for chip in mesh.devices.flat} == set(range(16))
    twice = [*chips, *(dataclasses.replace(chip, id=16 + chip.id, slice_index=1) for chip in chips)]
    with pytest.raises(UserError, match="these TPUs are in 2 slices"):
        make_mesh(Mesh(slices=1), twice)
