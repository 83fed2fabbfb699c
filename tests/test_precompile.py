import subprocess
import sys

import pytest
import warp

from mjx_dex import settings
from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig, replace
from mjx_dex.hand import build_hand
from mjx_dex.physics import make_engine, precompile, warp_engine

CONFIG = PhysicsConfig(max_contacts=24, max_constraints=300)


@pytest.fixture(scope="module")
def engine():
    hand = build_hand(HandConfig(), ObjectConfig(), CONFIG)
    return make_engine("warp", hand, CONFIG)


class NamingCompiler(precompile.Compiler):
    """Names modules, and compiles none."""

    def __init__(self, folder):
        super().__init__(folder, 90)
        self.modules = []

    def compile(self, module, block_dim):
        self.modules.append(module.name)


def named(engine, count, folder):
    """Modules that are needed for so many environments."""
    compiler = NamingCompiler(folder)
    batch = engine.batches.make("cpu", count, substeps=1)
    with compiler.instead_of_launches():
        batch.advance()
    return set(compiler.modules)


def test_every_kernel_that_is_launched_is_compiled(engine, tmp_path, monkeypatch):
    """Against what warp loads when the same step is made on a CPU."""
    loaded, load = set(), warp.Module.load

    def note(module, *arguments, **options):
        loaded.add(module.name)
        return load(module, *arguments, **options)

    compiled = named(engine, 3, tmp_path)
    monkeypatch.setattr(warp.Module, "load", note)
    engine.batches.make("cpu", 3, substeps=1).advance()
    assert len(loaded) > 20
    assert compiled == loaded


def test_the_number_of_environments_is_in_one_kernel(engine, tmp_path):
    (few,) = named(engine, 3, tmp_path) - named(engine, 5, tmp_path)
    assert "nxn_broadphase" in few


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of warp's, as far as looking up compiled kernels goes, with a new driver.

    With that warp would take PTX if nothing said otherwise.
    """
    runtime = warp._src.context.runtime
    monkeypatch.setattr(runtime, "driver_version", (99, 0))
    device = object.__new__(warp.Device)
    device.runtime, device.ordinal, device.alias = runtime, 0, "cuda:0"
    device.arch, device.is_cubin_supported = 90, True
    return device


def test_a_gpu_finds_what_was_compiled_without_one(engine, gpu, tmp_path, monkeypatch):
    compiler = precompile.Compiler(tmp_path, 90, report=lambda _: None)
    module = warp_engine._begin_step.module
    with compiler.instead_of_launches():
        for block_dim in (256, 64):
            compiler.compile(module, block_dim)
    # As warp makes it of WARP_CACHE_PATH when it starts.
    monkeypatch.setattr(
        warp.config, "kernel_cache_dir", str(tmp_path / warp.config.version)
    )
    module.load(warp.get_device("cpu"), 1)  # changes no name of a GPU's kernels
    for block_dim in (256, 64):
        found = module._compile(gpu, options=module.resolved_options[block_dim])
        assert found is False  # that it had to be compiled
        (folder,) = tmp_path.glob(f"*/{module.get_module_identifier(block_dim)}")
        binary = folder / module._get_compile_output_name(gpu, block_dim=block_dim)
        assert binary.read_bytes()[:4] == b"\x7fELF"
        assert binary.name.endswith(".sm90.cubin")
        assert (folder / f"{folder.name}.meta").exists()


def test_names_are_the_same_in_another_process(engine):
    program = (
        "from mjx_dex.physics.engine import configure_warp; configure_warp();"
        "from mjx_dex.physics import warp_engine;"
        "print(warp_engine._begin_step.module.get_module_identifier(256))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    here = warp_engine._begin_step.module.get_module_identifier(256)
    assert done.stdout.strip() == here


def test_kernels_are_compiled_for_training_and_for_its_pool():
    config = replace(
        settings.load("single_gpu"), **{"bank.size": 2048, "bank.starting": 256}
    )
    assert precompile.sizes(config, 1, ()) == [2048, 8448]
    assert precompile.sizes(config, 4, (100,)) == [100, 512, 2112]


@pytest.mark.parametrize("arch", ["sm_12", "hopper", "90"])
def test_an_unknown_architecture_is_one_line(arch, capsys):
    command = ["--arch", arch, "--physics.max-contacts", "8"]
    assert precompile.main([*command, "--physics.max-constraints", "99"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: --arch {arch}: warp compiles for sm_")
    assert "sm_90" in said
