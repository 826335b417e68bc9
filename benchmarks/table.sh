#!/usr/bin/env bash
# The paper's table on the embedded default: warm-up, SFT at its best, offline and online self-training, ReFT, each with votes
# and a reranker.
#
#   benchmarks/table.sh REFT_PL
#
# Runs go where the configs say (runs/sft, runs/ppo, ...), so it goes on from `make demo`, and from itself where it was killed.
# After the warm-up two chains run side by side, a thread each; what they print goes to runs/logs.
set -euo pipefail
reft=$1
here=$(dirname "$0")
. "$here/go_on.sh"
mkdir -p runs/logs

evaluate() {  # RUN CONFIG...: greedy Top-1 of both test sets, and 16 samples of the ordinary questions
  local run=$1
  shift
  [ -f "runs/$run/predictions/unseen.jsonl" ] || "$reft" test "$@"
  "$reft" predict --config configs/sample.yaml --run_dir "runs/$run" --data.predict '[ordinary]'
}

rerank() {  # RUN: a reranker on this policy's trunk, taught by the warm-up's samples in one pass, for this policy's samples
  local run=$1
  local at=(--config configs/reranker.yaml --run_dir "runs/$run-reranker" --model.policy.init_from "runs/$run/hf"
    --trainer.max_epochs 1
    --data.samples "{train: $learn/train.jsonl, validation: $learn/validation.jsonl, ordinary: runs/$run/samples/ordinary.jsonl}")
  "$reft" fit "${at[@]}"
  "$reft" test "${at[@]}"
}

row() {  # RUN CONFIG...
  local run=$1
  shift
  {
    "$reft" fit "$@"
    evaluate "$run" "$@"
    rerank "$run"
  } >"runs/logs/$run.log" 2>&1
  echo "runs/$run: done"
}

"$reft" fit --config configs/sft.yaml
evaluate sft --config configs/sft.yaml
learn=runs/sft/samples
"$reft" predict --config configs/sample.yaml --run_dir runs/sft --model.n 8 --data.predict '[train,validation]'

export OMP_NUM_THREADS=1
(
  go_on runs/sft runs/sft-long
  row sft-long --config configs/sft.yaml --config configs/stories/sft_long.yaml
  row offline --config configs/sft.yaml --config configs/offline_self_training.yaml
) &
first=$!
(
  "$reft" fit --config configs/ppo.yaml >runs/logs/ppo.log 2>&1
  go_on runs/ppo runs/ppo-long
  row ppo-long --config configs/ppo.yaml --config configs/stories/ppo_long.yaml
  row online --config configs/online_self_training.yaml
  rerank sft >runs/logs/sft-reranker.log 2>&1
) &
second=$!
wait "$first"
wait "$second"
"$reft" report runs/{sft,sft-long,offline,online,ppo-long}{,-reranker} --output runs/table
