"""Faces with letters on them, as meshes: plates, what is behind them, and letters."""

from dataclasses import dataclass

import numpy as np

LETTERS = "OPENAIXHTL"
"""On faces 0, 1, ..."""

GLYPHS = {
    "O": (".###.", "#...#", "#...#", "#...#", "#...#", "#...#", ".###."),
    "P": ("####.", "#...#", "#...#", "####.", "#....", "#....", "#...."),
    "E": ("#####", "#....", "#....", "####.", "#....", "#....", "#####"),
    "N": ("#...#", "##..#", "##..#", "#.#.#", "#..##", "#..##", "#...#"),
    "A": (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "I": ("#####", "..#..", "..#..", "..#..", "..#..", "..#..", "#####"),
    "X": ("#...#", "#...#", ".#.#.", "..#..", ".#.#.", "#...#", "#...#"),
    "H": ("#...#", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "T": ("#####", "..#..", "..#..", "..#..", "..#..", "..#..", "..#.."),
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
}
"""Seven rows, from the top."""

THICKNESS = 2e-4
"""Of plates [m]. They lie just inside of the object's surface."""

PROUD = 4e-4
"""How far letters stand out [m]."""

GROOVE = 2e-4
"""Between plates and the object's edges [m]: no two surfaces in one plane."""

HEIGHT = 0.6
"""Of letters, as a share of the face's."""

Mesh = tuple[np.ndarray, np.ndarray]
"""Vertices [v, 3] and triangles [t, 3], counterclockwise from outside."""


@dataclass(frozen=True)
class Face:
    """A flat face of an object, in the object's frame."""

    center: np.ndarray
    """[3] [m]."""
    normal: np.ndarray
    """[3] outward."""
    outline: np.ndarray
    """[corners, 2] convex, counterclockwise; across and up [m]."""

    @property
    def axes(self) -> np.ndarray:
        """[3, 3] rows: across, up (along z where it can be), outward."""
        up = np.eye(3)[2 if abs(self.normal[2]) < 0.5 else 1]
        return np.stack([np.cross(up, self.normal), up, self.normal])


def plate(face: Face) -> Mesh:
    """The coloured face."""
    return _extrude(face, face.outline * _shrink(face), -THICKNESS, 0.0)


def backing(face: Face) -> Mesh:
    """Behind the plate, a little smaller: what is dark between plates."""
    outline = face.outline * (1 - 2 * THICKNESS / np.abs(face.outline).max())
    return _extrude(face, outline, -3 * THICKNESS, -1.5 * THICKNESS)


def letter(face: Face, name: str) -> Mesh:
    """A letter on the plate: a box for each stroke along a row."""
    rows = GLYPHS[name]
    low, high = face.outline.min(0), face.outline.max(0)
    pixel = min(HEIGHT * (high[1] - low[1]) / 7, 0.8 * (high[0] - low[0]) / 5)
    boxes = []
    for i, row in enumerate(rows):
        for begin, end in _runs(row):
            left, right = (begin - 2.5) * pixel, (end - 2.5) * pixel
            bottom, top = (2.5 - i) * pixel, (3.5 - i) * pixel
            outline = [(left, bottom), (right, bottom), (right, top), (left, top)]
            boxes.append(_extrude(face, np.array(outline), 0.0, PROUD))
    return _join(boxes)


def _shrink(face: Face) -> float:
    return 1 - GROOVE / np.abs(face.outline).max()


def _runs(row: str) -> list[tuple[int, int]]:
    """Where strokes begin and end.

    >>> _runs("##..#")
    [(0, 2), (4, 5)]
    """
    edges = np.diff([0, *(c == "#" for c in row), 0])
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(b), int(e)) for b, e in zip(begins, ends, strict=True)]


def _extrude(face: Face, outline: np.ndarray, bottom: float, top: float) -> Mesh:
    """The prism over an outline on a face, from and to heights over it."""
    n = len(outline)
    flat = np.concatenate([outline, outline])
    heights = np.repeat([bottom, top], n)
    vertices = face.center + np.column_stack([flat, heights]) @ face.axes
    lid = [(n, n + k, n + k + 1) for k in range(1, n - 1)]
    floor = [(0, k + 1, k) for k in range(1, n - 1)]
    walls = []
    for k in range(n):
        following = (k + 1) % n
        walls += [(k, following, n + following), (k, n + following, n + k)]
    return vertices, np.array(lid + floor + walls)


def _join(meshes: list[Mesh]) -> Mesh:
    counts = np.cumsum([0] + [len(vertices) for vertices, _ in meshes])
    triangles = [t + count for (_, t), count in zip(meshes, counts[:-1], strict=True)]
    return np.concatenate([v for v, _ in meshes]), np.concatenate(triangles)
