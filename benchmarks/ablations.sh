#!/usr/bin/env bash
# The paper's ablations on the embedded default over several seeds, and other estimators of the advantage on the same samples' budget.
#
#   benchmarks/ablations.sh REFT_PL SEED...
set -euo pipefail
reft=$1 runs=runs/ablations
shift
. "$(dirname "$0")/by_seed.sh"

ppo() {  # SEED NAME WARM-UP SETTING...
  local seed=$1 name=$2 from=$3
  shift 3
  # 24 rollouts of 256, instead of the demo's 40: PPO's epochs are as long, and the others' are cut to it.
  in_background stage "$seed" "$name" --config configs/ppo.yaml --model.policy.init_from "$runs/$seed/$from/hf" \
    --trainer.max_epochs 3 --trainer.limit_train_batches 8 "$@"
}

for seed in "$@"; do
  in_background stage "$seed" warm-up --config configs/sft.yaml
  in_background stage "$seed" short-warm-up --config configs/sft.yaml --trainer.max_epochs 5
done
all_done
for seed in "$@"; do
  ppo "$seed" ppo warm-up
  ppo "$seed" no-partial-reward warm-up --model.reward AnswerReward --model.reward.partial 0
  ppo "$seed" no-kl warm-up --model.kl.coef 0
  ppo "$seed" separate-value warm-up --model.separate_value_model true
  ppo "$seed" ppo-short-warm-up short-warm-up
  ppo "$seed" prefixes-short-warm-up short-warm-up --config configs/algorithms/prefix_curriculum.yaml
  ppo "$seed" annotated warm-up --config configs/algorithms/annotated.yaml
  for algorithm in grpo rloo; do
    ppo "$seed" "$algorithm" warm-up --config "configs/algorithms/$algorithm.yaml" --data.batch_size 64  # four samples each
  done
done
all_done
"$reft" compare --markdown "$runs"/'*'/{warm-up,ppo,no-partial-reward,no-kl,separate-value,annotated,short-warm-up,ppo-short-warm-up,prefixes-short-warm-up,grpo,rloo}
