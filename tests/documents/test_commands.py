"""Every command that the documents show is tried, in a folder that holds what it speaks of, on tiny settings.

:data:`COMMANDS` says how each is tried; a command without an entry fails, so that a new document is covered. What needs
a network, real data, a browser or an hour is taken apart as the command would take it, and goes no further.
"""

import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

from benchmarks.cpu import compare
from benchmarks.cpu.peers import PEERS
from matcaps import cli
from matcaps.experiments.routing_bench import Bench
from matcaps.experiments.routing_runs import begin
from tests.support.documents import RUN, STOPPED_RUN

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*the checksum differs from the published one:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*starts anew:UserWarning"),  # what fine-tuning says
]

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/theory/*.md")),
    *sorted(ROOT.glob("docs/howto/*.md")),
    *sorted((ROOT / "src" / "matcaps").rglob("*.md")),
]
HISTORY = ROOT / "docs" / "log.md"
"""What was done once: its commands were right when they were run."""


@dataclass(frozen=True)
class Run:
    """Run it, with these arguments more: later ones win."""

    more: str = ""

    def __call__(self, command: str) -> None:
        assert cli.main([*matcaps_arguments(command), *shlex.split(self.more)]) == 0


@dataclass(frozen=True)
class Parse:
    """Read its arguments as the command does, and go no further; ``reason`` says why not."""

    reason: str

    def __call__(self, command: str) -> None:
        parse(matcaps_arguments(command))


@dataclass(frozen=True)
class Make:
    """A target of the Makefile that runs ``line`` among others; then ``line`` is tried in its own way."""

    line: str
    how: "Callable[[str], None]"

    def __call__(self, command: str) -> None:
        assert self.line in make_would_run(command.removeprefix("make "))
        self.how(self.line.removeprefix(".venv/bin/"))


@dataclass(frozen=True)
class Help:
    """A module of ours that takes long: it starts, and knows its options."""

    reason: str

    def __call__(self, command: str) -> None:
        words = shlex.split(command)
        subprocess.run(
            [sys.executable, *words[1:], "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120
        )


@dataclass(frozen=True)
class Trust:
    """Nothing to try here, for a reason."""

    reason: str

    def __call__(self, command: str) -> None:
        pass


def pip_knows(command: str) -> None:
    """A network is needed to install; that the extra and the constraints are there is seen without."""
    words = shlex.split(command)
    assert (ROOT / words[words.index("-c") + 1]).is_file()
    extras = re.findall(r"\[(\w+)\]", words[words.index("-e") + 1])
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras
    assert set(extras) <= set(known)


def peers_known(command: str) -> None:
    """A peer's checkout is needed to time it; the arguments are read as they stand, beside what looks like one."""
    words = shlex.split(command)
    name, _, checkout = words[words.index("--peer") + 1].partition("=")
    Path(checkout, PEERS[name].FILE).parent.mkdir(parents=True)
    Path(checkout, PEERS[name].FILE).touch()
    assert compare.parse(words[words.index("benchmarks.cpu.compare") + 1 :]).peer


def launched(command: str) -> None:
    """A second machine is needed; what each process of the launcher is given is read, and makes as many as it makes."""
    from torch.distributed.run import get_args_parser

    launcher, _, arguments = command.partition(" -m matcaps ")
    parse(shlex.split(arguments))
    words, ours = shlex.split(launcher), shlex.split(arguments)
    launched = get_args_parser().parse_args([*words[words.index("torchrun") + 1 :], "-m", "matcaps"])
    for theirs, name in ((launched.nnodes, "--num_nodes"), (launched.nproc_per_node, "--devices")):
        assert theirs == (ours[ours.index(name) + 1] if name in ours else "1:1")


SMALL_FOLDS = (
    "--epochs=1 --seeds=0 --shard=1/5 --set=accelerator=cpu --set=data.max_train_images=40 "
    "--set=data.max_test_images=20 --set=calibration_images=8 --set=model.stem_channels=4 "
    "--set=model.primary_capsules=2 --set=model.conv_capsules1=2 --set=model.conv_capsules2=2"
)


def table_of_folds(command: str) -> None:
    """Needs runs that leave objects out: one is made first."""
    Run(SMALL_FOLDS)("matcaps experiment folds --recipe smallnorb")
    Run()(command)


def table_of_routings(command: str) -> None:
    """Needs a bench: one that was begun, of which no row was run."""
    begin(Bench(), Path("runs/routings"))
    Run()(command)


def sweep(command: str) -> None:
    """One trial in the space of the page, of tiny networks; what launches several workers is not needed for it."""
    command = command[command.index("matcaps experiment") :].strip('"')
    (space,) = blocks(ROOT / "docs" / "sweeps.md", "yaml")
    Path("space.yaml").write_text(space, encoding="utf-8")
    Run(SMALL_FOLDS.replace("--shard=1/5", "--trials=1"))(command)


NETWORK = "--model.stem_channels=4 --model.primary_capsules=2 --model.conv_capsules1=2 --model.conv_capsules2=2"
FEW = "--epochs=1 --accelerator=cpu --data.max_train_images=40 --data.max_test_images=20 --calibration_images=8"
PAGE = Parse("needs Gradio, which is no part of the tests' environment, and a browser: make test-browser drives it")

COMMANDS: dict[str, Callable[[str], None]] = {
    "make train": Make(".venv/bin/matcaps train quickstart", Run(f"{NETWORK} {FEW}")),
    "make test": Make("-m pytest -n 2", Trust("these are the tests")),
    "matcaps train smallnorb --epochs 5 --model.annealing 0.0625": Run(f"{NETWORK} {FEW}"),
    "matcaps train smallnorb-agreement": Run(f"{NETWORK} {FEW}"),
    f"matcaps eval runs/{RUN} --agreement": Run(),
    f"matcaps train --resume runs/{RUN}": Run(),
    f"matcaps eval runs/{RUN}": Run(),
    f"matcaps predict runs/{RUN} photo.png": Run(),
    f"matcaps inspect runs/{RUN}": Run("--num_images=60"),
    f"matcaps inspect runs/{RUN} --index 7 --num_images 24300 --cnn runs/smallnorb-cnn-20260101-130000": Run(),
    "matcaps inspect paper-small-smallnorb --image photo.png --train_decoder": Run("--num_images=0 --decoder_epochs=1"),
    f"matcaps report runs/{RUN}": Run(),
    "matcaps demo": PAGE,
    "matcaps demo runs/mnist-20260101-120000": PAGE,
    f"matcaps demo RUN --smallnorb runs/{RUN} --root DATA --port 8000 --no_browser": PAGE,
    "matcaps experiment table1 --rows iterations-1,cnn --seeds 0,1": Run(
        "--seeds=0 --epochs=1 --max_train_images=32 --max_test_images=20"
    ),
    "matcaps table table1": Run(f"--folder={ROOT / 'docs' / 'records'} --output=table"),
    "matcaps experiment folds --recipe smallnorb --set loss.name=cross-entropy --epochs 20": Run(SMALL_FOLDS),
    "matcaps experiment folds --recipe smallnorb --epochs 20 --seeds 0,1": Run(SMALL_FOLDS),
    "matcaps table folds runs/folds": table_of_folds,
    "matcaps experiment routings --plan": Run("--only=stem --accelerator=cpu"),
    "matcaps experiment routings --accelerator gpu --shard 1/4": Run("--list"),
    "matcaps experiment routings --configurations 1 --folds 4 --seeds 0 --no_elevations --epochs 4 --max_train_images "
    "600 --max_test_images 200 --set optimizer.ema_decay=0.98 --set loss.margin_epochs=3": Run(
        "--only=stem --epochs=1 --max_train_images=40 --accelerator=cpu"
    ),
    "matcaps table routings": table_of_routings,
    "matcaps experiment sweep --recipe smallnorb --space space.yaml --epochs 20 --trials 20": sweep,
    "torchrun --standalone --nproc_per_node 4 --no-python matcaps experiment sweep --recipe smallnorb "
    "--space space.yaml --trials 100": sweep,
    "sbatch --array 0-7 --gres gpu:1 --time 12:00:00 --wrap "
    '"matcaps experiment sweep --recipe smallnorb --space space.yaml --trials 100"': sweep,
    '.venv/bin/pip install -c constraints.txt -e ".[sweep]"': pip_knows,
    "matcaps summary tutorial": Run(),
    "matcaps data list": Run(),
    "matcaps doctor": Run(),
    "matcaps completion bash": Run(),
    '.venv/bin/pip install -c constraints.txt -e ".[demo]"': pip_knows,
    '.venv/bin/pip install -c constraints.txt -e ".[integrations]"': pip_knows,
    "make test-wheel": Make(".venv/bin/python tools/test_wheel.py", Trust("builds the wheel twice: minutes")),
    "make test-arm64": Make("native/tests/arm64.sh build/arm64", Trust("needs a cross-compiler and QEMU")),
    "python -m build": Trust("the tools of those who build packages"),
    "auditwheel repair --plat manylinux_2_28_x86_64 dist/matcaps-0.1.0-py3-none-linux_x86_64.whl": Trust("the same"),
    "uvx --from dist/matcaps-0.1.0-py3-none-linux_x86_64.whl matcaps --help": Trust("installs torch from an index"),
    "pipx run --spec dist/matcaps-0.1.0-py3-none-linux_x86_64.whl matcaps --help": Trust("the same"),
    "pip install matcaps": Trust("an index would be asked; tools/test_wheel.py installs a wheel"),
    "matcaps train quickstart": Run(f"{NETWORK} {FEW}"),
    "matcaps train quickstart --model.routing dynamic": Run(f"{NETWORK} {FEW}"),
    "make bench": Make(".venv/bin/python -m benchmarks.cpu.bench", Help("ten minutes on an idle machine")),
    ".venv/bin/python -m benchmarks.cpu.compare --peer officium=../Capsules": peers_known,
}
EXPORT = Parse("translating takes long: tests/test_cli_export.py and tests/models/test_export.py try it")
TABLE = Run(f"--folder={ROOT / 'docs' / 'records'} --output=table")
TRIALS = Run("--list")
COMMANDS |= {
    "matcaps experiment viewpoints": TRIALS,
    "matcaps table viewpoints": TABLE,
    "matcaps experiment attacks": TRIALS,
    "matcaps table attacks": TABLE,
    "matcaps experiment table1 --shard 1/4": TRIALS,
    "matcaps experiment table1 --rows iterations-3,cnn --seeds 0,1,2": TRIALS,
    "matcaps experiment folds --recipe smallnorb --epochs 20 --seeds 0,1 --shard 2/4": TRIALS,
    "matcaps eval paper-small-smallnorb --data smallnorb": Run(),
    "matcaps data fetch smallnorb": Parse("needs a network"),
    "matcaps train smallnorb --devices 2": Parse("two processes: tests/training has them"),
    "torchrun --nproc-per-node 2 --max-restarts 2 -m matcaps train smallnorb --devices 2 --output runs/two "
    "--checkpoint_minutes 2": launched,
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes 2 --nproc-per-node 2 --max-restarts 2 --rdzv-backend c10d "
    "--rdzv-endpoint first:29400 --rdzv-id two-machines -m matcaps train smallnorb --devices 2 --num_nodes 2 --output "
    "runs/two-machines": launched,
    '.venv/bin/pip install -c constraints.txt -e ".[cuda]"': pip_knows,
    "matcaps train smallnorb --accelerator gpu --cuda_graph true": Parse("needs a GPU"),
}
OWN_IMAGES = Parse("needs a folder of somebody's images")
COMMANDS |= {
    ".venv/bin/matcaps demo": PAGE,
    "matcaps train quickstart --data.name folder --data.folder pictures": OWN_IMAGES,
    "matcaps eval runs/quickstart-20260101-120000": OWN_IMAGES,
    "matcaps eval runs/quickstart-20260101-120000 --folder others --part all": OWN_IMAGES,
    "matcaps predict runs/quickstart-20260101-120000 photo.png 'album/**/*.jpg'": OWN_IMAGES,
    "matcaps experiment folds --recipe quickstart --set data.name=folder --set data.folder=pictures --groups "
    "patients.csv --folds 5": OWN_IMAGES,
    "matcaps train quickstart --data.name folder --data.folder pictures --data.split.rule group --data.split.groups "
    "patients.csv --data.split.test_groups [p1,p2]": OWN_IMAGES,
    "matcaps train quickstart --model.pretrained paper-small-smallnorb --model.freeze stem,primary": Run(FEW),
    "matcaps train quickstart --model.pretrained runs/mnist-20260101-120000": Parse("needs a run on MNIST"),
    "matcaps export tutorial-mnist --trace --output digits.onnx": EXPORT,
    "matcaps export runs/smallnorb-20260101-120000 --format torch": EXPORT,
    "python -m http.server --directory build/site --bind 127.0.0.1 8000": Trust(
        "Python's own; it serves until stopped"
    ),
}
"""How each command of a block is tried, by what stands there without its comment."""

PLACEHOLDERS = {"NAME": "mnist", "RUN": "runs/one", "PATH": "pictures", "FOLDER": "pictures", "DATA": "data"}


def matcaps_arguments(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[0].endswith("matcaps"), command
    return [PLACEHOLDERS.get(word, word) for word in words[1:]]


class ParsedError(Exception):
    """The arguments were read."""


def parse(arguments: list[str]) -> None:
    """Read arguments as the command does, up to where it begins to work."""
    read = jsonargparse.ArgumentParser.parse_args

    def stop(parser: Any, *rest: Any, **options: Any) -> Any:
        read(parser, *rest, **options)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonargparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(ParsedError):
            cli.main(arguments)


def make_would_run(target: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "-B", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def page_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> Iterator[str]:
    for block in re.finditer(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
        yield block[1]


def shown() -> Iterator[Any]:
    """Each command of a console block, once, with its comment off."""
    found: dict[str, Path] = {}
    for path in GUIDES:
        lines = [line for block in blocks(path, "console") for line in block.splitlines() if line.startswith("$ ")]
        for line in lines:
            found.setdefault(re.sub(r"\s+# .*", "", line[2:]).strip(), path)
    for command, path in found.items():
        yield pytest.param(command, id=f"{page_of(path)}: {command}")


@pytest.mark.parametrize("command", shown())
def test_a_command_of_the_documents_works(command, with_runs, request):
    assert command in COMMANDS, f"say in COMMANDS of {Path(__file__).name} how {command!r} is tried"
    if command.startswith("matcaps inspect") and "--cnn" not in command:  # that one has all the figures drawn
        request.getfixturevalue("undrawn")
    if "--resume" in command:  # what is finished has nothing to go on with
        shutil.rmtree(with_runs / "runs" / RUN)
        shutil.move(with_runs / "runs" / STOPPED_RUN, with_runs / "runs" / RUN)
    COMMANDS[command](command)


def test_no_entry_outlives_its_command():
    assert {param.values[0] for param in shown()} == set(COMMANDS)


def test_commands_stand_where_they_are_looked_for():
    """In a block named console, behind a dollar sign: another way would not be tried."""
    for path in GUIDES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*```(bash|sh|shell|text)", text, re.M), page_of(path)
        for block in blocks(path, ""):
            assert not re.search(r"^\$ |^(matcaps|make|pip|python) ", block, re.M), page_of(path)
        for block in blocks(path, "console"):
            assert all(line.startswith("$ ") for line in block.splitlines() if line.strip()), page_of(path)


def mentioned(start: str) -> list[str]:
    """What the running text shows of commands that begin so, such as ``matcaps eval RUN``."""
    found = [
        " ".join(code.split())
        for path in GUIDES
        if path != HISTORY
        for code in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S))
    ]
    return sorted({code for code in found if code.startswith(f"{start} ")})


@pytest.mark.parametrize("command", mentioned("matcaps"))
def test_a_command_in_running_text_has_arguments_that_are_known(command, work):
    arguments = matcaps_arguments(command)
    if arguments[0] != "COMMAND":
        assert arguments[0] in cli.COMMANDS
        if len(arguments) > 1:
            parse(arguments)


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="only a checkout has .ci")
def test_every_step_of_ci_is_in_the_makefile():
    steps = re.findall(r"^(?:late_)?step ([\w-]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    assert {"lint", "test", "test-wheel", "test-oldest"} <= set(steps)
    for step in steps:
        assert make_would_run(step)


@pytest.mark.parametrize("command", mentioned("make"))
def test_a_target_in_running_text_is_in_the_makefile(command):
    assert make_would_run(command.split()[1])


@pytest.mark.parametrize("command", mentioned("python -m"))
def test_a_module_in_running_text_can_be_run(command):
    module = command.split()[2]
    is_run = "__main__" in inspect.getsource(importlib.import_module(module))
    assert is_run or importlib.util.find_spec(f"{module}.__main__"), f"{module} does nothing when it is run"
