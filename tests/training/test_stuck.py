"""A training that stands still says so once; one that learns, or has learnt, says nothing."""

from dataclasses import replace

import pytest
import torch

from matcaps.models import EMCapsNet
from matcaps.report import collect_run, make_report
from matcaps.training import LossSettings, train
from matcaps.training import stuck as stuck_module
from matcaps.training.checkpoint_files import read_checkpoint
from matcaps.training.loop import Callback
from matcaps.training.module import Training
from matcaps.training.record import read_json, read_metrics
from tests.support.runs import AT_EVERY_STEP, STEPS, Stop, StoppedError, tiny_settings

SETTINGS = tiny_settings(epochs=4, views_every=0, loss=LossSettings(margin_schedule="constant"))


@pytest.fixture
def soon(monkeypatch):
    """Call it stuck after two epochs, whatever their steps: a whole training is short here."""
    monkeypatch.setattr(stuck_module.StuckWatch.__init__, "__defaults__", (2, 1))


class NoGradient(Callback):
    def on_after_backward(self, loop, training):
        for parameter in training.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1e-12)


class Saturated(Callback):
    """Hold a layer's rewards where its capsules are always on."""

    def on_train_batch_end(self, loop, training, outputs, batch, batch_idx):
        with torch.no_grad():
            training.network.conv_capsules2.routing.beta_activation.fill_(1e6)


def of(recwarn, text: str) -> list[str]:
    return [str(one.message) for one in recwarn.list if text in str(one.message)]


@pytest.mark.filterwarnings("default")
def test_a_gradient_that_has_vanished_is_one_warning_and_in_the_record(recwarn, tmp_path):
    train(SETTINGS, tmp_path / "run", callbacks=[NoGradient()])
    assert len(of(recwarn, "the training seems stuck: the gradient has vanished")) == 1
    assert "Try another --seed" in of(recwarn, "vanished")[0]
    said = read_json(tmp_path / "run" / "results.json")["warnings"]
    assert any(one.startswith("the gradient has vanished (norm ") for one in said)
    assert "It seemed stuck: the gradient has vanished" in make_report([collect_run(tmp_path / "run")])


@pytest.mark.filterwarnings("default")
def test_it_is_not_said_again_when_the_run_goes_on(recwarn, tmp_path):
    with pytest.raises(StoppedError):
        train(SETTINGS, tmp_path, callbacks=[NoGradient(), Stop("on_train_epoch_start", 2 * STEPS)])
    train(SETTINGS, tmp_path, resume=True, callbacks=[NoGradient()])
    assert len(of(recwarn, "the gradient has vanished")) == 1
    assert any("the gradient has vanished" in one for one in read_json(tmp_path / "results.json")["warnings"])


class Watched(Callback):
    """Keep what the watch counted at each epoch's end."""

    def __init__(self):
        self.counts = []

    def on_validation_start(self, loop, training):
        watch = next(one for one in loop.callbacks if isinstance(one, stuck_module.StuckWatch))
        self.counts.append((torch.stack(watch._norms), watch._predicted.clone(), watch._shown.clone()))


def test_an_epoch_that_was_interrupted_is_watched_whole(tmp_path):
    """What was seen of it before is in the checkpoint: warnings do not depend on interruptions."""
    whole, resumed = Watched(), Watched()
    settings = replace(SETTINGS, epochs=1, checkpoint_minutes=AT_EVERY_STEP)
    train(settings, tmp_path / "whole", callbacks=[whole])
    with pytest.raises(StoppedError):
        train(settings, tmp_path / "run", callbacks=[Stop("on_train_batch_start", 3)])
    train(settings, tmp_path / "run", resume=True, callbacks=[resumed])
    for one, other in zip(whole.counts[0], resumed.counts[0], strict=True):
        assert torch.equal(one, other)
    states = [read_checkpoint(tmp_path / name / "checkpoints" / "after-epoch.ckpt") for name in ("whole", "run")]
    assert states[0]["callbacks"]["StuckWatch"] == states[1]["callbacks"]["StuckWatch"]


@pytest.mark.filterwarnings("default")
def test_a_class_that_is_never_predicted_is_named(recwarn, soon, monkeypatch, tmp_path):
    scores = EMCapsNet.class_scores

    def never_the_last(output):
        found = scores(output)
        return torch.cat([found[:, :-1], found[:, -1:] * 1e-3], dim=1)

    monkeypatch.setattr(EMCapsNet, "class_scores", staticmethod(never_the_last))
    train(SETTINGS, tmp_path)
    found = of(recwarn, "no training image was predicted as")
    assert len(found) == 1
    assert "in 2 whole epochs" in found[0]


@pytest.mark.filterwarnings("default")
def test_a_layer_that_is_always_on_is_named(recwarn, soon, tmp_path):
    train(SETTINGS, tmp_path, callbacks=[Saturated()])
    found = of(recwarn, "all capsules of conv_capsules2 are saturated")
    assert len(found) == 1


@pytest.mark.filterwarnings("default")
def test_a_loss_that_is_met_has_no_gradient_and_is_not_called_stuck(recwarn, monkeypatch, tmp_path):
    """As the spread loss is where every image keeps the margin."""
    monkeypatch.setattr(Training, "_loss", lambda self, output, scores, *_, **__: scores.sum() * 0)
    train(SETTINGS, tmp_path)
    assert of(recwarn, "gradient") == []
    assert float(read_metrics(tmp_path / "metrics.csv")[-1]["train/gradient_norm"]) == 0
