#!/usr/bin/env bash
# `make anywhere`: the quick suite where another machine, another clock or another person has it. One line for each
# place: its name, green or red, seconds. As root on Linux, with a C compiler; a place that cannot be had is red.
#   tests/anywhere/run.sh                               all of them
#   tests/anywhere/run.sh clock-5-s settings            these
#   RUN='.venv/bin/pytest tests/tools' tests/anywhere/run.sh settings       other tests there
# LOGS: a directory that keeps the whole output of each. SEED: of the order of the tests, which is left to chance, so
# that each night others meet a clock of 5 s.
set -uo pipefail
cd "$(dirname "$0")/../.."

RUN=${RUN:-make -s quick}
SEED=${SEED:-$RANDOM}
export PYTEST_ADDOPTS="--random-order --random-order-seed=$SEED"
LONG=$(printf 'one-hundred-and-fifty-characters-%.0s' 1 2 3 4 5)
WORK=$(mktemp -d /tmp/anywhere-XXXX)
chmod 755 "$WORK"
trap 'rm -rf "$WORK"' EXIT

# The monotonic clock at so many seconds when the tests begin.
at_monotonic() {
  local offset
  offset=$(python3 -c "import time; print(round($1 - time.monotonic()))")
  unshare --time --fork --monotonic "$offset" --boottime "$offset" $RUN
}

# A copy of these files at this path, with a .venv of its own that has this one's libraries.
copy_to() {
  local python=$2 to=$1 version
  mkdir -p "$to"
  { git ls-files -z --cached --others --exclude-standard && printf '%s\0' python/noetl_worker/_core*.so; } |
    tar --null --ignore-failed-read -cf - -T - | tar -xf - -C "$to"
  "$python" -m venv --without-pip "$to/.venv"
  version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  printf '%s\n' "$to/python" "$PWD/.venv/lib/$version/site-packages" >"$to/.venv/lib/$version/site-packages/here.pth"
  # as pip writes a script whose interpreter's path has a space or is long
  printf '%s\n' '#!/bin/sh' "'''exec' \"$to/.venv/bin/python\" \"\$0\" \"\$@\"" "' '''" \
    'import sys' 'from pytest import console_main' 'sys.exit(console_main())' >"$to/.venv/bin/pytest"
  chmod 755 "$to/.venv/bin/pytest"
  touch "$to/.venv/.stamp"
}

# One that another user may start: an interpreter in root's home is root's own.
everybodys_python() {
  local name
  name=$(.venv/bin/python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  for python in "$(readlink -f .venv/bin/python)" "/usr/local/bin/$name" "/usr/bin/$name"; do
    as_nobody sh -c "exec $python -Ic ''" 2>/dev/null && echo "$python" && return
  done
  echo "no $name that nobody may start" >&2 && return 1
}

as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }

clock-5-s() { at_monotonic 5; }
clock-400-days() { at_monotonic $((400 * 86400)); }
# After the last second of 32 bits, for our processes alone: nats-server is linked statically, and no Postgres runs.
year-2038() {
  cc -shared -fPIC -O2 -Wall -o "$WORK/wall_clock.so" tests/anywhere/wall_clock.c &&
    env LD_PRELOAD="$WORK/wall_clock.so" WALL_CLOCK_AHEAD_S=$(($(date -d 2038-02-01 +%s) - $(date +%s))) $RUN
}
# A time zone of 45 minutes, no home, files that are nobody else's.
bare() { (umask 077 && env -u HOME TZ=Pacific/Chatham LC_ALL=C $RUN); }
# Somebody's settings and logins, a home in which nobody can write, and their worker, nats-server and Postgres beside.
settings() {
  env HOME=/proc NATS_URL=nats://me:word@localhost:4222 NATS_CONTEXT=mine NOETL_SERVER_URL=http://localhost:8082 \
    NOETL_WORKER_KINDS=shell NOETL_WORKER_ISOLATION=off NOETL_INTERNAL_API_TOKEN=mine NOETL_SECRETS_DIR=/nowhere \
    WORKER_ID=mine WORKER_MAX_CONCURRENT=1 LOG_LEVEL=debug PGHOST=localhost PGUSER=me PGPASSWORD=word \
    AWS_PROFILE=mine AWS_REGION=mars GOOGLE_APPLICATION_CREDENTIALS=/nowhere KUBERNETES_SERVICE_HOST=10.0.0.1 \
    HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9 COLUMNS=40 NO_COLOR=1 \
    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9 .venv/bin/python tests/anywhere/neighbours.py $RUN
}
space() { copy_to "$WORK/a space/of mine" .venv/bin/python && cd "$WORK/a space/of mine" && $RUN; }
# A path of 150 characters, of a user who is nobody.
nobody() {
  local python to="$WORK/$LONG"
  to=${to:0:150}
  python=$(everybodys_python) && copy_to "$to" "$python" && chown -R 65534:65534 "$to" && cd "$to" &&
    as_nobody env HOME=/nonexistent PATH=/usr/local/bin:/usr/bin:/bin $RUN
}
one-core() { taskset -c 0 $RUN; }

red=0
echo "SEED=$SEED"
for place in "${@:-clock-5-s clock-400-days year-2038 bare settings space nobody one-core}"; do
  for name in $place; do
    began=$SECONDS
    if ("$name") >"$WORK/$name.log" 2>&1; then colour=green; else colour=red red=1; fi
    printf '%-16s %-5s %4d s\n' "$name" $colour $((SECONDS - began))
    if [ $colour = red ]; then
      { grep -E '^(FAILED|ERROR)' "$WORK/$name.log" || tail -n 20 "$WORK/$name.log"; } | cut -c1-300
    fi
    if [ -n "${LOGS:-}" ]; then mkdir -p "$LOGS" && cp "$WORK/$name.log" "$LOGS"; fi
  done
done
exit $red
