"""Slack between a motor and its joint (appendix C.2), for arrays of any library."""


def take_up(action, slack, steps, xp):
    """One step of backlash: see ``randomization.action.backlash``.

    Args:
        action: [...] how far the target is away, in half ranges.
        slack: [...] in [-1, 1], before it.
        steps: [..., 2] of such steps in which a full action takes up one unit of slack,
            closing (action < 0) and opening.
        xp: ``numpy`` or ``jax.numpy``.

    Returns:
        What is left of the action, and the slack after it.
    """
    steps = xp.where(action < 0, steps[..., 0], steps[..., 1])
    size = xp.abs(action)
    to_take_up = xp.abs(xp.sign(action) - slack)
    spent = xp.clip(to_take_up * steps / (size + 1e-12), 0.0, 1.0)
    # In a step without any action slack stays; without backlash it is gone at once.
    taken_up = xp.where(size > 0, size / xp.maximum(steps, 1e-12), 0.0)
    slack = xp.clip(slack + xp.sign(action) * taken_up, -1.0, 1.0)
    return (1 - spent) * action, slack
