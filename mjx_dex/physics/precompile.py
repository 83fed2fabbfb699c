"""``python -m mjx_dex.physics.precompile``: kernels of the warp engine, without a GPU.

The first start on a machine compiles them for minutes. Compiled elsewhere, for the
same configuration, they are found with WARP_CACHE_PATH=FOLDER.
"""

import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import warp as wp

from mjx_dex import settings, startup
from mjx_dex.config import Config, replace
from mjx_dex.hand import build_hand
from mjx_dex.physics.engine import configure_warp, make_engine
from mjx_dex.ranges import Count, whole
from mjx_dex.task import with_buffers
from robot_bridge import terminal
from robot_bridge.files import Output, check_outputs

SMALLEST_GPU = 1
"""Multiprocessors of the GPU that is pretended: launches' sizes depend on them, what
is compiled does not."""


@dataclass(frozen=True)
class PrecompileCommand(Config):
    """Options of the command itself, beside the configuration's."""

    config: str = "single_gpu"
    """Configuration that will be trained; its options must be the same, too."""
    arch: str = "sm_90"
    """Architecture of the GPUs: sm_90 is that of H100 and H200."""
    out: Path = Path("warp_kernels")
    """Folder for the compiled kernels, to be WARP_CACHE_PATH on the other machine."""
    devices: whole(1, 1024) = 1
    """GPUs that training will be spread over."""
    batches: tuple[Count, ...] = ()
    """Further numbers of environments, of each of which one kernel is compiled;
    training's own and that of its pool of initial states are always there."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    startup.set_up()
    try:
        startup.check_jax()
        base = settings.early_option(arguments, "--config") or "single_gpu"
        command = settings.from_command_line(
            PrecompileCommand, settings.load(base), arguments, description=__doc__
        )
        run(command)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(command: PrecompileCommand) -> None:
    """Compile every kernel that a GPU would need, and say what takes how long.

    Raises:
        ValueError: if the architecture is none, or not one that warp compiles for.
    """
    check_outputs(Output("--out", command.out, is_folder=True))
    config = replace(settings.config_of(command), engine="warp")
    config = with_buffers(config)
    hand = build_hand(config.hand, config.object, config.physics)
    arch = architecture(command.arch)
    compiler, started = Compiler(command.out, arch), time.monotonic()
    for count in sizes(config, command.devices, command.batches):
        print(f"{count} environments", flush=True)
        batch = make_engine("warp", hand, config.physics).batches.make("cpu", count, 1)
        with compiler.instead_of_launches():
            batch.advance()
    buffers = {
        "--physics.max-contacts": config.physics.max_contacts,
        "--physics.max-constraints": config.physics.max_constraints,
    }
    train = terminal.shell_command("mjx_dex.train", *sum(buffers.items(), ()))
    print(
        f"{len(compiler.done)} modules in {time.monotonic() - started:.0f} s; on a "
        f"machine with sm_{arch}: WARP_CACHE_PATH={shlex.quote(str(command.out))} "
        f"{train} and the options here"
    )


def architecture(name: str) -> int:
    """90 for 'sm_90'.

    Raises:
        ValueError: if it is no architecture, or not one that warp compiles for.
    """
    configure_warp()
    wp.init()
    # Private, but nothing public says it.
    known = wp._src.context.runtime.nvrtc_supported_archs
    found = re.fullmatch(r"sm_(\d+)", name)
    if found is None or int(found[1]) not in known:
        names = ", ".join(f"sm_{arch}" for arch in sorted(known))
        raise ValueError(f"--arch {name}: warp compiles for {names or 'no GPU here'}")
    return int(found[1])


def sizes(config: Config, devices: int, more: tuple[int, ...]) -> list[int]:
    """Numbers of environments that training steps on each device, and ``more``."""
    training = config.num_envs + config.bank.starting
    return sorted({training // devices, config.bank.size // devices, *more})


class Compiler:
    """Compiles what is launched, under the names that a GPU's process looks up."""

    def __init__(self, folder: Path, arch: int, report: Callable[[str], None] = print):
        self.done: set[tuple[str, int]] = set()
        """Modules, by the names of their files, with numbers of threads."""
        self._arch, self._report = arch, report
        # As warp makes it of WARP_CACHE_PATH.
        self._folder = folder.resolve() / wp.config.version

    @contextmanager
    def instead_of_launches(self) -> Iterator[None]:
        """Compile each kernel that is launched, for a GPU; launch nothing."""
        gpu = SimpleNamespace(is_cuda=True, is_cpu=False, sm_count=SMALLEST_GPU)
        replaced = {
            "launch": self._launch,
            "launch_tiled": self._launch,
            "get_suggested_block_size": self._suggest,
            "capture_while": self._once,
            "get_device": lambda *_: gpu,
        }
        with ExitStack() as stack:
            stack.enter_context(
                mock.patch.object(wp.config, "kernel_cache_dir", str(self._folder))
            )
            for name, function in replaced.items():
                stack.enter_context(mock.patch.object(wp, name, function))
            yield

    def compile(self, module, block_dim: int | None) -> None:
        """As ``warp.Module.load`` would, there."""
        block_dim = module.options["block_dim"] if block_dim is None else block_dim
        name = module.get_module_identifier(block_dim)
        if (name, block_dim) in self.done:
            return
        started = time.monotonic()
        module._compile(
            output_arch=self._arch,
            use_ptx=False,
            options=module.resolved_options[block_dim],
        )
        self.done.add((name, block_dim))
        seconds = time.monotonic() - started
        self._report(f"{seconds:6.1f} s  {name} ({block_dim} threads)")

    def _launch(self, kernel, dim, inputs=(), outputs=(), block_dim=256, **_) -> None:
        sizes = (dim,) if isinstance(dim, int) else dim
        if 0 in sizes:
            return  # warp loads nothing then
        if kernel.is_generic:
            types = kernel.infer_argument_types([*inputs, *outputs])
            kernel = kernel.add_overload(types)
        self.compile(kernel.module, block_dim)

    def _suggest(self, kernel, device=None) -> tuple[int, int]:
        self.compile(kernel.module, None)
        return 256, 1

    @staticmethod
    def _once(condition, while_body, **arguments) -> None:
        while_body(**arguments)


if __name__ == "__main__":
    sys.exit(main())
