#!/usr/bin/env bash
# Everything that is worth measuring on a GPU, unattended, within a number of minutes.
# Writes RUN/*.json, RUN/*.txt, RUN/*.png and the section "On a GPU" of docs/results.md.
#
#   scripts/gpu_run.sh MINUTES [RUN] [option of bench and train ...]
#
# STEPS names what is done, in this order; without it, "bench train":
#   bench   physics, task and whole iterations at 8,192, 16,384 and 32,768 environments,
#           without and with the whole menu, networks in float32 and tensorfloat32; then
#           the same of OLD, a checkout of another commit, if there is one
#   solver  solver settings and buffers: pace, distance from the C engine, penetration
#   sizes   goals over wall-clock for numbers of environments and horizons
#   train   training that continues RUN, or begins it, then an evaluation
#
# For example: STEPS="bench solver" scripts/gpu_run.sh 9 runs/gpu
#              STEPS=train scripts/gpu_run.sh 11 runs/gpu --randomization.preset all
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:?usage: scripts/gpu_run.sh MINUTES [RUN] [option ...]}
[[ $minutes =~ ^[0-9]*\.?[0-9]+$ ]] || {
    echo "error: MINUTES: $minutes is not a number above 0" >&2
    exit 2
}
# Written in the end.
[[ -w docs/results.md ]] && grep -q "<!-- gpu_run: begin -->" docs/results.md || {
    echo "error: docs/results.md cannot be written, or has no line <!-- gpu_run: begin -->" >&2
    exit 2
}
run=${2:-runs/gpu}
options=("${@:3}")
read -ra steps <<<"${STEPS:-bench train}"
python=${PYTHON:-python}
mkdir -p "$run"
out=$(realpath "$run")
# What MuJoCo Warp keeps is outside of what JAX reserves.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-.5}

share() { # minutes for one of $1 equal parts of those that are left
    awk "BEGIN { left = $minutes - $SECONDS / 60; print (left < 0) ? 0 : left / $1 }"
}

limited() { # MINUTES command ...: ended a minute later, and in time to write down the rest
    local seconds
    seconds=$(awk "BEGIN { mine = 60 * ($1 + 1); left = 60 * $minutes - $SECONDS - 45
                           if (left < mine) mine = left; print (mine < 1) ? 1 : mine }")
    timeout --foreground --kill-after=15 "$seconds" "${@:2}"
}

bench() { # FOLDER NAME MINUTES [option ...]: what the code in FOLDER reaches
    rm -f "$out/$2".*
    git -C "$1" describe --always --dirty >"$out/$2.commit" || true
    (cd "$1" && limited "$3" "$python" -m mjx_dex.bench --max-minutes "$3" \
        --json "$out/$2.json" --plot "$out/$2.png" "${@:4}" "${options[@]}") |
        tee "$out/$2.txt"
}

run_bench() { # PARTS
    # What tells most comes first: compiling may leave no time for all.
    local table="--engines warp --envs 8192 32768 16384 --menus all none --repeats 3
        --layers training physics task"
    local parts=$1 status=0
    [ -z "${OLD:-}" ] || parts=$((parts + 1))
    # shellcheck disable=SC2086
    bench . bench "$(share "$parts")" \
        ${BENCH_OPTIONS:-$table --precisions tensorfloat32 float32} || status=1
    if [ -n "${OLD:-}" ]; then
        # shellcheck disable=SC2086
        bench "$OLD" bench_old "$(share "$1")" ${OLD_BENCH_OPTIONS:-$table} || status=1
    fi
    return $status
}

run_solver() { # PARTS
    local time
    time=$(share "$1")
    rm -f "$out/solver".*
    # shellcheck disable=SC2086
    limited "$time" "$python" -m mjx_dex.solver --max-minutes "$time" \
        --json "$out/solver.json" \
        ${SOLVER_OPTIONS:---engine warp --envs 8448 16896 33792 --repeats 3} "${options[@]}" |
        tee "$out/solver.txt"
}

run_sizes() { # PARTS
    local time
    time=$(share "$1")
    # shellcheck disable=SC2086
    limited "$time" "$python" -m mjx_dex.ablate sizes --folder "$run/studies" \
        --trials 0 --max-minutes "$time" ${SIZES_OPTIONS:---minutes 3} "${options[@]}"
}

run_train() {
    # What is left, but a tenth, and no less than 2 minutes, to evaluate.
    local time resume=()
    time=$(awk "BEGIN { left = $minutes - $SECONDS / 60
                        print (left < 20) ? left - 2 : left * 0.9 }")
    awk "BEGIN { exit !($time < 1) }" && echo "train: no time is left" && return 1
    [ -e "$run/config.yaml" ] && resume=(--resume)
    rm -f "$out/evaluation".*
    # shellcheck disable=SC2086
    limited "$minutes" "$python" -m mjx_dex.train "${resume[@]}" --run-dir "$run" --max-minutes "$time" \
        ${TRAIN_OPTIONS:-} "${options[@]}" || return 1
    # shellcheck disable=SC2086
    limited "$minutes" "$python" -m mjx_dex.evaluate "$run" --json "$run/evaluation.json" \
        --task.goal.distribution uniform ${EVALUATE_OPTIONS:-} | tee "$run/evaluation.txt"
}

for step in "${steps[@]}"; do
    [[ " bench solver sizes train " == *" $step "* ]] || {
        echo "error: STEPS: $step is none of bench, solver, sizes, train" >&2
        exit 2
    }
done
failed=()
for k in "${!steps[@]}"; do
    # What was measured before is written down, whatever fails.
    "run_${steps[$k]}" $((${#steps[@]} - k)) || failed+=("${steps[$k]}")
done
command=${STEPS:+STEPS=${STEPS@Q} }scripts/gpu_run.sh$(printf " %q" "$@")
"$python" scripts/write_results.py "$run" "$command"
if [ ${#failed[@]} != 0 ]; then
    echo "error: failed: ${failed[*]}" >&2
    exit 1
fi
