import jax
import jax.numpy as jnp

from mjx_dex import profiling
from mjx_dex.learning.trainer import PHASES
from mjx_dex.profiling import Event, Origin, Share
from mjx_dex.train import make_trainer

KNOWN = {
    "while.1": Origin("while", "jit(f)/optimization/while"),
    "dot.2": Origin("dot", "jit(f)/optimization/while/body/transpose"),
    "fusion.3": Origin("fusion", "jit(f)/optimization/while/body/add"),
    "ynn_fusion.4": Origin("fusion", "jit(f)/while/body/acting/dense/dot_general"),
    "copy.5": Origin("copy", "jit(f)/transpose"),
}


def test_time_is_counted_once_where_operations_call_others():
    events = [
        Event("a", "while.1", 0.0, 10.0),
        Event("a", "dot.2", 1.0, 3.0),
        Event("a", "dot.2", 4.0, 3.0),
        Event("a", "fusion.3", 7.0, 2.0),
        Event("a", "copy.5", 10.0, 1.5),
        Event("b", "ynn_fusion.4", 0.5, 4.0),
        Event("b", "unknown", 5.0, 0.5),
    ]
    assert profiling.shares(events, KNOWN) == [
        Share("optimization", "product", 6.0, 2),
        Share("acting", "product", 4.0, 1),
        Share("optimization", "loop", 2.0, 1),
        Share("optimization", "elementwise", 2.0, 1),
        Share("else", "copy", 1.5, 1),
        Share("else", "call", 0.5, 1),
    ]


def test_shares_are_of_all_that_was_counted():
    rows = [Share("acting", "product", 0.003, 7), Share("else", "copy", 0.001, 1200)]
    _, first, second = profiling.table(rows).splitlines()
    assert first.split() == ["acting", "product", "75.0%", "3.0", "7"]
    assert second.split() == ["else", "copy", "25.0%", "1.0", "1,200"]


def test_operations_keep_the_names_of_their_scopes():
    def two_phases(x):
        with jax.named_scope("acting"):
            y = x @ x
        with jax.named_scope("statistics"):
            return jax.lax.sort(jnp.sin(y))

    program = jax.jit(two_phases).lower(jnp.ones((64, 64))).compile().as_text()
    paths = [origin.path for origin in profiling.origins(program).values()]
    assert any(p.endswith("acting/dot_general") for p in paths)
    assert any(p.endswith("statistics/sort") for p in paths)


def test_an_iteration_is_traced_and_split_into_its_phases(config, tmp_path):
    trainer = make_trainer(config, jax.local_devices()[:1])
    rows = profiling.profile(trainer, trainer.init(jax.random.key(0)), tmp_path)
    assert list(tmp_path.rglob("*.trace.json.gz"))
    seconds = {(row.phase, row.kind): row.seconds for row in rows}
    phases = {phase for phase, _ in seconds}
    assert phases >= set(PHASES) - {"values at truncation"}
    # The C engine, called from the environments, takes longer than tiny networks.
    assert seconds["environments", "call"] == max(seconds.values())
    assert seconds["optimization", "product"] > 0
    assert min(seconds.values()) >= 0
