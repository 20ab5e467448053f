"""A signal ends a training at its next step, with a checkpoint from which it ends as if it had not been stopped."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from matcaps.training import train
from matcaps.training.checkpoint_files import newest_checkpoint, read_checkpoint
from matcaps.training.loop import Callback
from matcaps.training.stopping import SIGNALS, StoppedBySignal, StopRequest, signals_end_the_work
from tests.support.runs import STEPS, repeatable_metrics, tiny_settings, weights, write_config


class Signalled(Callback):
    """Send this process a signal where a hook is called after a number of optimiser steps."""

    def __init__(self, number: int, hook: str, step: int):
        def send(trainer, *_, **__):
            if trainer.global_step == step:
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


@pytest.fixture(autouse=True, scope="module")
def _signals_are_heard():
    """Also where the tests run in the background, where shells have Ctrl+C ignored, or under ``nohup``."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tiny_settings(), tmp_path_factory.mktemp("whole")).folder


@pytest.mark.parametrize(
    ("number", "hook", "step", "saved"),
    [
        (signal.SIGTERM, "on_train_batch_start", 2, 3),  # it ends the step that it is in
        (signal.SIGHUP, "on_train_batch_start", STEPS + 2, STEPS + 3),
        (signal.SIGINT, "on_validation_start", STEPS, STEPS),  # and the epoch, where it is at its end
        (signal.SIGTERM, "on_train_epoch_end", 2 * STEPS, 2 * STEPS),
        (signal.SIGTERM, "on_validation_start", 3 * STEPS, 3 * STEPS),
    ],
)
def test_a_signal_ends_the_step_and_the_run_goes_on_exactly(number, hook, step, saved, whole, tmp_path):
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(StoppedBySignal) as stop:
        train(tiny_settings(), tmp_path, callbacks=[Signalled(number, hook, step)])
    assert (stop.value.number, stop.value.folder, stop.value.status) == (number, tmp_path, 128 + number)
    assert [signal.getsignal(one) for one in SIGNALS] == before
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert read_checkpoint(newest)["global_step"] == saved
    assert not (tmp_path / "results.json").exists()
    train(tiny_settings(), tmp_path, resume=True)
    assert weights(tmp_path) == weights(whole)
    assert repeatable_metrics(tmp_path) == repeatable_metrics(whole)


def test_a_second_signal_and_no_answer_in_time_end_it_at_once():
    with pytest.raises(BaseException) as halt, StopRequest() as request:  # noqa: PT011, PT012
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert type(halt.value).__name__ == "Halt"
    with pytest.raises(BaseException) as halt, StopRequest(grace=0.1):  # noqa: PT011, PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert type(halt.value).__name__ == "Halt"


def test_what_is_ignored_stays_ignored():
    """``nohup``, and a shell's background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_end_the_work(), StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("kind", ["workers", "processes"])
def test_a_signal_to_all_processes_ends_all_of_them(kind, tmp_path):
    """As Slurm, a service manager or a terminal sends it."""
    settings = tiny_settings(epochs=1000, views_every=0)
    if kind == "workers":
        settings = replace(settings, data=replace(settings.data, num_workers=2))
    else:
        settings = replace(settings, devices=2, data=replace(settings.data, batch_size=4))
    run = subprocess.Popen(
        [sys.executable, "-m", "matcaps.cli", "train", write_config(settings, tmp_path), "--output=run"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    checkpoint, deadline = tmp_path / "run/checkpoints/after-epoch.ckpt", time.monotonic() + 120
    while run.poll() is None and not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGTERM)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143, errors
    last = errors.strip().splitlines()[-1]
    assert last == "matcaps train: stopped by SIGTERM; it goes on with: matcaps train --resume run"
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)  # nobody of its group is left


@pytest.mark.parametrize(
    ("arguments", "status"), [(["eval"], 143), (["predict"], 129), (["inspect"], 130), (["experiment"], 143)]
)
def test_other_commands_never_end_a_signal_with_status_0(arguments, status, monkeypatch, capsys):
    from matcaps import cli

    def work(_):
        os.kill(os.getpid(), status - 128)
        time.sleep(5)
        return 0

    monkeypatch.setitem(cli.COMMANDS, arguments[0], work)
    assert cli.main(arguments) == status
    name = {143: "SIGTERM", 129: "SIGHUP", 130: "Ctrl+C"}[status]
    assert f"matcaps {arguments[0]}: stopped by {name}" in capsys.readouterr().err


def test_the_line_quotes_the_folder(monkeypatch, capsys):
    from matcaps import cli

    def stop(_):
        raise StoppedBySignal(signal.SIGTERM, Path("my runs/one"))

    monkeypatch.setitem(cli.COMMANDS, "train", stop)
    assert cli.main(["train"]) == 143
    assert capsys.readouterr().err.endswith("matcaps train --resume 'my runs/one'\n")
