"""The paper's block-turning task (appendix C.1)."""

from mjx_dex.task.bank import BankedEnvironments
from mjx_dex.task.buffers import with_buffers
from mjx_dex.task.env import HandEnv, make_env

__all__ = ["BankedEnvironments", "HandEnv", "make_env", "with_buffers"]
