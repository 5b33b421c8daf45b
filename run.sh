#!/usr/bin/env bash
# Sets everything up in .venv, then runs the main job or the tests:
#   bash run.sh                  the main job: experiment.yaml, to its end, its table and its report
#   bash run.sh FILE.yaml        another experiment
#   bash run.sh tests [ARG...]   ruff and the tests; arguments go to pytest
# PYTHON names the interpreter (python3), PORT the port of the web UI (8080).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

set_up() {
  local python=${PYTHON:-python3} extras=$1 stamp
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "run.sh: $python is $("$python" -V 2>&1); Python 3.11 is needed: name one with PYTHON=..." >&2
    exit 2
  }
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  export PATH="$PWD/.venv/bin:$PATH"  # trials are started with the python3 that comes first
  export PYTHONWARNINGS='ignore:pkg_resources is deprecated'  # by nnictl, which needs it
  stamp=".venv/installed$extras-$(cksum < pyproject.toml | tr ' ' -)"
  if [ ! -e "$stamp" ]; then
    echo "Installing into .venv (some minutes, some GB: PyTorch)"
    python -m pip install --quiet --disable-pip-version-check --editable ".$extras"
    touch "$stamp"
  fi
}

run_tests() {
  set_up '[test,rl]'
  ruff check .
  ruff format --check .
  # Tensors are small and a second thread only waits for the first: so two processes, a file of tests in one of them.
  # Experiments come after, alone: NNI gives a tuner ten seconds to connect, whatever else the machine does.
  export OMP_NUM_THREADS=1
  local status=0
  python -m pytest -m 'not experiment and not remote' --numprocesses 2 --dist loadfile "$@" || status=$?
  python -m pytest -m 'experiment and not remote' "$@" || { [ $? = 5 ] || status=1; }  # 5: none of those asked for
  [ $status != 5 ] || status=0
  return $status
}

run_experiment() {
  set_up ''
  # NNI's web server listens on all interfaces and asks nobody who they are: the prefix is the only lock it has.
  local config=$1 port=${PORT:-8080} prefix output id
  python -m trials check "$config"
  prefix=$(python -c 'import secrets; print(secrets.token_hex(8))')
  output=$(nnictl create --config "$config" --port "$port" --url_prefix "$prefix") ||
    { echo "$output"; exit 1; }
  id=$(sed -n 's/.*run "nnictl stop \([[:alnum:]]*\)".*/\1/p' <<< "$output")
  [ -n "$id" ] || { echo "$output"; exit 1; }
  trap "nnictl stop $id > /dev/null" EXIT  # expanded now: the variable is gone by then
  echo "Experiment $id; its web UI: http://127.0.0.1:$port/$prefix/"
  local status=0
  python -m analysis table "$id" --wait || status=$?
  python -m analysis report "$id" --out "report-$id"  # of a job that did not end well, too
  echo "Its web UI again: $PWD/.venv/bin/nnictl view $id --port $port   (without the prefix; see Safety in README.md)"
  return $status
}

case ${1:-experiment.yaml} in
  tests) shift; run_tests "$@" ;;
  -h | --help) sed -n '2,6s/^# //p' "${BASH_SOURCE[0]}" ;;
  *) run_experiment "${1:-experiment.yaml}" ;;
esac
