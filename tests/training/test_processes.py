"""Several processes that train together."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from matcaps.training import OptimizerSettings, train
from matcaps.training.record import read_metrics
from tests.support.runs import repeatable_metrics, tiny_settings, write_config


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_processes_are_one_with_twice_the_batch(reduction, tmp_path):
    one = tiny_settings(
        epochs=2,
        optimizer=OptimizerSettings(ema_decay=0.9, gradient_clip=2.0),
        # the sum with a decoder, whose loss is a sum, too
        loss=replace(tiny_settings().loss, reduction=reduction, reconstruction_weight=0.001 * (reduction == "sum")),
    )
    two = replace(one, devices=2, data=replace(one.data, batch_size=4))
    done = subprocess.run(
        [sys.executable, "-m", "matcaps.cli", "train", write_config(two, tmp_path), "--output=two", "--report=false"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert done.stdout.count("epoch 2/2") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "two"]
    train(one, tmp_path / "one")
    assert float(read_metrics(tmp_path / "two" / "metrics.csv")[-1]["agreement/share_true_3"]) > 0
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=1e-3, rtol=1e-2, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert len(read_metrics(tmp_path / "two" / "metrics.csv")) == 2
    for single, double in zip(*(repeatable_metrics(tmp_path / name) for name in ("one", "two")), strict=True):
        assert single["step"] == double["step"]
        for name in ("train/loss", "train/gradient_norm", "train/accuracy", "train/margin", "validation/accuracy"):
            assert abs(float(single[name]) - float(double[name])) < 1e-2, name
        if reduction == "sum":
            drawn = [float(metrics["train/reconstruction_loss"]) for metrics in (single, double)]
            assert drawn[1] == pytest.approx(drawn[0], rel=1e-2)


def test_two_processes_have_the_same_statistics(tmp_path):
    settings = tiny_settings(
        epochs=1,
        devices=2,
        model=replace(tiny_settings().model, normalisation="batch", activation_rule="relative"),
        optimizer=OptimizerSettings(ema_decay=None),
    )
    script = tmp_path / "train.py"
    script.write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from matcaps.training.loop import Callback\n"
        "from matcaps.models.statistics import statistics_of\n"
        "from matcaps.training import TrainSettings, train\n"
        "from matcaps.training.record import read_settings\n"
        "class Compare(Callback):\n"
        "    def on_train_epoch_end(self, trainer, module):\n"
        "        own = torch.cat([one.flatten() for one in statistics_of(module.network)])\n"
        "        every = [torch.empty_like(own) for _ in range(trainer.world_size)]\n"
        "        torch.distributed.all_gather(every, own)\n"
        "        assert torch.equal(*every), 'the statistics differ'\n"
        "        print(f'compared {trainer.world_size}\\n', end='', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    settings = TrainSettings.from_dict(read_settings(Path('config.yaml')))\n"
        "    train(settings, 'run', callbacks=[Compare()])\n"
    )
    write_config(settings, tmp_path)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compared 2") == 2
