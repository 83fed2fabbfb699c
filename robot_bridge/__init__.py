"""The policy on the hand: export, runtime, transports, safety, record and replay.

What runs beside the hand needs NumPy alone and Python 3.8 (Shadow's computers have no
JAX): every module here but ``export``, ``onnx_graph``, ``simulation`` and the commands
that say so. ``tests/robot_bridge/test_runtime.py`` holds them to it.
"""
