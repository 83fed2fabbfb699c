#!/usr/bin/env bash
# Builds the wheel and uses it as somebody does who has no checkout: in an empty
# environment and another folder, trains for a minute, evaluates, runs the hand.
#
# check_wheel.sh [PYTHON]; by default the newest that is supported and here.
set -euo pipefail
cd "$(dirname "$0")/.."

newest_python() {
    local version candidate
    for version in 3.13 3.12 3.11; do
        for candidate in "python$version" "$HOME/.pyenv/versions/$version".*/bin/python; do
            # pyenv has shims of versions that are not switched on, and Debian has
            # Pythons that cannot make environments.
            if "$candidate" -c "import ensurepip" 2>/dev/null; then
                echo "$candidate"
                return
            fi
        done
    done
    echo python3
}

python=${1:-$(newest_python)}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# From a copy: building in place leaves build/ and *.egg-info behind.
mkdir "$folder/source"
cp -r mjx_dex robot_bridge pyproject.toml README.md LICENSE NOTICE "$folder/source"
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" wheel -q --no-deps -w "$folder/wheel" "$folder/source"
rm -r "$folder/source"
"$folder/venv/bin/pip" install -q "$(echo "$folder"/wheel/*.whl)[robot]"

cd "$folder"
unset PYTHONPATH
python="$folder/venv/bin/python"
"$python" -c '
import sys, jax, mjx_dex, robot_bridge
for module in (mjx_dex, robot_bridge):
    assert "site-packages" in module.__file__, module.__file__
print(f"wheel: Python {sys.version.split()[0]}, JAX {jax.__version__}")'

left() {
    local file
    for file in "$@"; do
        [ -s "$file" ] || { echo "error: the wheel left no $file" >&2; exit 1; }
    done
}

"$python" -m mjx_dex.train --max-minutes 1 --run-dir run
left run/config.yaml run/lineage.json run/checkpoints
[ -s run/metrics.jsonl ] || echo "too busy: compiling alone took the minute" >&2
"$python" -m mjx_dex.evaluate run --trials 4 --task.goal.seconds 4 --json trials.json
left trials.json
# Its status says whether a trial ended by itself, for which the time is too short. On
# busy cores messages are late, and the limits of their ages would hold the hand.
"$python" -m robot_bridge.run near.dex --minutes 0.2 --json hand.json --keep-going \
    --joints-age 2 --pose-age 2 || true
left hand.json runs/bridge/*.mcap
"$python" - <<'PYTHON'
import json

assert len(json.load(open("trials.json"))["engines"][0]["goals"]) == 4
hand = json.load(open("hand.json"))
assert len(hand["took"]) > 20, f"{len(hand['took'])} ticks in 12 seconds"
PYTHON
[ ! -e MUJOCO_LOG.TXT ]
echo "the wheel trains, evaluates and runs the hand"
