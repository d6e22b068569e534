#!/bin/bash
# Slices of Cloud TPU through a queued resource, the same command on every host of every slice; JAX finds its peers from the machines'
# metadata. Written by `jaxnmt launch tpu_vm`. Run again, it takes the slices that are there and the run goes on.
set -euo pipefail
name=jaxnmt
place=(--zone=us-east5-a --project=mine)

if ! gcloud compute tpus queued-resources describe "$name" "${place[@]}" >/dev/null 2>&1; then
  gcloud compute tpus queued-resources create "$name" "${place[@]}" \
    --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --node-id=jaxnmt
fi

state=""
while [ "$state" != ACTIVE ]; do
  state=$(gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format='value(state.state)')
  echo "$name is $state"
  case "$state" in
    ACTIVE) ;;
    FAILED | SUSPENDED) echo "delete it with: gcloud compute tpus queued-resources delete $name --force ${place[*]}" >&2; exit 1 ;;
    *) sleep 30 ;;
  esac
done

# One shell on each host, so that the command finds what the set-up leaves: an environment, or what pip put into ~/.local/bin.
# shellcheck disable=SC2016  # a host's own $HOME and $PATH
gcloud alpha compute tpus queued-resources ssh "$name" "${place[@]}" --node=all --worker=all --command='set -e
export PATH="$HOME/.local/bin:$PATH" JAXNMT_DISTRIBUTED=auto
pip install '"'"'jaxnmt[gcs]'"'"' '"'"'jax[tpu]'"'"'
(exit $?)
jaxnmt train wmt14_big --run gs://bucket/big'
