# To be sourced, with `reft` and `runs` set. Runs in $runs/SEED/NAME; what is finished is not done again. Two at a time, a thread each.
. "$(dirname "${BASH_SOURCE[0]}")/go_on.sh"
export OMP_NUM_THREADS=1
set -m  # each job is a process group, so that the script's end is the end of all of it
trap 'for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done; wait' EXIT

stage() {  # SEED NAME CONFIG... : fit, then test once
  local seed=$1 run=$runs/$1/$2
  shift 2
  mkdir -p "$runs/$seed"
  [ -f "$run/predictions/unseen.jsonl" ] && return
  local common=(--seed_everything "$seed" --run_dir "$run")
  "$reft" fit "$@" "${common[@]}" >>"$run.log" 2>&1
  "$reft" test "$@" "${common[@]}" >>"$run.log" 2>&1
  echo "$run: done"
}

in_background() {  # FUNCTION ARGUMENT... : once fewer than two are at work
  while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
  "$@" &
}

all_done() {  # a failure of any ends the script, as it does in in_background
  while [ -n "$(jobs -p)" ]; do wait -n; done
}
