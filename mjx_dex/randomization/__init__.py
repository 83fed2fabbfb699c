"""The paper's randomization menu: one named pure function per effect."""

from mjx_dex.randomization.adaptive import AdaptiveRanges, AdaptiveState
from mjx_dex.randomization.draws import Randomization

__all__ = ["AdaptiveRanges", "AdaptiveState", "Randomization"]
