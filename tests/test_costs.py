import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mjx_dex import bench, costs, roofline
from mjx_dex.config import replace
from mjx_dex.types import PhysicsState


def test_memory_of_many_worlds_is_predicted_from_few(config):
    """By the line of ``costs.memory_line``, which docs/performance.md gives."""
    # Large enough for worlds to outweigh what is there once.
    sizes = {"num_envs": 32, "bank.size": 16, "bank.starting": 4}
    sizes |= {"ppo.horizon": 10, "ppo.chunk": 5, "ppo.minibatch_size": 80}
    base = replace(config, **sizes)
    planned = {
        worlds: costs.training_memory(costs.with_worlds(base, "native", worlds, "none"))
        for worlds in (32, 128, 1024)
    }
    fixed, each = costs.memory_line((32, planned[32]), (128, planned[128]))
    predicted = fixed + 1024 * each
    print(f"{planned}; predicted {predicted:,.0f}")
    assert predicted == pytest.approx(planned[1024], rel=0.2)
    assert planned[1024] > 4 * planned[128]


def test_every_part_keeps_its_share_of_more_worlds(config):
    many = costs.with_worlds(config, "mjx", 5 * config.num_envs, "all")
    assert (many.engine, many.randomization.preset) == ("mjx", "all")
    assert many.bank.size == 5 * config.bank.size
    assert many.bank.starting == 5 * config.bank.starting
    assert many.ppo.minibatch_size == 5 * config.ppo.minibatch_size


def test_the_papers_cluster_made_two_years_an_hour(config):
    """219,000 env steps/s of 80 ms."""
    steps = config.num_envs * config.ppo.horizon
    row = costs._row(config, None, "training", costs.Timed([steps / 219_000] * 3))
    assert row.years_per_hour == pytest.approx(2.0, rel=0.01)
    assert row.physics_steps_per_second == pytest.approx(2.19e6)
    assert row.runs == 3


def test_a_warp_engine_is_called_once_for_each_control_step(tmp_path, capsys):
    """Where MJX's own way to MuJoCo Warp was called at every physics step."""
    files = ["--json", str(tmp_path / "bench.json"), "--plot", str(tmp_path / "b.png")]
    sizes = ["--envs", "2", "--repeats", "2"]
    buffers = ["--physics.max-contacts", "24", "--physics.max-constraints", "300"]
    options = [*files, *sizes, *buffers, "--max-minutes", "30"]
    assert bench.main(["--engines", "warp", "--layers", "training", *options]) == 0
    (row,) = json.loads((tmp_path / "bench.json").read_text())
    assert row["warp"]["calls_per_step"] == 1
    assert row["warp"]["captures"] == 0  # on a CPU
    # 31 + 2 * 30 numbers of state in and out, 1,100 of parameters and controls in.
    assert 4_000 < row["warp"]["bytes_per_step"] < 6_000
    assert row["warp"]["memory_per_environment"] > 10_000
    said = capsys.readouterr().out
    assert "engine calls per control step 1," in said
    assert f"finished {row['first_finished']:.0f} s after the process started" in said


def test_time_since_the_process_started():
    """Of a process that waits for half a second, then says how old it is."""
    program = "import time; from mjx_dex import costs; time.sleep(0.5); "
    program += "print(costs._process_seconds())"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert 0.5 < float(done.stdout) < time.monotonic() - begun + 0.1


def test_batches_take_turns_on_the_same_inputs():
    order = []

    class Recorder(SimpleNamespace):
        def step(self, nstep):
            order.append((self.name, self.qpos[0], self.ctrl[0], nstep))

    steps = np.arange(3.0)[:, None]
    states = PhysicsState(qpos=steps, qvel=steps, warmstart=steps)
    batches = {name: Recorder(name=name) for name in ("stock", "bare")}
    inputs = None, states, 10 + steps, None, None
    timed = costs._timed_in_turns(batches, inputs, substeps=10, repeats=2)
    turns = [(n, k, 10 + k, 10) for k in range(3) for n in ("stock", "bare")]
    assert order == turns[:2] + 2 * turns  # the first step of both is not timed
    assert list(timed) == ["stock", "bare"]
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in timed.values())


def test_bench_ends_in_time_and_says_what_it_left_out(tmp_path, capsys):
    table, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = ["--max-minutes", "0", "--json", str(table), "--plot", str(picture)]
    assert bench.main([*arguments, "--engines", "native", "--envs", "4", "8"]) == 0
    assert json.loads(table.read_text()) == []
    assert picture.exists()
    said = capsys.readouterr().out
    assert (
        "left out, for 0 minutes are over: native none 4 float32; native none 8" in said
    )


def test_the_most_telling_rows_come_first():
    command = bench.BenchCommand(engines=("native", "warp"), envs=(64, 128))
    jobs = bench._jobs(command, bench.ON_CPU)
    assert [job[:2] for job in jobs] == [
        ("native", 64),
        ("warp", 64),
        ("native", 128),
        ("warp", 128),
    ]
    assert jobs[0][4] == tuple(costs.LAYERS)
    assert jobs[2][4] == ("physics", "task", "training")


def test_other_precisions_are_measured_in_whole_iterations():
    command = bench.BenchCommand(
        engines=("native",), envs=(64, 128), precisions=("float32", "bfloat16")
    )
    jobs = bench._jobs(command, bench.ON_CPU)
    assert [(job[1], *job[3:]) for job in jobs] == [
        (64, "float32", tuple(costs.LAYERS)),
        (64, "bfloat16", ("training",)),
        (128, "float32", ("physics", "task", "training")),
        (128, "bfloat16", ("training",)),
    ]


def test_the_lower_of_two_limits_bounds_the_pace():
    limits = {"operations_per_second": 1e12, "bytes_per_second": 1e10}
    busy = roofline.Roofline(operations=1e6, bytes=1e3, **limits)
    assert busy.steps_per_second == pytest.approx(1e6)
    hungry = roofline.Roofline(operations=1e3, bytes=1e5, **limits)
    assert hungry.steps_per_second == pytest.approx(1e5)


def test_operations_are_counted_for_each_world(config):
    """Against what the arithmetic needs at least, and a gross upper bound."""
    bound = roofline.measure(config)
    print(bound)
    # Composite inertias of 26 bodies and one factorization of 30 x 30: 9,000
    # multiplications at the very least; and every world's state is read and written.
    assert 9_000 < bound.operations < 1e8
    assert 2 * 4 * (31 + 30) < bound.bytes < 1e8
    assert bound.operations_per_second > 1e8
    assert bound.bytes_per_second > 1e8
