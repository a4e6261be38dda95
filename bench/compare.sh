#!/usr/bin/env bash
# Holds our benchmarks against rivals on this machine, in the same minutes: numpy and PyTorch in two processes of one thread
# each, onnxruntime with one thread, and the peak of a core. Ours and theirs take turns; the medians, their ratio and the goal
# make a table. Exit code 1: a goal was missed, or a side did not run.
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
predict/lstm20    1     onnxruntime'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go test -c -o "$work/model" ../model && go test -c -o "$work/kernel" ../model/kernel || exit 2

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

# benchmark PACKAGE NAME TIME CORES UNIT: the figure before the unit in what a benchmark prints.
benchmark() {
  local pattern="^Benchmark${2//\//\$/^}\$"
  (cd "../model/${1#model}" && "$work/$1" -test.run - -test.bench "$pattern" -test.benchtime "$3" -test.cpu "$4" 2>>"$work/errors") |
    awk -v unit="$5" '/^Benchmark/ { for (i = 2; i <= NF; i++) if ($i == unit) { print $(i - 1); exit } }'
}

# processes DRIVER ARGUMENTS...: samples a second of two processes together.
processes() {
  local driver=$1 k
  shift
  for k in 1 2; do
    "$python" "$drivers/${driver}_loop.py" "$@" >"$work/process$k" 2>>"$work/errors" &
  done
  wait
  cat "$work"/process[12] | grep -o '"samples_per_s": *[0-9.]*' | awk '{ sum += $2 } END { if (NR == 2) print sum }'
}

ours() { # of a row
  case $1 in
  train/*) benchmark model "Train/${1#train/}" 2s 2 samples/s ;;
  gemm/*) benchmark kernel "Gemm/${1#gemm/}" 1s 1 GFLOP/s ;;
  predict/*) benchmark model "Predict/${1#predict/}" 1s 1 ns/op ;;
  esac
}

theirs() { # name, rival, arguments
  local name=$1
  shift
  case $1 in
  peak) benchmark kernel Peak 1s 1 GFLOP/s ;;
  onnxruntime) benchmark model "Onnxruntime/${name#predict/}" 1000x 1 ns/op ;;
  *) processes "$@" ;;
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
printf '%-20s %-12s %14s %14s %7s %6s\n' row rival ours theirs ratio goal
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
      printf "%-20s %-12s %14s %14s %7s %6s  did not run\n", name, rival, a == "" ? "-" : a, b == "" ? "-" : b, "-", goal
      exit 1
    }
    ratio = name ~ /^predict/ ? b / a : a / b # times: ours into theirs
    printf "%-20s %-12s %14.1f %14.1f %7.2f %6s%s\n", name, rival, a, b, ratio, goal, ratio < goal ? "  missed" : ""
    exit ratio < goal
  }' || missed=1
done <<<"$rows"
cat "$work/errors" >&2
exit $missed
