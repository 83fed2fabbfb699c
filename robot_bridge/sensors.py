"""``python -m robot_bridge.sensors RECORDING OUT``: calibrate joint sensors (B.5).

A Hall sensor's reading becomes an angle by a function that is linear between a few
points. The points' angles are fitted so that fingertips, by forward kinematics, are
where motion capture saw them. ``sim_hand --sensors`` reads the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_bridge import bundle as bundles
from robot_bridge import terminal
from robot_bridge.files import Output, check_outputs, write_at_once
from robot_bridge.kinematics import FINGERS, Chain, fit_frame
from robot_bridge.recording import RecordingError, numbers, read

POINTS = 5
"""Of each joint's function (B.5: 3 to 5)."""
SAMPLES = 600
"""Of a recording, evenly chosen: more do not make it better."""
TRUST = 0.05
"""How far the driver's own angles may be off, as a standard deviation [rad]: where
fingertips say nothing of a joint, its function stays as it was."""
MARKER_ERROR = 0.001
"""Standard deviation of where a marker is seen [m]."""
SHIFT = 0.003
"""Standard deviation of where markers sit on fingertips, each coordinate (Table 7) [m].
It is fitted, too: nobody glues a marker to the very place."""
HELD_OUT = 5
"""Every so-manyth sample is left out of the fit, to tell its error."""


class SensorMaps:
    """Angles from readings, joint by joint.

    Args:
        readings: [24, POINTS] ascending, of each joint's points.
        angles: [24, POINTS] there [rad].
    """

    def __init__(self, readings: np.ndarray, angles: np.ndarray):
        self.readings, self.angles = readings, angles

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """[..., 24] angles [rad]; beyond the outer points the functions go straight."""
        pieces = (self.readings < raw[..., None]).sum(-1) - 1
        pieces = np.clip(pieces, 0, self.readings.shape[1] - 2)
        joints = np.arange(len(self.readings))
        left, right = (self.readings[joints, pieces + n] for n in (0, 1))
        low, high = (self.angles[joints, pieces + n] for n in (0, 1))
        return low + (raw - left) / (right - left) * (high - low)

    def save(self, path: Path, joints: list[str]) -> None:
        """Write them, by joint, as pairs of reading and angle."""
        content = {
            name: np.stack([readings, angles], 1).tolist()
            for name, readings, angles in zip(joints, self.readings, self.angles)
        }
        write_at_once(path, json.dumps({"format": 1, "maps": content}, indent=1))


def load_maps(path: Path, joints: list[str]) -> SensorMaps:
    """Read what ``save`` wrote.

    Raises:
        ValueError: if it cannot be read or lacks a joint; the message names it.
    """
    try:
        maps = json.loads(Path(path).read_text(encoding="utf-8"))["maps"]
        pairs = np.array([maps[name] for name in joints], float)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no calibration of sensors ({type(error).__name__}: {error}); "
            "make one with python -m robot_bridge.sensors"
        ) from error
    return SensorMaps(pairs[..., 0], pairs[..., 1])


@dataclass(frozen=True)
class Fit:
    """Functions, and how well they do on samples that they were not fitted to."""

    maps: SensorMaps
    shifts: np.ndarray
    """[5, 3] of fingertips' markers from their places, in their links' frames [m]."""
    before: np.ndarray
    """[5] root mean square distance of fingertips [m], by the driver's angles."""
    after: np.ndarray
    """[5] by the fitted ones."""
    covered: np.ndarray
    """[24] share of each joint's range that was seen."""


def fit(
    raw: np.ndarray,
    angles: np.ndarray,
    tips: np.ndarray,
    chain: Chain,
    limits: np.ndarray,
) -> Fit:
    """Fit all joints' functions at once.

    Args:
        raw: [n, 24] readings.
        angles: [n, 24] what the driver made of them [rad].
        tips: [n, 5, 3] fingertips' markers in the base frame [m]; NaN where not seen.
        chain: of the hand.
        limits: [24, 2] of the joints [rad].

    Raises:
        ValueError: if there are too few samples.
    """
    from scipy.optimize import least_squares

    if len(raw) < 10 * HELD_OUT:
        raise ValueError(f"{len(raw)} samples are too few to fit 24 joints")
    test = np.arange(len(raw)) % HELD_OUT == 0
    readings = np.linspace(raw.min(0), raw.max(0) + 1e-6, POINTS).T
    start = _straight(raw, angles, readings)

    def split(values: np.ndarray) -> tuple[SensorMaps, np.ndarray]:
        changes = values[: start.size].reshape(start.shape)
        shifts = values[start.size :].reshape(-1, 3)
        return SensorMaps(readings, start + TRUST * changes), SHIFT * shifts

    def errors(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        maps, shifts = split(values)
        return chain.fingertips(maps(raw[chosen]), shifts) - tips[chosen]

    def residuals(values: np.ndarray) -> np.ndarray:
        seen = np.nan_to_num(errors(values, ~test)) / MARKER_ERROR
        # Unknowns are in units of how far they may be off.
        return np.concatenate([seen.ravel(), values])

    found = least_squares(residuals, np.zeros(start.size + 3 * tips.shape[1]))
    maps, shifts = split(found.x)
    driver = chain.fingertips(angles[test]) - tips[test]
    return Fit(
        maps=maps,
        shifts=shifts,
        before=_size(driver),
        after=_size(errors(found.x, test)),
        covered=np.ptp(angles, axis=0) / np.ptp(limits, axis=1),
    )


def _straight(raw, angles, readings) -> np.ndarray:
    """The driver's own functions at the points, as straight lines."""
    lines = [np.polyfit(raw[:, k], angles[:, k], 1) for k in range(raw.shape[1])]
    return np.array([np.polyval(line, x) for line, x in zip(lines, readings)])


def _size(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.nanmean((errors**2).sum(-1), axis=0))


def samples_of(path: Path, manifest: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Readings, driver's angles and fingertips in the base frame, from a recording.

    Raises:
        RecordingError: if it has no raw readings or no markers.
    """
    known, latest, rows = np.array(manifest["hand"]["base_markers"]), {}, []
    for topic, entry in read(path):
        if topic != "look":
            continue
        latest.update(entry["samples"])
        if "raw" not in entry["samples"] or not {"joints", "markers"} <= set(latest):
            continue
        markers = numbers(latest["markers"]["value"])
        if not np.isfinite(markers[:3]).all():
            continue
        rotation, position, _ = fit_frame(markers[:3], known)
        rows.append(
            (
                numbers(latest["raw"]["value"]),
                numbers(latest["joints"]["value"]),
                (markers[3:] - position) @ rotation,
            )
        )
    if not rows:
        raise RecordingError(
            f"{path} has no raw readings of joint sensors beside markers"
        )
    chosen = np.unique(np.linspace(0, len(rows) - 1, SAMPLES).astype(int))
    return tuple(np.array(column) for column in zip(*(rows[k] for k in chosen)))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    terminal.make_printable()
    parser = argparse.ArgumentParser(
        prog="python -m robot_bridge.sensors", description=__doc__.split("\n")[0]
    )
    parser.add_argument("recording", type=Path, help="of a sweep or of any run")
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        check_outputs(Output("OUT", options.out), inputs=[options.recording])
        _, start = next(read(options.recording))
        loaded = bundles.load(Path(start["bundle"]))
        hand = loaded.manifest["hand"]
        chain = Chain(hand["chain"], hand["tips"], loaded.joints)
        limits = np.array([start["info"]["limits"][name] for name in loaded.joints])
        found = fit(*samples_of(options.recording, loaded.manifest), chain, limits)
        found.maps.save(options.out, loaded.joints)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("| fingertip | before | after |\n|---|---|---|")
    for finger, before, after in zip(FINGERS, found.before, found.after):
        print(f"| {finger} | {1000 * before:.1f} mm | {1000 * after:.1f} mm |")
    narrow = [n for n, c in zip(loaded.joints, found.covered) if c < 0.5]
    if narrow:
        print(f"less than half of its range was seen of: {', '.join(narrow)}")
    print(f"saved to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
