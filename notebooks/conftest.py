"""Notebooks under test begin without what an earlier test left behind."""

import shutil
from pathlib import Path


def pytest_sessionstart(session):
    """Remove their runs, once for all workers."""
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(Path(__file__).parent.parent / "runs/notebooks", True)
