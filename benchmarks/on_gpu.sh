#!/usr/bin/env bash
# All that needs a GPU to be known, in at most nine minutes, the most important first:
#   bash benchmarks/on_gpu.sh [OUT] [--device cpu]
# OUT (on-gpu) is left with what each part printed and its CSV files, and with README.md: the card and all tables.
# A part writes before the next begins: whatever ends the command leaves what was measured. Nothing is installed. The
# first part needs torch and this folder; the others also what the project imports, of NNI its Python files alone (put
# them in PYTHONPATH). A part that cannot run says why, and the others run.
# --device cpu runs the parts at their smallest, to see that they work. PYTHON names the interpreter (python3).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wrong() { echo "on_gpu.sh: $1" >&2; exit 2; }

out=on-gpu device=cuda
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=${2:-}; shift ;;
    -*) wrong "unknown option $1; it is: bash benchmarks/on_gpu.sh [OUT] [--device cpu]" ;;
    *) out=$1 ;;
  esac
  shift
done
case $device in cpu | cuda) ;; *) wrong "--device must be cpu or cuda, not '$device'" ;; esac
python=${PYTHON:-python3}
most=530  # seconds, after which no part runs; where figures are none it has no hurry
[ $device = cuda ] || most=7200

card=$("$python" - "$device" 2>&1 <<'PYTHON'
import sys, torch
on_gpu = sys.argv[1] == 'cuda'
if on_gpu and not torch.cuda.is_available():
    sys.exit('torch sees no GPU here')
name = torch.cuda.get_device_name() if on_gpu else 'a CPU, where no figure is of a GPU'
print(f'{name}; torch {torch.__version__}, Python {sys.version.split()[0]}')
PYTHON
) || wrong "${card##*$'\n'}"
mkdir -p "$out" && out=$(cd "$out" && pwd) || wrong "$out cannot be made"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONWARNINGS=ignore
printf '# Measured on a GPU\n\nOn %s. By `bash benchmarks/on_gpu.sh`, %s.\n' "$card" "$(date -u +%F)" > "$out/README.md"
echo "on $card"

# Whatever is started is a group of its own, so that it ends with its children.
group=
trap '[ -z "$group" ] || kill -- "-$group" 2> /dev/null' EXIT
failed=0

# part NAME SECONDS TITLE [VARIABLE=VALUE...] COMMAND...: runs it for at most so long, and adds what it printed to the page.
part() {
  local name=$1 until=$((SECONDS + $2)) title=$3 started=$SECONDS status=0
  shift 3
  [ $until -le $most ] || until=$most
  setsid env "$@" > "$out/$name.txt" 2> "$out/$name.log" < /dev/null &
  group=$!
  while kill -0 $group 2> /dev/null && [ $SECONDS -lt $until ]; do sleep 0.2; done
  if kill -0 $group 2> /dev/null; then
    kill -- -$group
    status=clock
  fi
  wait $group 2> /dev/null || [ $status = clock ] || status=$?
  group=
  {
    printf '\n## %s\n\n' "$title"
    case $status in
      0) ;;
      clock) printf 'Ended by the clock after %s s; what was there by then:\n\n' $((SECONDS - started)) ;;
      *) printf 'Ended with status %s: %s\n\n' $status "$(tail -n 1 "$out/$name.log")" ;;
    esac
    if grep -q '^|---' "$out/$name.txt"; then
      cat "$out/$name.txt"
    elif [ -s "$out/$name.txt" ]; then
      printf '```\n%s\n```\n' "$(cat "$out/$name.txt")"
    fi
  } >> "$out/README.md"
  [ $status = 0 ] || failed=1
  echo "$name: $([ $status = 0 ] && echo done || echo "ended with status $status"), $((SECONDS - started)) s"
}

speed=benchmarks/speed quality=benchmarks/quality switch=AUTONL_GPU_KERNELS
if [ $device = cuda ]; then
  part kernels 150 'Kernels' "$python" $speed/kernels.py --csv "$out/kernels.csv"
  part block 50 'The block, with kernels' $switch=on \
    "$python" $speed/block.py --device cuda --batch 8 64 --seconds 0.25 --rounds 20 --csv "$out/block.csv"
  for setting in off on; do
    part networks-$setting 65 "Networks, kernels $setting" $switch=$setting \
      "$python" $speed/networks.py --device cuda --networks autonl-l --rounds 10 --csv "$out/networks-$setting.csv"
  done
  for setting in off on; do
    part imagenet-$setting 40 "The search at ImageNet's size, kernels $setting" $switch=$setting \
      "$python" $speed/imagenet_search.py --device cuda --csv "$out/imagenet-$setting.csv"
  done
  for precision in bf16-mixed 32; do
    part cued-$precision 60 "A search on cued digits, precision $precision, kernels on" $switch=on \
      "$python" $quality/search_seeds.py --seeds 1 --processes 1 --set precision=$precision --csv "$out/cued-$precision.csv"
  done
else
  part kernels 1500 'Kernels' TRITON_INTERPRET=1 \
    "$python" $speed/kernels.py --device cpu --shapes 4x3x3 --batch 2 --rounds 1 --milliseconds 1 --csv "$out/kernels.csv"
  part block 1500 'The block' \
    "$python" $speed/block.py --shapes 8x6x6 --batch 2 --seconds 0.05 --rounds 3 --csv "$out/block.csv"
  part networks 1500 'Networks' \
    "$python" $speed/networks.py --networks autonl-l --runtimes eager training --threads 1 --input-size 64 --batch 2 --rounds 2 \
    --training-rounds 2 --csv "$out/networks.csv"
  part imagenet 1500 "The search at ImageNet's size" \
    "$python" $speed/imagenet_search.py --skeleton cued --batch 4 --steps 2 --warmup 1 --csv "$out/imagenet.csv"
  part cued 1500 'A search on cued digits' \
    "$python" $quality/search_seeds.py --seeds 1 --processes 1 --csv "$out/cued.csv" \
    --set epochs=1 warmup_epochs=0 dataset/canvases=400
fi
echo "$out/README.md, after $SECONDS s"
exit $failed
