#!/usr/bin/env bash
# Installs moe_jax into a virtual environment as a user would. Does nothing if nothing has changed.
#
#   scripts/setup.sh [EXTRAS]            EXTRAS: a comma-separated list such as dev or dev,tpu
#   scripts/setup.sh --stamp [EXTRAS]    only note that the sources as they are have been installed
#
# MOE_JAX_VENV  where the environment is (default: .venv in the repository)
# PYTHON        makes the environment (default: the first of python3, python3.12, python3.11,
#               python3.13 that can). 3.11 and 3.12 need wheels only; on 3.13 editdistance, which
#               seqio needs, is compiled; TensorFlow has no wheel for newer ones yet
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${MOE_JAX_VENV:-$root/.venv}"
stamp="$venv/.moe_jax_stamp"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

stamp_only=false
if [[ "${1:-}" == --stamp ]]; then
  stamp_only=true
  shift
fi
extras="${1:-}"
if (($# > 1)) || [[ ! "$extras" =~ ^[a-z,]*$ ]]; then
  echo "usage: scripts/setup.sh [--stamp] [EXTRAS]   (EXTRAS such as dev or dev,tpu)" >&2
  exit 2
fi

# Prints a Python's version and where its headers are; fails if it does not start.
about_python() {
  "$1" -c 'import sys, sysconfig
print("%d.%d" % sys.version_info[:2], sysconfig.get_paths()["include"])' 2>/dev/null
}

can_compile() { # INCLUDE_DIRECTORY
  [[ -f "$1/Python.h" ]] && command -v "${CXX:-g++}" >/dev/null
}

find_python() {
  local candidates=(python3 python3.12 python3.11 python3.13) candidate version include lacking=""
  local what="a C++ compiler and Python's headers (Debian, Ubuntu: build-essential, python3-dev)"
  if [[ -n "${PYTHON:-}" ]]; then
    candidates=("$PYTHON")
  fi
  for candidate in "${candidates[@]}"; do
    read -r version include < <(about_python "$candidate") || continue
    if [[ "$version" == 3.13 ]] && ! can_compile "$include"; then
      lacking="$candidate"
    elif [[ "$version" =~ ^3\.1[123]$ ]]; then
      if [[ -n "$lacking" ]]; then
        echo "setup: taking $candidate, for $lacking is Python 3.13, which needs $what" >&2
      fi
      echo "$candidate"
      return
    fi
  done
  if [[ -n "$lacking" ]]; then
    echo "setup: $lacking is Python 3.13, which needs $what; or set PYTHON to a 3.11 or 3.12" >&2
  else
    echo "setup: needs Python 3.11, 3.12 or 3.13, found none as ${candidates[*]}; set PYTHON to one" >&2
  fi
  return 1
}

# Prints what there is to do (nothing, code or all), the extras to have, and the new stamp. The
# stamp holds the extras, a hash of setup.py and a hash of the package's files.
plan() {
  "$venv/bin/python" - "$root" "$stamp" "$extras" <<'PYTHON'
import hashlib, pathlib, sys

root, stamp, extras = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]

def digest(paths):
    total = hashlib.sha256()
    for path in sorted(paths):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root)} {content}\n".encode())
    return total.hexdigest()

package = (p for p in (root / "moe_jax").rglob("*") if p.is_file() and p.suffix != ".pyc")
setup, code = digest([root / "setup.py"]), digest(package)
old = stamp.read_text().split() if stamp.exists() else ["", "", ""]
wanted = set(extras.split(",")) | set(old[0].split(","))
if old[1] != setup or wanted != set(old[0].split(",")) | {""}:
    todo = "all"
else:
    todo = "nothing" if old[2] == code else "code"
wanted = ",".join(sorted(wanted - {""}))
print(todo, wanted, f"{wanted}, {setup} {code}", sep="\n")
PYTHON
}

# Runs a command with its output in the log; shows the log's end if it fails.
logged() {
  if ! "$@" </dev/null >>"$work/log" 2>&1; then
    local log="${TMPDIR:-/tmp}/moe_jax-setup-$$.log"
    cp "$work/log" "$log"
    tail -n 12 "$log" >&2
    echo "setup: failed; the whole log is in $log" >&2
    exit 1
  fi
}

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

if ! "$venv/bin/python" -c "" 2>/dev/null; then
  python="$(find_python)"
  logged "$python" -m venv --clear "$venv"
fi

planned="$(plan)"
{ read -r todo && read -r extras && read -r new_stamp; } <<<"$planned"
if $stamp_only; then
  echo "$new_stamp" >"$stamp"
  exit
fi
if [[ "$todo" == nothing && -x "$venv/bin/moe-jax" ]]; then
  exit
fi

# From a copy: building inside the tree would leave files there that later builds pick up.
rm -f "$stamp"
mkdir "$work/source"
cp -R "$root"/{setup.py,pyproject.toml,MANIFEST.in,README.md,LICENSE,moe_jax} "$work/source"
package="$work/source${extras:+[$extras]}"
pip=("$venv/bin/python" -m pip install --progress-bar off)
if [[ "$todo" == code ]]; then
  echo "setup: installing the changed sources into $venv (a few seconds)"
  logged "${pip[@]}" --no-deps --no-build-isolation --force-reinstall "$work/source"
else
  echo "setup: installing moe_jax${extras:+[$extras]} into $venv (first time 2 to 5 minutes, 3.4 GB)"
  # setuptools and wheel let later changes of the sources be installed without the network.
  logged "${pip[@]}" "$package" "setuptools>=77" wheel
fi
echo "$new_stamp" >"$stamp"
