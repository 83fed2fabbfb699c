"""A process that draws what it is asked for; ``farm`` starts and asks it.

It reads pickled (qpos, fields) from its standard input and answers on its standard
output with ("images", array) or ("error", message); first of all with ("ready", what
draws). Libraries that print there are sent to standard error.
"""

import os
import pickle
import sys

import mujoco

from mjx_dex import mujoco_warnings


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    mujoco_warnings.start_counting()
    name, size = sys.argv[1], int(sys.argv[2])

    def answer(kind: str, content) -> None:
        pickle.dump((kind, content), answers, protocol=5)
        answers.flush()

    try:
        renderer = make(name, pickle.load(sys.stdin.buffer), size)
        answer("ready", renderer.description)
        while True:
            try:
                qpos, fields = pickle.load(sys.stdin.buffer)
            except EOFError:
                break
            answer("images", renderer.render(qpos, fields))
        renderer.close()
    except Exception as error:
        answer("error", f"{type(error).__name__}: {error}")


def make(name: str, model: mujoco.MjModel, size: int):
    """A renderer that draws in this process. The import alone may end it."""
    if name == "filament":
        from mjx_dex.vision.rendering.filament import FilamentRenderer

        return FilamentRenderer(model, size)
    from mjx_dex.vision.rendering.gl import GlRenderer

    return GlRenderer(model, size)


if __name__ == "__main__":
    main()
