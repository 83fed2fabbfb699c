"""What runs beside the hand: NumPy alone, and Python 3.8's grammar."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import robot_bridge

ROOT = Path(robot_bridge.__file__).parent

WITH_JAX = {"export.py", "onnx_graph.py"}
"""Of the exporting side, beside the folder ``simulation``."""

RUNTIME = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in ROOT.rglob("*.py")
    if path.name not in WITH_JAX | {"__init__.py"} and "simulation" not in path.parts
)

HEAVY = ("jax", "flax", "mujoco", "scipy", "onnx", "mcap", "rospy", "mjx_dex")


@pytest.mark.parametrize("module", RUNTIME)
def test_python_3_8_can_read_it(module):
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    ast.parse(source, feature_version=(3, 8))
    # Then annotations like ``int | None`` are never evaluated.
    assert "from __future__ import annotations" in source


@pytest.mark.parametrize("module", RUNTIME)
def test_it_knows_nothing_of_training(module):
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in getattr(node, "names", [])]
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert not any(name.startswith("mjx_dex") for name in names)


def test_exporting_knows_neither_the_environment_nor_its_learning():
    source = (ROOT / "export.py").read_text()
    modules = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert "mjx_dex.runs" in modules
    assert not any("task.env" in name or "ppo" in name for name in modules)


def test_the_grammar_check_finds_what_is_newer():
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n  case 1: pass", feature_version=(3, 8))


def test_the_runtime_imports_numpy_alone(bundle_path):
    """Also when it loads a bundle, which runs the policy."""
    light = [name for name in RUNTIME if name not in ("lockstep", "sim_hand")]
    light = [n for n in light if n not in ("transports.lockstep", "ros_messages")]
    imports = "; ".join(f"import robot_bridge.{name}" for name in light)
    code = f"""
{imports}
import sys, robot_bridge.bundle
robot_bridge.bundle.load({str(bundle_path)!r})
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
