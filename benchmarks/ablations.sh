#!/usr/bin/env bash
# The paper's ablations on the embedded default over several seeds, and other estimators of the advantage on the same samples' budget.
#
#   benchmarks/ablations.sh REFT_PL SEED...
set -euo pipefail
reft=$1
shift
. "$(dirname "$0")/by_seed.sh"

chain() {
  local seed=$1
  local ppo=(--config configs/ppo.yaml) from=(--model.policy.init_from "runs/seeds/$seed/warm-up/hf")
  local groups=(--data.batch_size 64)  # times four samples each: the same rollout of 256
  stage "$seed" warm-up --config configs/sft.yaml
  stage "$seed" ppo "${ppo[@]}" "${from[@]}"
  stage "$seed" no-partial-reward "${ppo[@]}" "${from[@]}" --model.reward AnswerReward --model.reward.partial 0
  stage "$seed" no-kl "${ppo[@]}" "${from[@]}" --model.kl.coef 0
  stage "$seed" separate-value "${ppo[@]}" "${from[@]}" --model.separate_value_model true
  stage "$seed" short-warm-up --config configs/sft.yaml --trainer.max_epochs 5
  stage "$seed" ppo-short-warm-up "${ppo[@]}" --model.policy.init_from "runs/seeds/$seed/short-warm-up/hf"
  for algorithm in grpo rloo; do
    # As many rollouts: an epoch has four times as many of 64 questions.
    stage "$seed" "$algorithm" "${ppo[@]}" --config "configs/algorithms/$algorithm.yaml" "${groups[@]}" "${from[@]}" \
      --trainer.max_epochs 2 --trainer.limit_train_batches 20 --trainer.val_check_interval 8
  done
  echo "seed $seed: done"
}

in_pairs chain "$@"
"$reft" compare --markdown runs/seeds/'*'/{warm-up,ppo,no-partial-reward,no-kl,separate-value,short-warm-up,ppo-short-warm-up,grpo,rloo}
