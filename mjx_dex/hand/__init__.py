"""The Shadow hand and the objects it turns, as MuJoCo models."""

from mjx_dex.hand.model import Hand, build_hand

__all__ = ["Hand", "build_hand"]
