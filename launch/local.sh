#!/bin/bash
# N processes of one jaxnmt command on this computer, which find each other over loopback:
#
#   launch/local.sh N VERB ...     such as: launch/local.sh 2 train quickstart
#
# JAXNMT is the command to start (default: jaxnmt). SIGTERM and Ctrl-C are passed on; the exit status is the worst of the processes'.
# Once one has failed the others have 60 seconds to leave, because they may be waiting for it.
set -u
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || [ $# -lt 2 ]; then
  echo "usage: $0 N VERB ..., such as: $0 2 train quickstart" >&2
  exit 2
fi
count=$1
shift
port=${JAXNMT_PORT:-$((20000 + RANDOM % 12000))}

processes=()
for ((index = 0; index < count; index++)); do
  JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count JAX_PROCESS_ID=$index ${JAXNMT:-jaxnmt} "$@" <&0 &
  processes+=($!)
done
trap 'kill -TERM "${processes[@]}" 2>/dev/null' TERM INT

worst=0
left=$count
while [ "$left" -gt 0 ]; do
  wait -n
  status=$?
  jobs >/dev/null # forget the one that ended
  running=$(jobs -rp | wc -l)
  [ "$running" -eq "$left" ] && continue # a signal, not an end
  left=$((left - 1))
  [ "$status" -gt "$worst" ] && worst=$status
  if [ "$status" -ne 0 ] && [ -z "${deadline:-}" ]; then
    deadline=60
    (sleep $deadline; kill -KILL "${processes[@]}" 2>/dev/null) &
    reaper=$!
    disown $reaper
  fi
done
[ -n "${reaper:-}" ] && kill "$reaper" 2>/dev/null
exit "$worst"
