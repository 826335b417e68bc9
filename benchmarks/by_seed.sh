# To be sourced, with `reft` set. Runs in runs/seeds/SEED/NAME; what is finished is not done again. Two seeds side by side, a thread each.
. "$(dirname "${BASH_SOURCE[0]}")/go_on.sh"
export OMP_NUM_THREADS=1

stage() {  # SEED NAME CONFIG... : fit, then test once
  local seed=$1 run=runs/seeds/$1/$2
  shift 2
  mkdir -p "runs/seeds/$seed"
  [ -f "$run/predictions/unseen.jsonl" ] && return
  local common=(--seed_everything "$seed" --run_dir "$run")
  "$reft" fit "$@" "${common[@]}" >>"$run.log" 2>&1
  "$reft" test "$@" "${common[@]}" >>"$run.log" 2>&1
}

in_pairs() {  # FUNCTION SEED... : each is waited for by itself, since in a list with || bash would ignore what fails inside
  local run=$1
  shift
  while [ $# -gt 0 ]; do
    "$run" "$1" &
    local first=$!
    shift
    if [ $# -gt 0 ]; then
      "$run" "$1" &
      local second=$!
      shift
      wait "$second"
    fi
    wait "$first"
  done
}
