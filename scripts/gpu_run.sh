#!/usr/bin/env bash
# Everything that is worth measuring on a GPU, unattended, within a number of minutes:
# the bench on warp and mjx, then training that goes on from RUN's latest checkpoint (or
# begins), then an evaluation. Writes RUN/bench.json, RUN/bench.png, RUN/evaluation.json,
# RUN/learning_curve.png, and the section "On a GPU" of docs/results.md.
#
#   scripts/gpu_run.sh MINUTES [RUN] [option of train and bench ...]
#
# For example: scripts/gpu_run.sh 60 runs/gpu --randomization.preset all
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:?usage: scripts/gpu_run.sh MINUTES [RUN] [option ...]}
run=${2:-runs/gpu}
options=("${@:3}")
python=${PYTHON:-python}
begun=$SECONDS
mkdir -p "$run"

training_minutes() { # what is left, but a tenth of all, and no less than 2, to evaluate
    awk "BEGIN { end = ($minutes < 20) ? $minutes - 2 : $minutes * 0.9
                 print end - ($SECONDS - $begun) / 60 }"
}

# A quarter of the time, and no more than a table takes.
bench_minutes=$(awk "BEGIN { print ($minutes / 4 < 7.5) ? $minutes / 4 : 7.5 }")
"$python" -m mjx_dex.bench --max-minutes "$bench_minutes" \
    --json "$run/bench.json" --plot "$run/bench.png" \
    ${BENCH_OPTIONS:-} "${options[@]}" | tee "$run/bench.txt" || echo "bench failed"

resume=()
[ -e "$run/config.yaml" ] && resume=(--resume)
"$python" -m mjx_dex.train "${resume[@]}" --run-dir "$run" \
    --max-minutes "$(training_minutes)" ${TRAIN_OPTIONS:-} "${options[@]}"

"$python" -m mjx_dex.evaluate "$run" --json "$run/evaluation.json" \
    --task.goal.distribution uniform ${EVALUATE_OPTIONS:-} | tee "$run/evaluation.txt"

"$python" scripts/write_results.py "$run" "scripts/gpu_run.sh $*"
