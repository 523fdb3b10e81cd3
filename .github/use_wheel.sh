#!/bin/bash
# Build the wheel into dist/, install it, and use it in a folder that is no clone.
set -euo pipefail
clone=$PWD
shipped=$clone/checkpoints/pneumoniamnist
images=$clone/swys_utils/assets/pneumoniamnist_twin.npz
installed=$(mktemp -d)

uv build --wheel --out-dir dist
uv venv --python 3.12 "$installed/env"
uv pip install --python "$installed/env" dist/*.whl

cd "$installed"
env/bin/python -c "import swys; assert 'env' in swys.__file__"
env/bin/swys evaluate --ckpt_path "$shipped/vit_tiny"
code=0  # 1 and 2 are verdicts, too, so the written report counts
env/bin/swys compare "$shipped/vit_tiny" "$shipped/vit_tiny_answers" --data "$images" \
  --maps 8 --occlusions 4 --seconds 0.2 --html report.html --json report.json || code=$?
test -s report.html
test -s report.json
echo "swys compare ended with $code and wrote its report"
