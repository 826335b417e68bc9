#!/usr/bin/env bash
# SmolLM2-135M on SVAMP: warm-up, SFT trained on for about as long as ReFT takes, ReFT; Top-1 on all test questions, and 8 samples of 200
# of them with votes and a reranker each.
#
#   benchmarks/svamp.sh REFT_PL      needs models/smollm2-135m (make smollm2) and the authors' SVAMP files in data/
#
# Goes on where it was killed.
set -euo pipefail
reft=$1
at=(--config configs/data/svamp_python.yaml)
sft=(--config configs/sft.yaml "${at[@]}")
sample=(--config configs/sample.yaml "${at[@]}" --config configs/models/smollm2_135m_sample.yaml)

learned() {  # RUN CONFIG...: fit, then Top-1 on all test questions, then samples of the first 200
  local run=$1
  shift
  [ -f "runs/$run/results.json" ] || "$reft" fit "$@"
  [ -f "runs/$run/predictions/svamp.jsonl" ] || "$reft" test "$@"
  together "${sample[@]}" --run_dir "runs/$run" --data.test.svamp.limit 200
}

together() {  # ARGUMENT...: predict in two processes of one thread, which is faster than in one of two
  OMP_NUM_THREADS=1 "$reft" predict "$@" &
  local other=$!
  OMP_NUM_THREADS=1 "$reft" predict "$@" &
  wait "$other"
  wait $!
  "$reft" predict "$@"  # says what they came to
}

ranked() {  # RUN: a reranker on its trunk, taught by the warm-up's samples
  local at=(--config configs/reranker.yaml --config configs/models/smollm2_135m_reranker.yaml --run_dir "runs/$1-reranker"
    --model.policy.init_from "runs/$1/hf" --data.samples.svamp "runs/$1/samples/svamp.jsonl")
  [ -f "runs/$1-reranker/hf/config.json" ] || "$reft" fit "${at[@]}"
  "$reft" test "${at[@]}"
}

learned smollm2-sft "${sft[@]}" --config configs/models/smollm2_135m.yaml
learned smollm2-rloo --config configs/ppo.yaml "${at[@]}" --config configs/models/smollm2_135m_rloo.yaml
learned smollm2-sft-more "${sft[@]}" --config configs/models/smollm2_135m_sft_more.yaml
together "${sample[@]}" --run_dir runs/smollm2-sft --data.predict '[train,validation]' --trainer.limit_predict_batches 32
for run in smollm2-sft smollm2-sft-more smollm2-rloo; do
  ranked "$run"
done
"$reft" compare runs/smollm2-{sft,sft-more,rloo}
"$reft" report runs/smollm2-{sft,sft-more,rloo}{,-reranker} --output runs/svamp-table
