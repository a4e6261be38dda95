#!/usr/bin/env bash
# Holds our benchmarks against rivals on this machine, in the same minutes: numpy and PyTorch in two processes of one thread
# each, onnxruntime with one thread, and the peak of a core. Ours and theirs take turns; the medians, their ratio and the goal
# make a table. Exit code 1: a goal was missed, a side did not run, or a benchmark of ours allocated.
#
#   bench/compare.sh [-n TURNS] [-d DRIVERS] [WORD...]
#
# Words choose rows that contain one of them, such as train or lstm. TURNS is 3 unless said. DRIVERS is a directory with
# other numpy_loop.py and torch_loop.py that take the same arguments. It needs Go, two cores, python3 with numpy and PyTorch
# (Debian: python3-numpy libopenblas0-pthread python3-torch; PYTHON names another interpreter), node and npm.
set -u
cd "$(dirname "$0")" || exit 2
turns=3 drivers=$PWD python=${PYTHON:-/usr/bin/python3}
while getopts n:d: option; do
  case $option in
  n) turns=$OPTARG ;;
  d) drivers=$(cd "$OPTARG" && pwd) || exit 2 ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))

# name, goal of the ratio, and what runs against it: a driver with its arguments, onnxruntime, or the peak.
rows='train/2nn/b10     1.6   numpy mlp --batch 10 --rounds 8
train/2nn/b32     1.3   numpy mlp --batch 32 --rounds 8
train/logreg/b10  1.6   numpy logreg --batch 10 --rounds 16
train/logreg/b32  1.5   numpy logreg --batch 32 --rounds 16
train/cnn512/b10  1.25  torch cnn512 --batch 10 --rounds 2 --cohort 10
train/cnn512/b32  1.25  torch cnn512 --batch 32 --rounds 2 --cohort 10
train/lstm/b10    1.25  torch lstm --batch 10 --rounds 2 --cohort 2
train/rec_mlp/b10 6     torch rec_mlp --batch 10 --rounds 3 --cohort 20
train/rec_lstm/b10 6    torch rec_lstm --batch 10 --rounds 3 --cohort 10
gemm/NN/32x200x784 .70  peak
gemm/TN/784x200x10 .50  peak
gemm/NT/32x200x200 .50  peak
predict/purchase  1     onnxruntime
predict/mlp       1     onnxruntime
predict/cnn       1     onnxruntime
predict/lstm20    1     onnxruntime
simulate/2nn/b10/cohort50     .65 numpy mlp --batch 10 --rounds 16 --cohort 25
simulate/logreg/b10/cohort50  .7  numpy logreg --batch 10 --rounds 32 --cohort 25
simulate/cnn512/b10/cohort50  .85 torch cnn512 --batch 10 --rounds 2 --cohort 25'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for package in model model/kernel simulate; do go test -c -o "$work/${package#*/}" "../$package" || exit 2; done

# OpenBLAS of Debian 12 does not know newer processors and takes kernels of 2004 for them, unless it is told which to take.
core() {
  local flags
  flags=$(grep -m 1 '^flags' /proc/cpuinfo)
  case $flags in
  *avx512_bf16*) echo SapphireRapids ;;
  *avx512f*) echo SkylakeX ;;
  *) echo Haswell ;;
  esac
}
export OPENBLAS_CORETYPE=${OPENBLAS_CORETYPE:-$(core)} OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# directory PACKAGE: where its tests expect to run.
directory() {
  case $1 in
  kernel) echo ../model/kernel ;;
  *) echo "../$1" ;;
  esac
}

# benchmark PACKAGE NAME TIME CORES UNIT: the figure before the unit in what a benchmark prints. One that counts what it
# allocates should allocate nothing.
benchmark() {
  local pattern="^Benchmark${2//\//\$/^}\$"
  (cd "$(directory "$1")" && "$work/$1" -test.run - -test.bench "$pattern" -test.benchtime "$3" -test.cpu "$4" 2>>"$work/errors") |
    awk -v unit="$5" -v allocating="$work/allocating" '/^Benchmark/ {
      for (i = 2; i <= NF; i++) {
        if ($i == unit && !found) { print $(i - 1); found = 1 }
        if ($i == "B/op" && $(i - 1) > 0) print $1, $(i - 1), $i >>allocating
      }
    }'
}

# processes DRIVER ARGUMENTS...: samples a second of two processes together; of a round, half of it in each, the seconds.
processes() {
  local round=$1 driver=$2 k
  shift 2
  for k in 1 2; do
    "$python" "$drivers/${driver}_loop.py" "$@" >"$work/process$k" 2>>"$work/errors" &
  done
  wait
  if $round; then
    cat "$work"/process[12] | grep -o '"s_per_round": *[0-9.]*' | awk '{ sum += $2 } END { if (NR == 2) print sum / 2 }'
  else
    cat "$work"/process[12] | grep -o '"samples_per_s": *[0-9.]*' | awk '{ sum += $2 } END { if (NR == 2) print sum }'
  fi
}

ours() { # of a row
  case $1 in
  train/*) benchmark model "Train/${1#train/}" 2s 2 samples/s ;;
  gemm/*) benchmark kernel "Gemm/${1#gemm/}" 1s 1 GFLOP/s ;;
  predict/*) benchmark model "Predict/${1#predict/}" 1s 1 ns/op ;;
  simulate/*) benchmark simulate "Simulate/${1#simulate/}" 2s 2 s/round ;;
  esac
}

theirs() { # name, rival, arguments
  local name=$1 round=false
  shift
  [[ $name == simulate/* ]] && round=true
  case $1 in
  peak) benchmark kernel Peak 1s 1 GFLOP/s ;;
  onnxruntime) benchmark model "Onnxruntime/${name#predict/}" 1000x 1 ns/op ;;
  *) processes $round "$@" ;;
  esac
}

median() { sort -g "$1" | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'; }

chosen() { # whether a row has one of the words
  local name=$1 word
  shift
  [ $# -eq 0 ] && return 0
  for word in "$@"; do [[ $name == *$word* ]] && return 0; done
  return 1
}

printf '%s, %d turns, kernels of OpenBLAS: %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$turns" "$OPENBLAS_CORETYPE"
printf '%-30s %-12s %14s %14s %7s %6s\n' row rival ours theirs ratio goal
missed=0
while read -r name goal rival arguments; do
  chosen "$name" "$@" || continue
  : >"$work/ours"
  : >"$work/theirs"
  for ((turn = 0; turn < turns; turn++)); do
    ours "$name" </dev/null >>"$work/ours"
    theirs "$name" "$rival" $arguments </dev/null >>"$work/theirs"
  done
  awk -v name="$name" -v rival="$rival" -v goal="$goal" -v a="$(median "$work/ours")" -v b="$(median "$work/theirs")" 'BEGIN {
    if (a == "" || b == "") {
      printf "%-30s %-12s %14s %14s %7s %6s  did not run\n", name, rival, a == "" ? "-" : a, b == "" ? "-" : b, "-", goal
      exit 1
    }
    # Times of a prediction: ours into theirs. Of a round: what part of theirs ours is, which may be at most the goal.
    part = name ~ /^simulate/
    ratio = name ~ /^predict/ ? b / a : a / b
    missed = part ? ratio > goal : ratio < goal
    form = part ? "%-30s %-12s %14.4f %14.4f %7.2f %6s%s\n" : "%-30s %-12s %14.1f %14.1f %7.2f %6s%s\n"
    printf form, name, rival, a, b, ratio, (part ? "<=" : "") goal, missed ? "  missed" : ""
    exit missed
  }' || missed=1
done <<<"$rows"
cat "$work/errors" >&2
if [ -s "$work/allocating" ]; then
  printf 'allocates, want 0:\n%s\n' "$(cat "$work/allocating")"
  missed=1
fi
exit $missed
