"""Several processes, on one host or many, that train as one (``jax.distributed``)."""

import logging
import os
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

log = logging.getLogger("mjx_dex")


def join(
    coordinator: str | None, processes: int | None, process_id: int | None
) -> None:
    """Join the job's other processes; JAX then sees the devices of all.

    Must come before anything else that JAX does.

    Args:
        coordinator: host:port of process 0.
        processes: how many.
        process_id: which of them this is, from 0. What is None is left to JAX, which
            finds it out in a job of SLURM, Open MPI or Kubernetes.

    Raises:
        ValueError: if something is neither given nor found.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--distributed: cannot join a job ({reason}); start it with SLURM, Open "
            "MPI or Kubernetes, or give --coordinator HOST:PORT --processes N "
            "--process-id I"
        ) from error
    if not is_main():
        # One voice: errors alone are worth saying more than once.
        log.setLevel(logging.ERROR)
    log.info("%d processes, %d devices", jax.process_count(), jax.device_count())


def leave() -> None:
    """After an error: end this process at once if it has joined others.

    Leaving in good order would wait for processes that may be gone.
    """
    if jax.distributed.is_initialized():
        sys.stderr.flush()
        os._exit(1)


def is_main() -> bool:
    """Whether this is the process that writes logs and speaks to people."""
    return jax.process_index() == 0


def any_process(*flags: bool) -> tuple[bool, ...]:
    """For each flag whether any process has raised it: the same answer in all."""
    if jax.process_count() == 1:
        return flags
    return tuple(multihost_utils.process_allgather(np.array(flags)).any(0).tolist())
