#!/usr/bin/env bash
# Runs one moe-jax command as several processes on this machine, on virtual CPU devices:
#
#   scripts/launch_local.sh PROCESSES DEVICES_EACH -- moe-jax-arguments...
#   scripts/launch_local.sh 2 4 -- train --gin_file=runs/quickstart.gin --output_dir=runs/two
#
# Process 0 writes to this terminal; the output of the others goes to files, which are named if a
# process fails. SIGINT and SIGTERM go to all processes. The exit code is that of the first process
# that fails; the others are then ended.
set -euo pipefail

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" >&2
  exit 2
}
[[ $# -ge 4 && "$1" =~ ^[1-9][0-9]*$ && "$2" =~ ^[1-9][0-9]*$ && "$3" == "--" ]] || usage
processes=$1 devices=$2
shift 3

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${MOE_JAX_PYTHON:-}"
for candidate in "${MOE_JAX_VENV:-$root/.venv}/bin/python" python3; do
  [[ -n "$python" ]] || python="$(command -v "$candidate" || true)"
done
port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
logs="$(mktemp -d "${TMPDIR:-/tmp}/moe-jax-processes.XXXXXX")"
export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"

pids=()
signal_all() {
  for pid in "${pids[@]}"; do kill -s "$1" "$pid" 2>/dev/null || true; done
}
trap 'signal_all INT' INT
trap 'signal_all TERM' TERM

# Job control: every process is a group of its own and hears of Ctrl-C from here, once.
set -m
for ((i = 0; i < processes; i++)); do
  command=("$python" -m moe_jax.cli "$@" "--cpu_devices=$devices")
  if ((processes > 1)); then
    command+=("--coordinator=127.0.0.1:$port" "--num_processes=$processes" "--process_id=$i")
  fi
  if ((i == 0)); then
    "${command[@]}" </dev/null &
  else
    "${command[@]}" </dev/null >"$logs/process_$i.log" 2>&1 &
  fi
  pids+=($!)
done
set +m

alive() { kill -0 "$1" 2>/dev/null; }

# Waits for every process; a signal interrupts `wait`, so it is asked again.
code=0 running=("${pids[@]}") grace=-1
while ((${#running[@]})); do
  left=()
  for pid in "${running[@]}"; do
    if alive "$pid"; then
      left+=("$pid")
      continue
    fi
    status=0
    wait "$pid" || status=$?
    if ((status && !code)); then
      code=$status
      # Tenths of seconds that the others have to end by themselves, as they mostly do.
      grace=150
    fi
  done
  running=("${left[@]+"${left[@]}"}")
  if ((grace == 0)); then signal_all TERM; fi
  if ((grace == -50)); then signal_all KILL; fi
  if ((code)); then grace=$((grace - 1)); fi
  if ((${#running[@]})); then sleep 0.1 || true; fi
done

if ((code && code < 128 && processes > 1)); then
  echo "launch_local.sh: a process ended with $code; the output of the others is in $logs" >&2
else
  rm -rf "$logs"
fi
exit "$code"
