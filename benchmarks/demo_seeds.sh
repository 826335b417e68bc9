#!/usr/bin/env bash
# The embedded default over several seeds: warm-up, SFT at its best, ReFT on the same questions, ReFT with further ones.
#
#   benchmarks/demo_seeds.sh REFT_PL SEED...
#
# Runs go to runs/seeds/SEED/STAGE; what is finished is not done again. Two seeds run side by side, a thread each.
set -euo pipefail
reft=$1
shift
. "$(dirname "$0")/go_on.sh"
export OMP_NUM_THREADS=1

chain() {
  local seed=$1 run=runs/seeds/$1
  mkdir -p "$run"
  local common=(--seed_everything "$seed")
  stage() {  # NAME CONFIG... : fit, then test once
    local name=$1
    shift
    [ -f "$run/$name/predictions/unseen.jsonl" ] && return
    "$reft" fit "$@" "${common[@]}" --run_dir "$run/$name" >>"$run/$name.log" 2>&1
    "$reft" test "$@" "${common[@]}" --run_dir "$run/$name" >>"$run/$name.log" 2>&1
  }
  local from=(--model.policy.init_from "$run/warm-up/hf")
  stage warm-up --config configs/sft.yaml
  # The warm-up is the first half of the same schedule: SFT goes on from it, as from any run that was stopped.
  go_on "$run/warm-up" "$run/sft"
  stage sft --config configs/sft.yaml --config configs/stories/sft_long.yaml
  stage reft --config configs/ppo.yaml --config configs/stories/ppo_long.yaml "${from[@]}"
  stage reft-further --config configs/ppo.yaml --config configs/stories/further.yaml "${from[@]}"
  echo "seed $seed: done"
}

# Two at a time, in pairs. Each is waited for by itself: in a list with || bash would ignore what fails inside.
while [ $# -gt 0 ]; do
  chain "$1" &
  first=$!
  shift
  if [ $# -gt 0 ]; then
    chain "$1" &
    second=$!
    shift
    wait "$second"
  fi
  wait "$first"
done
"$reft" compare --markdown 'runs/seeds/*/warm-up' 'runs/seeds/*/sft' 'runs/seeds/*/reft' 'runs/seeds/*/reft-further'
