"""Which part of the package may import which."""

import ast
from pathlib import Path

import pytest

import mjx_dex

ROOT = Path(mjx_dex.__file__).parent

ALLOWED = {
    "ranges": set(),
    "config": {"ranges"},
    "types": set(),
    "rotations": set(),
    "trees": set(),
    "variables": set(),
    "mujoco_warnings": set(),
    "startup": {"mujoco_warnings"},
    "checkpoints": {"trees"},
    "hand": {"config", "types", "rotations", "hand"},
    "physics": {"config", "types", "hand", "physics", "ranges"},
    "randomization": {
        "config",
        "types",
        "rotations",
        "hand",
        "physics",
        "randomization",
        "settings",  # its command
        "ranges",
        "startup",
    },
    "task": {
        "config",
        "types",
        "rotations",
        "trees",
        "hand",
        "physics",
        "randomization",
        "task",
    },
    "learning": {"checkpoints", "config", "types", "trees", "learning"},
    "calibrate": {
        "config",
        "types",
        "hand",
        "physics",
        "calibrate",
        "runs",  # its commands
        "ranges",
        "settings",
    },
}
"""Parts of mjx_dex and the parts that each may import."""

COMMANDS = {"physics/precompile.py": {"task", "settings", "startup"}}
"""What a part's command may import beside that."""


def files_of(part: str) -> list[Path]:
    files = [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").exists() else []
    return files + sorted((ROOT / part).rglob("*.py"))


def imports_of(source: str) -> set[str]:
    """Dotted names imported from mjx_dex, also inside functions, without 'mjx_dex.'."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in found if name.split(".")[0] == "mjx_dex"}
    return {name.removeprefix("mjx_dex.") for name in ours}


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_what_lies_below_it(part):
    files = files_of(part)
    assert files
    for file in files:
        parts = {name.split(".")[0] for name in imports_of(file.read_text())}
        command = COMMANDS.get(str(file.relative_to(ROOT)), set())
        assert parts <= ALLOWED[part] | command, file


def test_ppo_knows_neither_environments_nor_rollouts():
    imported = imports_of((ROOT / "learning/ppo.py").read_text())
    assert imported
    for module in ("vector", "rollout"):
        assert not any(name.startswith(f"learning.{module}") for name in imported)


def test_imports_are_found_in_every_form():
    source = """
import os, mjx_dex.hand.names
from mjx_dex import rotations
def f():
    from mjx_dex.physics.native import NativeEngine
"""
    assert imports_of(source) == {
        "hand.names",
        "rotations",
        "physics.native.NativeEngine",
    }
