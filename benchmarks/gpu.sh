#!/usr/bin/env bash
# A visit of ten minutes to a bare machine with an NVIDIA GPU: is it right, how fast is it and why, do the tests pass,
# does it train. No network, no git, no installation: PyTorch, cuda-bindings, NVRTC and Lightning are those of the
# machine's Python; this repository is unpacked beside them:
#
#   git rev-parse HEAD >COMMIT; git archive --add-file=COMMIT HEAD | gzip >matcaps.tar.gz      here
#   tar -xzf matcaps.tar.gz && benchmarks/gpu.sh RESULTS      there
#
# What the machine may lack is carried along, as a folder "packages" in the unpacked one (or PACKAGES=FOLDER):
#
#   python3 -m pip install --target packages --no-deps --only-binary=:all: --python-version 3.12 \
#     --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 platformdirs lazy_loader jsonargparse docstring_parser \
#     typeshed_client importlib_resources typing_extensions
#
# In order: check (compile, and values against the float64 reference), kernels (each launch timed), profile (ncu on the
# slowest), speed (layers, epoch, step, first steps), tests, train, compared (the reference and torch.compile of it). Each has
# a limit of time, and whatever it leaves running ends with it; all is printed as it comes. RESULTS gets three files:
# summary.txt, what was printed; record.json, every figure; logs.tar.gz, the rest. They are written after each part, so
# a visit that is cut short has what it did.
#
# Variables: PYTHON (python3), PACKAGES (packages), MATCAPS_DATA (a data root with smallnorb: trains on it),
# MATCAPS_RECIPE (smallnorb with such data, else quickstart), MATCAPS_COMMIT (for the records), MATCAPS_MINUTES (10),
# MATCAPS_ONLY or MATCAPS_SKIP (words: check kernels profile speed tests train compared), MATCAPS_CUDA_CACHE (kernels that
# are compiled; beside the machine's temporary files), MATCAPS_WORKERS (8, of the tests), MATCAPS_TEST_CUDA (1: tests at every
# size), MATCAPS_DEVICE (cpu: a rehearsal, with tiny sizes).
set -u
out=${1:?usage: benchmarks/gpu.sh RESULTS}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
work=$(mktemp -d "${TMPDIR:-/tmp}/matcaps-gpu.XXXXXX") || exit 1
logs=$work/logs record=$out/record.json summary=$out/summary.txt
mkdir "$logs"
packages=$(cd "${PACKAGES:-packages}" 2>/dev/null && pwd) # may be missing
export PYTHONPATH="$PWD/src:$PWD${packages:+:$packages}${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 MPLBACKEND=Agg OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
export MATCAPS_CUDA_CACHE=${MATCAPS_CUDA_CACHE:-$work/cuda}
[ -n "${MATCAPS_COMMIT:-}" ] || MATCAPS_COMMIT=$(git rev-parse HEAD 2>/dev/null || cat COMMIT 2>/dev/null || echo unknown)
export MATCAPS_COMMIT
device=${MATCAPS_DEVICE:-cuda}
budget=$((${MATCAPS_MINUTES:-10} * 60 - 15)) # the last seconds are for packing
trap 'rm -rf "$work"' EXIT

say() { echo "[$SECONDS s] $*" | tee -a "$summary"; }
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }
wanted() {
  case " ${MATCAPS_ONLY:-$1} " in *" $1 "*) ;; *) return 1 ;; esac
  case " ${MATCAPS_SKIP:-} " in *" $1 "*) return 1 ;; esac
}
left() { echo $((budget - SECONDS)); }

# What comes back, at any time: three files, below 16 MB each. Checkpoints stay behind, and whatever is largest goes first.
pack() {
  while [ "$(du -sk "$logs" | cut -f1)" -gt 60000 ]; do
    local largest
    largest=$(find "$logs" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    [ -n "$largest" ] || break
    say "too large, left behind: ${largest#"$logs"/}"
    rm -f "$largest"
  done
  compress && [ "$(stat -c %s "$work/new.tar.gz")" -le 15000000 ] || compress --exclude='*.safetensors'
  mv "$work/new.tar.gz" "$out/logs.tar.gz"
}
compress() { tar -C "$work" --exclude='*.ckpt' --exclude=tensorboard "$@" -czf "$work/new.tar.gz" logs; }

# part NAME SECONDS REST COMMAND...: so many seconds at most, with REST of the visit left for what comes after
part() {
  local name=$1 limit=$(($(left) - $3)) status pid
  [ "$limit" -le "$2" ] || limit=$2
  shift 3
  if [ "$limit" -lt 8 ]; then say "$name: left out, no time"; return 124; fi
  say "$name: up to $limit s"
  : >"$logs/$name.log"
  # timeout leads a group of processes of its own, which ends as a whole: what a part leaves behind slows the next one
  timeout --kill-after=5 "$limit" "$@" >"$logs/$name.log" 2>&1 &
  pid=$!
  tail -n +1 -s 0.3 -f --pid="$pid" "$logs/$name.log" | sed -u -E 's/^(.{400}).*/\1/; s/^/    /' | tee -a "$summary"
  wait "$pid"
  status=$?
  kill -KILL -- "-$pid" 2>/dev/null
  say "$name: exit status $status$([ $status -eq 124 ] && echo ' (out of time)')"
  pack
  return $status
}

: >"$summary"
say "commit $MATCAPS_COMMIT, $("$python" --version 2>&1), packages: ${packages:-none}"
if ! has torch; then say "no torch for $python: nothing can be done"; exit 1; fi
"$python" - <<'PYTHON' 2>&1 | tee -a "$summary"
import importlib.util, os, torch
print("torch", torch.__version__, "cuda", torch.version.cuda, "processors", os.cpu_count())
print("gpu", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none that torch can use")
names = ("cuda.bindings.nvrtc", "lightning", "torchmetrics", "safetensors", "platformdirs", "jsonargparse", "rich", "yaml", "filelock",
         "tensorboard", "matplotlib", "pytest", "xdist", "hypothesis", "PIL")
def is_there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print("missing:", *(name for name in names if not is_there(name)))
PYTHON
command -v nvidia-smi >/dev/null && nvidia-smi >"$logs/nvidia-smi.txt" 2>&1

if [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  say "no GPU that torch can use; MATCAPS_DEVICE=cpu rehearses a visit without one"
  exit 1
fi

bench() { echo "$python" -m benchmarks.gpu.bench --skip-tests --device "$device" --record "$record"; }
worst=0
is_right=0
note() { [ "$1" -eq 0 ] || [ "$1" -eq 124 ] || worst=1; }

# 1. Compile side by side, and hold values and gradients to the tests' budget. If they are off there are no figures of
# whole layers, steps and trainings; what helps to find out why is done.
if wanted check; then
  if [ "$device" = cuda ]; then
    part compile 60 300 "$python" -m benchmarks.gpu.compile_kernels; note $?
    part check 60 300 "$python" -m benchmarks.gpu.quick_check --record "$record"; is_right=$?; note $is_right
  else
    part compile 200 60 "$python" -m benchmarks.gpu.compile_kernels sm_90; note $?
  fi
fi

# 2. Each launch of each layer; then why the slowest take what they take.
if wanted kernels; then part kernels 60 200 $(bench) --only kernels; note $?; fi
if wanted profile && [ "$device" = cuda ]; then
  part profile 70 200 "$python" -m benchmarks.gpu.profile_kernels --record "$record" --text "$logs/ncu.txt"; note $?
fi

if [ $is_right -eq 1 ]; then
  say "values are off: left out are speed, train and compared"
  MATCAPS_SKIP="${MATCAPS_SKIP:-} speed train compared"
fi

# 3. Layers, steps and epochs; torch.compile, which may take minutes, is the last of all.
if wanted speed; then
  part speed 90 170 $(bench) --only layers --only epoch --only step; note $?
  part start 60 170 $(bench) --only start; note $?
fi

# 4. The tests that need a GPU, and those of the kernels by value.
if wanted tests; then
  if has pytest; then
    seconds=$(($(left) - 120)) && [ "$seconds" -le 180 ] || seconds=180
    part tests $((seconds + 2)) 110 "$python" -m benchmarks.gpu.run_tests --seconds "$seconds" --workers "${MATCAPS_WORKERS:-8}" \
      --record "$record"; note $?
  else say "tests: left out, no pytest"
  fi
fi

# 5. A training with what is left but for the comparison: smallNORB where it is, otherwise the images that come with matcaps.
recipe=${MATCAPS_RECIPE:-quickstart}
[ -n "${MATCAPS_RECIPE:-}" ] || { [ -d "${MATCAPS_DATA:-/nonexistent}/smallnorb" ] && recipe=smallnorb; }
if wanted train; then
  rest=90 && wanted compared || rest=0
  seconds=$(($(left) - rest))
  if has lightning; then
    part train "$seconds" "$rest" "$python" -m benchmarks.gpu.train "$recipe" "$logs/run" "$seconds" --record "$record"; note $?
  else say "train: left out, Lightning is missing"
  fi
fi

# 6. The same layers by the reference and by torch.compile of it: our time and memory as a share of theirs.
if wanted compared; then part compared 200 0 $(bench) --only compared --seconds 0.5; note $?; fi

pack
say "done: $(du -sk "$out" | cut -f1) KB in $(find "$out" -type f | wc -l) files, worst exit status $worst"
exit $worst
