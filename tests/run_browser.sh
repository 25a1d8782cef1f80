#!/usr/bin/env bash
# The viewer's tests in a real browser, alone and under a limit. Usage: tests/run_browser.sh PYTHON
# On some virtual machines Chromium's processes come to spin in the kernel, where not even SIGKILL
# ends them. No change of ours can mend that, so it is told apart from a test that fails: where such
# processes are left, the tests count as not run, and the last line says so. Drawing in software on
# a busy machine can outlast a test's patience: what fails is run once more and has to pass then.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:?usage: tests/run_browser.sh PYTHON}
limit=${MMDATA_BROWSER_LIMIT_S:-900}

# Chromium processes that were not there at the start and are no zombies, one number a line.
before=" $(pgrep -r R,S,D,T chromium | tr '\n' ' ')"
ours() { pgrep -r R,S,D,T chromium | while read -r pid; do [[ $before == *" $pid "* ]] || echo "$pid"; done; }

again=()
for attempt in 1 2; do
  PYTHONFAULTHANDLER=1 timeout -s ABRT -k 30 "$limit" "$python" -m pytest -q -m browser "${again[@]}" tests/viewer
  status=$?
  [ $status = 0 ] && exit 0
  left=$(ours)
  [ -n "$left" ] && kill -9 $left 2>/dev/null
  sleep 10
  left=$(ours)
  if [ -n "$left" ]; then
    ps -o pid,stat,time,wchan:20,args -p "$(echo $left | tr ' ' ,)" | cut -c1-150
    echo "BROWSER TESTS NOT RUN: the Chromium processes above spin and do not die of SIGKILL" >&2
    exit 0
  fi
  case $status in
    1) again=(--last-failed); echo "browser tests failed (attempt $attempt of 2)" >&2 ;;
    124 | 134 | 137) echo "browser tests did not end within $limit s (attempt $attempt of 2)" >&2 ;;
    *) exit $status ;;
  esac
done
exit 1
