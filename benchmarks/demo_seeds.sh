#!/usr/bin/env bash
# The embedded default over several seeds: warm-up, SFT at its best, ReFT on the same questions, ReFT with further ones.
#
#   benchmarks/demo_seeds.sh REFT_PL SEED...
set -euo pipefail
reft=$1 runs=runs/seeds
shift
. "$(dirname "$0")/by_seed.sh"

chain() {
  local seed=$1
  local from=(--model.policy.init_from "$runs/$seed/warm-up/hf")
  stage "$seed" warm-up --config configs/sft.yaml
  # The warm-up is the first half of the same schedule: SFT goes on from it, as from any run that was stopped.
  go_on "$runs/$seed/warm-up" "$runs/$seed/sft"
  stage "$seed" sft --config configs/sft.yaml --config configs/stories/sft_long.yaml
  stage "$seed" reft --config configs/ppo.yaml --config configs/stories/ppo_long.yaml "${from[@]}"
  stage "$seed" reft-further --config configs/ppo.yaml --config configs/stories/further.yaml "${from[@]}"
}

for seed in "$@"; do
  in_background chain "$seed"
done
all_done
"$reft" compare --markdown "$runs"/'*'/{warm-up,sft,reft,reft-further}
