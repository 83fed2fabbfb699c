"""Rendering in worker processes: as many images at once as there are workers.

Workers import neither JAX nor the program that starts them: OpenGL beside CUDA in one
process hangs or dies on some machines, and Filament may end its process at any time.
What a job draws depends on the job alone, so batches are the same bit for bit for any
number of workers.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import mujoco
import numpy as np

from mjx_dex.vision.rendering.posing import Fields

TRIES = 3
"""A job is given to so many workers, one after another, before it fails."""

SECONDS = 120.0
"""A worker that has not answered for so long is taken for dead."""

SCENES = 8
"""In one job: what is asked for at once is shared out among all workers."""


class RenderingError(OSError):
    """This machine draws nothing; the message says by what and why."""


class Farm:
    """A ``Renderer`` whose workers draw one scene.

    Args:
        name: 'gl' or 'filament'.
        model: the scene.
        size: height and width of images [pixels].
        workers: number of processes.
        backend: of OpenGL, 'egl' or 'osmesa'.
        seconds: that a worker may take for one job.

    Raises:
        RenderingError: if a first worker cannot draw here.
    """

    def __init__(
        self,
        name: str,
        model: mujoco.MjModel,
        size: int,
        workers: int = 1,
        backend: str = "egl",
        seconds: float = SECONDS,
    ):
        self.name = name
        self._start = lambda: _Worker(name, model, size, backend, seconds)
        self._local, self._lock = threading.local(), threading.Lock()
        self._workers: set[_Worker] = set()
        self._closed = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        # One is started now, so that what is wrong is said before any work begins.
        self._spare = [self._started()]
        self.description = self._spare[0].description

    def submit(self, qpos: np.ndarray, fields: Fields) -> "Parts":
        """See ``Renderer``."""
        # Workers know no JAX.
        qpos, fields = np.asarray(qpos), {k: np.asarray(x) for k, x in fields.items()}
        jobs = []
        for begin in range(0, len(qpos), SCENES):
            rows = slice(begin, begin + SCENES)
            part = {name: x[rows] for name, x in fields.items()}
            jobs.append(self._pool.submit(self._draw, qpos[rows], part))
        return Parts(jobs)

    def render(self, qpos: np.ndarray, fields: Fields) -> np.ndarray:
        """See ``Renderer``."""
        return self.submit(qpos, fields).result()

    def close(self) -> None:
        """End all workers; jobs that are not done are forgotten."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._workers):
            worker.process.kill()
        self._pool.shutdown(wait=True)
        for worker in list(self._workers):
            worker.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def processes(self) -> list[subprocess.Popen]:
        """Of the workers that live."""
        return [worker.process for worker in self._workers]

    def _new_worker(self) -> "_Worker":
        try:
            return self._spare.pop()
        except IndexError:
            return self._started()

    def _started(self) -> "_Worker":
        worker = self._start()
        with self._lock:
            self._workers.add(worker)
            if self._closed:
                worker.process.kill()
        return worker

    def _draw(self, qpos: np.ndarray, fields: Fields) -> np.ndarray:
        """In a thread of the pool, by the thread's own worker."""
        for tries in range(TRIES):
            worker = getattr(self._local, "worker", None)
            if worker is None:
                worker = self._new_worker()
                self._local.worker = worker
            try:
                return worker.ask((qpos, fields))
            except _WorkerError as died:
                self._local.worker = None
                self._workers.discard(worker)
                worker.end()
                if self._closed or tries == TRIES - 1:
                    raise RenderingError(
                        f"renderer {self.name}: {tries + 1} workers were lost in one "
                        f"job; the last one {died}"
                    ) from died
        raise AssertionError("unreachable")


class Parts:
    """Images that are being drawn, job by job."""

    def __init__(self, jobs: list[Future]):
        self._jobs = jobs

    def result(self) -> np.ndarray:
        """All of them, as soon as they are there."""
        return np.concatenate([job.result() for job in self._jobs])


def environment_of(name: str, backend: str) -> dict[str, str]:
    """Variables of a worker, by the names of its renderer and of OpenGL's backend."""
    # Workers know no JAX; with its variables ``mjx_dex.variables`` would import it.
    inherited = {x: y for x, y in os.environ.items() if not x.startswith("JAX_")}
    return inherited | {
        # Filament has no use for OpenGL.
        "MUJOCO_GL": backend if name == "gl" else "disable",
        # Mesa's own threads would compete with the other workers.
        "LP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


class _WorkerError(RuntimeError):
    """How, and the last line that it wrote."""


class _Worker:
    """One process."""

    def __init__(
        self, name: str, model: mujoco.MjModel, size: int, backend: str, seconds: float
    ):
        self._name, self._seconds = name, seconds
        # On a file, for nobody reads it while all goes well.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mjx_dex.vision.rendering.worker", name, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment_of(name, backend),
            # Ctrl-C is for the program, which ends its workers.
            start_new_session=True,
        )
        try:
            self.description = self.ask(model)
        except (_WorkerError, RenderingError) as error:
            self.end()
            raise RenderingError(
                f"renderer {name} does not work here: it {error}"
            ) from error

    def ask(self, question):
        """Send and wait for the answer.

        Raises:
            RenderingError: if the worker says what it cannot do.
            _WorkerError: if it ends, or does not answer in time.
        """
        # However far it has got: a pipe that nobody reads blocks the writer, too.
        late = threading.Timer(self._seconds, self.process.kill)
        late.start()
        begun = time.monotonic()
        try:
            pickle.dump(question, self.process.stdin, protocol=5)
            self.process.stdin.flush()
            kind, content = pickle.load(self.process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            if time.monotonic() - begun >= self._seconds:
                reason = f"had not answered after {self._seconds:g} s"
                raise _WorkerError(reason) from error
            raise _WorkerError(self._how_it_ended()) from error
        finally:
            late.cancel()
        if kind == "error":
            raise RenderingError(f"renderer {self._name} said {content}")
        return content

    def end(self) -> None:
        """Let it go; what it draws is lost."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _how_it_ended(self) -> str:
        self.process.kill()
        status = self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"ended with status {status}" + (
            f" ({lines[-1][:200]})" if lines else ""
        )
