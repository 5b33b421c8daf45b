#!/usr/bin/env bash
# Sets everything up in .venv, then runs the main job or the tests:
#   bash run.sh                     the main job: experiment.yaml, to its end, its table and its report
#   bash run.sh FILE.yaml           another experiment
#   bash run.sh resume ID           go on with an experiment that was stopped
#   bash run.sh tests [ARG...]      ruff and the tests; arguments go to pytest
#   bash run.sh tests --quick ...   those of less than two seconds, without experiments
#   bash run.sh --cpu ...           install PyTorch without CUDA first (docs/machines.md)
# PYTHON names the interpreter (3.11 to 3.14), PORT the port of the web UI (8080, or the next free one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
trap 'exit 130' INT

# Ctrl-C waits until a program asks for it: a Python that still starts would end in a traceback.
patient=()
if env --block-signal=INT true 2> /dev/null; then  # GNU's
  patient=(env --block-signal=INT)
fi

find_python() {
  local name names=(python3 python3.14 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    if "${patient[@]}" "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2> /dev/null; then
      echo "$name"
      return
    fi
  done
  echo "run.sh: no Python of 3.11 to 3.14 is called ${names[*]}: install one, or name it with PYTHON=..." >&2
  return 2
}

set_up() {
  local python
  python=$(find_python)
  "${patient[@]}" "$python" trials/installation.py "$@"
  export PATH="$PWD/.venv/bin:$PATH"  # trials are started with the python3 that comes first
  export PYTHONWARNINGS='ignore:pkg_resources is deprecated'  # by nnictl, which needs it
}

run_tests() {
  ruff check .
  ruff format --check .
  # Tensors are small and a second thread only waits for the first: so two processes, a file of tests in one of them.
  # Experiments come after, also two at once: much of their time is waiting. Status 5: none of those asked for.
  export OMP_NUM_THREADS=1
  local status=0 quick=''
  if [ "${1:-}" = --quick ]; then
    quick=' and not slow'
    shift
  fi
  python -m pytest -m "not experiment and not remote$quick" --numprocesses 2 --dist loadfile "$@" || status=$?
  if [ -z "$quick" ]; then
    python -m pytest -m 'experiment and not remote' --numprocesses 2 --dist loadfile "$@" || { [ $? = 5 ] || status=1; }
  fi
  [ $status != 5 ] || status=0
  return $status
}

cpu=()
if [ "${1:-}" = --cpu ]; then
  cpu=(--cpu)
  shift
fi
case ${1-experiment.yaml} in
  tests) shift; set_up '[test,rl]' "${cpu[@]}"; run_tests "$@" ;;
  resume) set_up '' "${cpu[@]}"; exec "${patient[@]}" python -m trials.run_experiment --resume "${2:-}" ;;
  -h | --help) sed -n '2,9s/^# //p' "${BASH_SOURCE[0]}" ;;
  *) set_up '' "${cpu[@]}"; exec "${patient[@]}" python -m trials.run_experiment "${1-experiment.yaml}" ;;
esac
