"""What a newcomer meets: the overview, the Tab key, the bars."""

import io
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from matcaps import cli
from matcaps._progress import shown_by, step, watched, work
from matcaps.cli import bar
from matcaps.cli.completion import SHELLS, completion_script

MATCAPS = Path(sys.executable).with_name("matcaps")


def on_a_terminal(*command: str | Path, **changes: str) -> str:
    """What a command writes where standard output and standard error are a terminal."""
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = {**inherited, "TERM": "xterm-256color", "COLUMNS": "100", **changes}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            part = b""
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(60) == 0, written.decode()
    return written.decode()


# The overview


def test_the_overview_is_coloured_on_a_terminal_alone(call):
    assert "\x1b[1;36mmatcaps\x1b[0m" in on_a_terminal(MATCAPS)
    assert not re.search(r"\x1b\[[\d;]*3\d", on_a_terminal(MATCAPS, NO_COLOR="1"))
    assert "\x1b" not in call()[1]


def test_the_overview_has_every_command_once(call):
    _, printed, _ = call()
    for name in cli.COMMANDS:
        assert len(re.findall(rf"^  {name} ", printed, re.M)) == 1, name


def test_a_new_command_is_in_the_overview(call, monkeypatch):
    def dance(arguments: list[str]) -> int:
        """Dance a little."""
        return 0

    monkeypatch.setitem(cli.COMMANDS, "dance", dance)
    assert re.search(r"^More\n  dance +Dance a little\.", call()[1], re.M)


# The Tab key


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (folder / shell).write_text(completion_script(cli.COMMANDS, shell), encoding="utf-8")
    return folder


def tab(scripts: Path, *words: str, folder: Path | None = None) -> list[str]:
    """What a real bash offers where Tab is pressed behind the last of some words."""
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f"source {scripts / 'bash'}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        '$(complete -p matcaps | sed "s/.*-F \\([^ ]*\\).*/\\1/") matcaps "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, timeout=30, cwd=folder, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["matcaps", "tr"], {"train"}),
        (["matcaps", "do"], {"doctor"}),
        (["matcaps", "train", "smallnorb-a"], {"smallnorb-agreement"}),
        (["matcaps", "train", "quickstart", "--optimizer.learn"], {"--optimizer.learning_rate"}),
        (["matcaps", "train", "quickstart", "--loss.name", "cro"], {"cross-entropy"}),
        (["matcaps", "eval", "run", "--accelerator", ""], {"auto", "cpu", "gpu"}),
        (["matcaps", "data", "f"], {"fetch"}),
        (["matcaps", "experiment", "fol"], {"folds"}),
        (["matcaps", "experiment", "folds", "--gro"], {"--groups"}),
        (["matcaps", "completion", ""], set(SHELLS)),
    ],
)
def test_bash_completes(scripts, words, offered):
    assert set(tab(scripts, *words)) == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_files(scripts, tmp_path):
    (tmp_path / "photo.png").touch()
    assert tab(scripts, "matcaps", "predict", "pho", folder=tmp_path) == ["photo.png"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_can_read_their_script(scripts, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([shell, "-n", scripts / shell], check=True, timeout=30)


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes(scripts):
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {scripts / 'fish'}; complete -C 'matcaps train --loss.name cro'"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["cross-entropy"]


def test_completion_of_an_unknown_shell(refuse, elsewhere):
    refuse("the shell must be one of bash, zsh, fish; got 'csh'", "completion", "csh")


# The bars


class Heard:
    """Notes what work was shown."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int | None]] = {}

    def __call__(self, name, steps, done):
        from contextlib import contextmanager

        @contextmanager
        def shown():
            entry = self.steps.setdefault(name, [steps, done])

            def advance():
                entry[1] += 1

            yield advance

        return shown()


def test_work_is_told_step_by_step():
    heard = Heard()
    with shown_by(heard), work("outer", 3, 1):
        step()
        assert list(watched("ab", "inner")) == ["a", "b"]
        assert list(watched(iter("abc"), "endless")) == ["a", "b", "c"]
        step()
    assert heard.steps == {"outer": [3, 3], "inner": [2, 2], "endless": [None, 3]}
    step()  # nobody listens
    assert heard.steps["outer"] == [3, 3]


def test_nothing_is_drawn_where_nobody_looks_on(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with bar.bars():
        list(watched(range(3), "counting"))
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("changes", "drawn"), [({}, True), ({"LOCAL_RANK": "1"}, False)])
def test_a_bar_on_a_terminal(changes, drawn):
    code = (
        "import time; from matcaps.cli.bar import bars; from matcaps._progress import watched\n"
        "with bars():\n    for _ in watched(range(3), 'counting'): time.sleep(0.15)"
    )
    written = on_a_terminal(sys.executable, "-c", code, **changes)
    assert bool(re.search(r"counting .*[12]/3", written)) == drawn


def test_attacks_and_tests_say_how_far_they_are():
    """The steps that are announced are those that come."""
    from matcaps.data import make_loader
    from matcaps.experiments import AttackSettings, attack_networks
    from matcaps.training import evaluate
    from tests.support.networks import make_dots, make_network

    network, (dataset, transform), heard = make_network(), make_dots(), Heard()
    settings = AttackSettings(
        epsilons=(0.0, 0.1),
        strong_epsilons=(0.1,),
        num_images=5,
        num_strong_images=3,
        batch_size=3,
        bim_steps=1,
        pgd_steps=1,
        pgd_restarts=1,
        square_queries=2,
    )
    with shown_by(heard):
        attack_networks({"one": network, "two": network}, "one", dataset, transform, settings)
        evaluate(network, make_loader(dataset, transform, train=False, batch_size=10), dataset.classes)
    assert heard.steps["attacks"][0] == heard.steps["attacks"][1]
    assert heard.steps["testing"] == [3, 3]


@pytest.mark.parametrize(
    ("set_by_user", "expected"),
    [({}, "10000 None"), ({"GOMP_SPINCOUNT": "7"}, "7 None"), ({"OMP_WAIT_POLICY": "active"}, "None active")],
)
def test_waiting_threads_sleep_soon_unless_the_user_wants_it_otherwise(set_by_user, expected):
    program = (
        "import os, sys; from matcaps.cli import main; main(['--version']); assert 'torch' not in sys.modules; "
        "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | set_by_user, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == expected
