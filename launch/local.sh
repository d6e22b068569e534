#!/bin/bash
# N processes of one jaxnmt command on this computer, which find each other over loopback:
#
#   launch/local.sh N VERB ...     such as: launch/local.sh 2 train quickstart
#
# JAXNMT_PYTHON is an interpreter that has jaxnmt (default: the command jaxnmt), JAXNMT_PORT the port of process 0 (default: by chance).
# SIGTERM, SIGHUP and Ctrl-C are passed on as SIGTERM; the exit status is the worst of the processes'. When one fails the others are ended by JAX, in a
# hundred seconds at most.
set -u
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || [ $# -lt 2 ]; then
  echo "usage: $0 N VERB ..., such as: $0 2 train quickstart" >&2
  exit 2
fi
count=$1
shift
jaxnmt=(jaxnmt)
if [ -n "${JAXNMT_PYTHON:-}" ]; then jaxnmt=("$JAXNMT_PYTHON" -P -m jaxnmt); fi
port=${JAXNMT_PORT:-$((20000 + RANDOM % 12000))}

processes=()
signalled=""
trap 'signalled=yes; kill -TERM "${processes[@]}" 2>/dev/null' TERM INT HUP # HUP that nohup ignores stays ignored
for ((index = 0; index < count; index++)); do
  JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count JAX_PROCESS_ID=$index "${jaxnmt[@]}" "$@" <&0 &
  processes+=($!)
done

worst=0
for process in "${processes[@]}"; do
  status=127
  while [ "$status" -eq 127 ] || [ -n "$signalled" ]; do
    signalled=""
    wait "$process"
    now=$?
    [ "$now" -eq 127 ] && break
    status=$now # or 143, because a signal ended the wait and not the process: then once more
  done
  [ "$status" -gt "$worst" ] && worst=$status
done
exit "$worst"
