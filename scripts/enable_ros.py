"""Let a virtual environment find Debian's ROS 1.

    .venv/bin/python scripts/enable_ros.py

Debian 12 has rospy for its own Python 3.11 (``apt-get install python3-rospy ...``). Its
folder is added behind this environment's own: put before them by PYTHONPATH, Debian's
NumPy and cffi would take the place of newer ones.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

from robot_bridge import terminal

PACKAGES = Path("/usr/lib/python3/dist-packages")


def main() -> int:
    """Write the file and try it; returns the exit status."""
    terminal.make_printable()
    if not (PACKAGES / "rospy").is_dir():
        print(
            f"error: no rospy in {PACKAGES}: apt-get install python3-rospy "
            "python3-rosmaster (the whole list is in docs/robot_bridge.md)",
            file=sys.stderr,
        )
        return 1
    if sys.prefix == sys.base_prefix:
        print("error: run this with a virtual environment's Python", file=sys.stderr)
        return 1
    path = Path(sysconfig.get_path("purelib")) / "debian_ros.pth"
    path.write_text(f"{PACKAGES}\n", encoding="utf-8")
    tried = subprocess.run([sys.executable, "-c", "import rospy"])
    if tried.returncode:
        path.unlink()
        print(f"error: {sys.executable} cannot import rospy", file=sys.stderr)
        return 1
    print(f"rospy can be imported ({path})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
