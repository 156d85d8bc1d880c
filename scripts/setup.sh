#!/bin/sh
# Make .venv and install what is missing; quick when nothing is. Usage: scripts/setup.sh EXTRA (dev, plot, docs)
set -eu
cd "$(dirname "$0")/.."
extra="${1:-plot}"
stamp=".venv/.installed-$extra"
want="$(cat pyproject.toml constraints.txt | cksum)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && [ -x .venv/bin/hearth ]; then exit 0; fi

python=""
for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$name"
        break
    fi
done
if [ -z "$python" ]; then
    echo "hearth: Python 3.11 or newer is needed; install it, or name it with PYTHON=/path/to/python3.11 make ..." >&2
    exit 2
fi
if ! [ -x .venv/bin/python ]; then
    echo "[1/2] making .venv with $("$python" --version)"
    "$python" -m venv .venv || { echo "hearth: the venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
fi

# PyTorch's CPU build is a tenth of the size of the default one on Linux; take it where pip finds it, else the default.
echo "[2/2] installing OpenHearth with its '$extra' extra (PyTorch is the large part: 200 MB and up; a minute or a few)"
log=".venv/install.log"
( .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt torch==2.13.0 &&
  .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e ".[$extra]" ) >"$log" 2>&1 &
pid=$!
began=$(date +%s)
while kill -0 "$pid" 2>/dev/null; do
    line="$(grep -E '^(Collecting|Downloading|Installing|Building|Preparing)' "$log" 2>/dev/null | tail -n 1 | cut -c 1-80)"
    now=$(date +%s)
    if [ -t 1 ]; then
        printf '\r\033[K      %4d s  %s' "$((now - began))" "$line"
        sleep 1
    else
        sleep 5
        printf '      %4d s  %s\n' "$(($(date +%s) - began))" "$line"
    fi
done
[ -t 1 ] && printf '\r\033[K'
if ! wait "$pid"; then
    tail -n 15 "$log" >&2
    echo "hearth: the installation failed; the whole log is in $log; mend the cause and run the same command again" >&2
    exit 2
fi
echo "$want" > "$stamp"
echo "      done in $(($(date +%s) - began)) s"
