"""What a training on a GPU does otherwise than one on the CPU, so that it need not wait, tried on the CPU."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from matcaps.models import PoseDecoder, create_model
from matcaps.models.freezing import freeze
from matcaps.models.modes import evaluation_mode
from matcaps.training import (
    LossSettings,
    OptimizerSettings,
    Training,
    TrainingDivergedError,
    late_check,
    load_run,
    run,
    train,
)
from matcaps.training.averaging import AveragedWeights
from matcaps.training.checkpoint_files import newest_checkpoint, read_checkpoint
from matcaps.training.late_check import LateCheck
from matcaps.training.loop import Callback
from matcaps.training.stuck import StuckWatch
from tests.support.runs import AT_EVERY_STEP, TINY, Spoil, repeatable_metrics, tiny_settings, weights

pytestmark = pytest.mark.filterwarnings("ignore:the training seems stuck")
IMAGES = torch.zeros(2, 1, 8, 8)


@pytest.fixture
def late(monkeypatch):
    """A training that sees its numbers as late as it may."""
    monkeypatch.setattr(Training, "_checks_late", property(lambda self: True))
    monkeypatch.setattr(late_check, "_is_done", lambda event: False)


def add(check, step, loss=0.5, norms=(1.0, 2.0)):
    numbers = torch.tensor(norms)
    return check.add(step, IMAGES + step, torch.tensor(loss), numbers.norm(), numbers)


def test_a_broken_step_is_seen_once_it_is_known(monkeypatch):
    monkeypatch.setattr(late_check, "_is_done", lambda event: False)
    check, inf = LateCheck(torch.device("cpu")), float("inf")
    assert add(check, 0) is None
    assert check.found_inf == 0
    assert add(check, 1, norms=(1.0, inf)) is None
    assert check.found_inf == 1  # at once, on the device
    assert [add(check, step) for step in (2, 3, 4)] == [None] * 3
    assert check.found_inf == 1
    broken = add(check, 5)
    assert broken is not None
    assert (broken.step, broken.loss, broken.parameter) == (1, 0.5, 1)
    assert torch.equal(broken.images, IMAGES + 1)


@pytest.mark.parametrize(
    ("loss", "norms", "parameter"),
    [(float("nan"), (1.0, 1.0), None), (float("inf"), (float("nan"), 1.0), 0), (1.0, (3e38, 3e38), None)],
    ids=["loss", "both", "norm of all"],
)
def test_waiting_finds_what_was_not_seen(monkeypatch, loss, norms, parameter):
    monkeypatch.setattr(late_check, "_is_done", lambda event: False)
    check = LateCheck(torch.device("cpu"))
    add(check, 0)
    add(check, 1, loss, norms)
    broken = check.finish()
    assert broken is not None
    assert (broken.step, broken.parameter) == (1, parameter)
    assert check.finish() is None


def test_a_late_look_changes_no_number(late, tmp_path, monkeypatch):
    settings = tiny_settings(optimizer=OptimizerSettings(gradient_clip=0.5, ema_decay=0.9), watched_parts=("test",))
    looked_late = train(settings, tmp_path / "late").folder
    monkeypatch.undo()
    at_once = train(settings, tmp_path / "once").folder
    assert weights(looked_late) == weights(at_once)
    assert repeatable_metrics(looked_late) == repeatable_metrics(at_once)


def test_what_is_broken_never_reaches_the_weights(late, tmp_path):
    name = "network.conv_capsules1.weight"
    spoil = Spoil(name)
    with pytest.raises(TrainingDivergedError, match=f"the gradient of {name} is not finite at step 7"):
        train(tiny_settings(), tmp_path, callbacks=[spoil])
    assert len(spoil.seen) >= 3  # steps that went on
    assert all(torch.equal(one, spoil.seen[0]) for one in spoil.seen)


def test_the_last_step_of_an_epoch_is_seen_before_it_is_recorded(late, tmp_path):
    class AtTheEnd(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            if trainer.global_step == 9:
                batch.images[0, 0, 3, 3] = float("nan")

    with pytest.raises(TrainingDivergedError, match="at step 9, first in the input images"):
        train(tiny_settings(), tmp_path, callbacks=[AtTheEnd()])
    assert [row["epoch"] for row in repeatable_metrics(tmp_path)] == ["1"]


def test_no_checkpoint_holds_a_broken_step(late, tmp_path):
    spoil = Spoil("network.stem.weight")
    with pytest.raises(TrainingDivergedError, match="at step 7"):
        train(tiny_settings(checkpoint_minutes=AT_EVERY_STEP), tmp_path, callbacks=[spoil])
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert read_checkpoint(newest)["global_step"] == 7


@pytest.mark.parametrize("is_frozen", [False, True])
def test_the_mean_of_the_weights_without_waiting(tmp_path, monkeypatch, is_frozen):
    """As torch's own, to rounding; with frozen weights, statistics and a first step that copies."""

    def make_frozen(*arguments, _make=run.make_network, **options):
        network = _make(*arguments, **options)
        freeze(network, *(["stem"] if is_frozen else []))
        return network

    monkeypatch.setattr(run, "make_network", make_frozen)
    settings = tiny_settings(
        model=replace(TINY, normalisation="batch", activation_rule="relative"),
        optimizer=OptimizerSettings(ema_decay=0.7),
        epochs=2,
    )
    expected, _ = load_run(train(settings, tmp_path / "torch").folder)

    monkeypatch.setattr(AveragedWeights, "update", AveragedWeights.update_without_waiting)
    found, _ = load_run(train(settings, tmp_path / "here").folder)
    pairs = [*zip(found.state_dict().items(), expected.state_dict().values(), strict=True)]
    for (name, one), other in pairs:
        torch.testing.assert_close(one, other, msg=lambda said, name=name: f"{name}: {said}")


def make_training(kind):
    """A module with its network, and perhaps a decoder."""
    settings = tiny_settings(optimizer=OptimizerSettings(gradient_clip=1.0, ema_decay=0.9))
    if kind == "cnn":
        network = create_model("baseline-cnn", in_channels=1, num_classes=10, image_size=(28, 28), channels1=2)
        return Training(replace(settings, loss=LossSettings(name="cross-entropy")), network, 5)
    changes = {"normalisation": "batch", "activation_rule": "relative"} if kind == "normalised" else {}
    network = create_model("quickstart", implementation="reference", **changes)
    if kind != "decoder":
        return Training(settings, network, 5)
    loss = LossSettings(name="margin", reconstruction_weight=0.0005)
    return Training(replace(settings, loss=loss), network, 5, PoseDecoder(10, (1, 28, 28)))


@pytest.mark.parametrize("kind", ["capsules", "normalised", "decoder", "cnn"])
def test_a_step_asks_the_device_for_nothing(monkeypatch, kind):
    """On the meta device, where a number that is asked for is an error: loss, norm, clipping, counts and averages."""
    device = torch.device("meta")
    training = make_training(kind).to(device)
    monkeypatch.setattr(Training, "_checks_late", property(lambda self: True))
    monkeypatch.setattr(late_check, "_is_done", lambda event: False)
    optimizer = torch.optim.SGD(training.parameters(), 0.1)
    averaging = AveragedWeights(training, 0.9)
    loop: Any = None
    watch = StuckWatch(IMAGES, tuple("abcdefghij"))
    watch.on_train_epoch_start(loop, training)
    labels = torch.zeros(4, dtype=torch.int64, device=device)
    batch = SimpleNamespace(images=torch.zeros(4, 1, 28, 28, device=device), labels=labels)
    for step in range(3):
        outputs = training(batch)
        outputs["loss"].backward()
        training.clip_gradient(optimizer)
        training.global_step = step + 1
        averaging.update_without_waiting()
        watch.on_train_batch_end(loop, training, outputs, batch, step)  # type: ignore[arg-type]
    assert optimizer.found_inf.device == device
    with evaluation_mode(training.network), pytest.raises((RuntimeError, NotImplementedError)):
        training.check_finite(batch.images)  # which does ask
