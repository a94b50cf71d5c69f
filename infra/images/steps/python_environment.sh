#!/bin/sh
# Solon's Python environment: python_environment.sh REQUIREMENTS cpu|cuda FOLDER. Run by the Dockerfiles as root.
# uv comes pinned from image-tools.txt; its sources are its own variables' (UV_DEFAULT_INDEX, UV_FIND_LINKS), if set.
set -eu
requirements=$1 accelerator=$2 folder=$3

python3 -m venv /build/tools
/build/tools/bin/pip install --quiet --no-cache-dir -r "$requirements/image-tools.txt"

backend=""
case "$accelerator" in
    cpu)
        # a folder of wheels may hold torch's CPU build already
        ls "${UV_FIND_LINKS:-/nowhere}"/torch-*+cpu-*.whl >/dev/null 2>&1 || backend="--torch-backend=cpu"
        ;;
    cuda) ;; # the wheel that the registry has for Linux brings CUDA's libraries; the driver is the machine's
    *) echo "python_environment.sh: '$accelerator' is no accelerator; expected cpu or cuda" >&2; exit 2 ;;
esac

export UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
/build/tools/bin/uv venv --quiet --python /usr/bin/python3 "$folder"
# shellcheck disable=SC2086  # none or one
/build/tools/bin/uv pip install --quiet --compile-bytecode --python "$folder/bin/python" $backend \
    -r "$requirements/image.txt"

"$folder/bin/python" - "$accelerator" <<'CHECK'
import sys
import torch
built = "cuda" if torch.version.cuda else "cpu"
if built != sys.argv[1]:
    sys.exit(f"python_environment.sh: torch {torch.__version__} is built for {built}, expected {sys.argv[1]}")
print(f"torch {torch.__version__}, built for {built}")
CHECK
