"""Write what ``gpu_run.sh`` measured into the section "On a GPU" of docs/results.md.

python scripts/write_results.py RUN COMMAND [--docs FOLDER]
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import yaml

from mjx_dex.report import read_metrics
from robot_bridge import terminal
from robot_bridge.files import save_figure, write_at_once

BEGIN, END = "<!-- gpu_run: begin -->", "<!-- gpu_run: end -->"
"""The section is between these lines; what was there is replaced."""

BENCHES = {"bench": "Commit", "bench_old": "On the same GPU, the other commit (OLD),"}
"""What ``gpu_run.sh`` may have measured, and what begins the line above the table."""


def main():
    """Read the run's files, write section and pictures."""
    terminal.make_printable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("command")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    run, docs = arguments.run, arguments.docs
    page = docs / "results.md"
    if not page.is_file():
        raise SystemExit(f"error: there is no {page}; give its folder with --docs")
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"error: {page} lacks the lines {BEGIN} and {END}")
    parts = [describe(run, arguments.command)]
    parts += [bench_table(run, name) for name in BENCHES]
    parts += [solver_table(run), sizes(run, docs), training(run)]
    section = "\n\n".join(part for part in parts if part)
    if (run / "bench.png").exists():
        shutil.copy(run / "bench.png", docs / "gpu_bench.png")
    if (run / "metrics.jsonl").exists():
        plot_over_time(run, docs / "gpu_curve.png")
    before, rest = text.split(BEGIN)
    write_at_once(page, f"{before}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}")
    print(f"wrote {page}")


def describe(run: Path, command: str) -> str:
    """What was run, where, with which code."""
    rows = [row for name in BENCHES for row in rows_of(run, name)]
    devices = ", ".join(dict.fromkeys(row["device"] for row in rows))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    return f"`{command}`, commit {commit or 'unknown'}, {devices or 'one GPU'}."


def rows_of(run: Path, name: str) -> list[dict]:
    """What a command saved; nothing if it was not run, or failed at once."""
    path = run / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def bench_table(run: Path, name: str) -> str:
    """Every row of a bench; nothing if there is none."""
    rows = rows_of(run, name)
    if not rows:
        return ""
    lines = [
        "| engine | menu | precision | layer | environments | env steps/s "
        "| physics steps/s | years per hour | MiB | compile s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            *(
                row["engine"],
                row["menu"],
                row.get("precision", "float32"),
                row["layer"],
            ),
            f"{row['worlds']:,}",
            f"{row['env_steps_per_second']:,.0f}",
            f"{row['physics_steps_per_second']:,.0f}",
            f"{row['years_per_hour']:.3f}",
            f"{row['memory_bytes'] / 2**20:,.0f}",
            f"{row['compile_seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    commit = (run / f"{name}.commit").read_text(encoding="utf-8").strip() or "unknown"
    if name == "bench" and (run / "bench.png").exists():  # not if it was stopped
        lines += ["", "![pace and memory over environments](gpu_bench.png)"]
    return f"{BENCHES[name]} {commit}:\n\n" + "\n".join(lines)


def solver_table(run: Path) -> str:
    """Every row of the comparison of solver settings; nothing if there is none."""
    rows = rows_of(run, "solver")
    if not rows:
        return ""
    lines = [
        "| solver | environments | env steps/s | ratio | overflowed | joints off the C "
        "engine's, RMS [rad] | object [mm] | penetration [mm] | 99% below [mm] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            *(row["variant"], f"{row['environments']:,}"),
            *(f"{row['env_steps_per_second']:,.0f}", f"{row['ratio']:.2f}"),
            *(f"{row['overflowed']:,}", f"{row['joints']:.1e}"),
            *(f"{1000 * row[x]:.3f}" for x in DEPTHS),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


DEPTHS = ("position", "penetration", "deepest_1_percent")
"""Columns of ``solver.json`` in metres."""


def sizes(run: Path, docs: Path) -> str:
    """The study of sizes and its picture; nothing if there is none."""
    study = run / "studies" / "sizes"
    if not (study / "table.md").exists():
        return ""
    shutil.copy(study / "study.png", docs / "gpu_sizes.png")
    return (study / "table.md").read_text(
        encoding="utf-8"
    ).strip() + "\n\n![sizes](gpu_sizes.png)"


def training(run: Path) -> str:
    """How the run went, and how its policy did; nothing if there is none."""
    if not (run / "evaluation.json").exists():
        return ""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    result = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    minutes = minutes_of(read_metrics(run))[-1:].sum()  # 0 if there was no time at all
    protocol = ", ".join(
        f"{name} {value}" for name, value in result["protocol"].items()
    )
    evaluations = "\n".join(
        f"- on {trials['engine']}: **{trials['mean']:.2f} ± "
        f"{trials['standard_error']:.2f} goals per trial**, median "
        f"{trials['median']:g}; {trials['drops']} drops, {trials['timeouts']} out of "
        f"time, {trials['completions']} complete"
        for trials in result["engines"]
    )
    trials = len(result["engines"][0]["goals"])
    physics = config["physics"]
    return (
        f"Training with {config['num_envs']:,} worlds, {physics['substeps']} x "
        f"{1000 * physics['timestep']:g} ms per step, randomization "
        f"{config['randomization']['preset']}: {result['env_steps']:,} env steps in "
        f"{minutes:.1f} minutes of iterations. Evaluated in {trials} trials "
        f"({protocol}):\n\n{evaluations}\n\n"
        "![goals per episode over wall-clock](gpu_curve.png)"
    )


def minutes_of(rows: list[dict]) -> np.ndarray:
    """Minutes of training at the end of each iteration, without pauses between runs."""
    return np.cumsum([row["seconds"] for row in rows]) / 60


def plot_over_time(run: Path, path: Path) -> None:
    """Draw goals per episode, as they were in training, over wall-clock."""
    rows = read_metrics(run)
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.plot(minutes_of(rows), [row["goals_per_episode"] for row in rows])
    axis.set(xlabel="minutes of training", ylabel="goals per episode")
    axis.grid(alpha=0.3)
    save_figure(figure, path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
