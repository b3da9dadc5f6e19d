"""Plans of the CUDA kernels' GRU: every value is somebody's, once, and fits where it is kept."""

from __future__ import annotations

import itertools
import re
import subprocess

import pytest

from tests.kernels.gru_host import SM_80, SM_90, build_program, plan

SIZES = [
    1,
    5,
    6,
    16,
    17,
    128,
    200,
    330,
    331,
    512,
    660,
    800,
    1024,
    1056,
    1100,
    1386,
    1760,
    2048,
    2112,
    2560,
    4096,
]
BACKWARD_CONFIGS, FORWARD_CONFIGS = 3, 6


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("device", [SM_80, SM_90])
def test_plans_fit(gru_library, forward, wide, directions, device):
    multiprocessors, shared_bytes = device
    for size, rows in itertools.product(SIZES, [1, 3, 8, 9, 32, 64, 65, 300]):
        p = plan(gru_library, forward, size, rows, directions, wide, device)
        assert p.units * (p.ctas - 1) < size <= p.units * p.ctas
        assert p.units * (3 if forward else 1) <= 16 * p.tiles * p.m_groups
        assert p.groups * p.group_rows >= rows and p.group_rows % 32 == 0 and (p.groups - 1) < rows
        # A team's rows are every groups-th one.
        assert (rows + p.groups - 1) // p.groups <= p.group_rows
        k_bytes = (1 if forward else 3) * size * (4 if wide else 2)
        assert p.blocks * 64 >= k_bytes > (p.blocks - 1) * 64
        of_warp = -(-p.blocks // (8 // p.m_groups))
        assert max(of_warp, p.in_registers) == p.in_registers + p.in_shared + p.streamed
        # Registers for weights, sums and what is fetched ahead: a thread has 255 for everything.
        kept, sums, queue = p.in_registers * p.tiles * 8, p.tiles * 4 * 4, (p.ahead + 1) * 4 * 4
        assert kept + sums + queue <= 192
        assert p.shared_bytes <= shared_bytes
        if p.persistent:
            assert p.at_once in (1, directions) and p.at_once * p.groups * p.ctas <= multiprocessors
            assert p.streamed <= of_warp * (1 / 2 if p.at_once > 1 else 2 / 3)
        else:
            assert p.in_registers == p.in_shared == 0 and p.group_rows <= 32 and p.at_once == directions


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("units, first", [(5, 0), (5, 5), (16, 32), (21, 42), (32, 0)])
def test_slices_cover_each_row_once(gru_library, forward, units, first):
    size, gates = 50, 3 if forward else 1
    rows = [gru_library.weight_row(int(forward), size, units, first, row) for row in range(112)]
    owned = range(first, min(first + units, size))
    assert sorted(row for row in rows if row >= 0) == [
        gate * size + unit for gate in range(gates) for unit in owned
    ]


def test_resident_where_it_matters(gru_library):
    """On the H100 and H200 the sizes of known models are persistent, and up to 1024 units nothing is streamed."""
    for size in (128, 200, 256, 512, 768, 800, 1024):
        for forward, wide in itertools.product([False, True], [False, True]):
            p = plan(gru_library, forward, size, 32, 2, wide)
            assert p.persistent, (size, forward, wide)
            assert p.streamed == 0 or (wide and size == 1024 and not forward), (size, forward, wide)
    for forward in (False, True):
        assert plan(gru_library, forward, 1760, 64, 2).persistent
        # DeepSpeech2's largest: one direction after the other.
        p = plan(gru_library, forward, 2560, 64, 2)
        assert p.persistent and p.at_once == 1
        assert not plan(gru_library, forward, 2560, 64, 2, wide=True).persistent


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """What the launcher asks CUDA for: (device, layers of (size, rows, directions, wide, steps)) → of each forward and back,
    (how, grid, room, first epoch, last) of each launch."""
    program = build_program(tmp_path_factory.mktemp("launches"), "gru_launches")

    def run(device, layers, cooperative=1):
        multiprocessors, shared_bytes = device
        # As many registers as a thread may have, and the kilobyte that CUDA keeps of each block's memory.
        attributes = [multiprocessors, shared_bytes, shared_bytes + 1024, 255, cooperative]
        numbers = [*attributes, *itertools.chain(*layers)]
        done = subprocess.run([program, *map(str, map(int, numbers))], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        passes = re.split(r"^(?:layer|back)\n", done.stdout, flags=re.MULTILINE)[1:]
        line = re.compile(r"(\w+) grid=(\d+) room=(\d+) shared=\d+ epochs=(\d+)-(\d+)")
        return [[(how, *map(int, rest)) for how, *rest in line.findall(text)] for text in passes]

    return run


# The largest first, so that smaller ones have been planned between its plan and its launch.
LAYERS = [(size, rows, directions, wide, 3) for size in reversed(SIZES) for rows in (1, 33, 300) for directions in (1, 2)
          for wide in (False, True)]  # fmt: skip


@pytest.mark.parametrize("device", [SM_80, SM_90], ids=["A100", "H200"])
def test_launches_fit_the_device(launches, device):
    """All are planned before the first is launched: none may take back the shared memory that another was allowed."""
    found = launches(device, LAYERS)
    assert len(found) == 2 * len(LAYERS)
    assert {how for launched in found for how, *_ in launched} == {"cooperative", "plain"}
    for (_, _, directions, _, steps), of_layer in zip(LAYERS, zip(found[::2], found[1::2])):
        for launched in of_layer:
            how, grid, room, *_ = launched[0]
            if how == "cooperative":
                assert all(entry == ("cooperative", grid, room, 0, steps + 1) for entry in launched)
                assert grid <= room == device[0] and len(launched) in (1, directions)
            else:
                assert [entry[3:] for entry in launched] == [(epoch, epoch + 1) for epoch in range(steps + 1)]


def test_nothing_is_cooperative_where_the_device_is_not(launches):
    found = launches(SM_90, LAYERS[-20:], cooperative=0)
    assert {how for launched in found for how, *_ in launched} == {"plain"}
