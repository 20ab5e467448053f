"""What --accelerator means, with GPUs made up."""

import pytest
import torch

from matcaps.cli import main
from matcaps.models import create_model
from matcaps.routing import cuda, native
from matcaps.training.devices import place, resolve_device

COMMANDS = {
    "eval": ["eval", "tutorial-mnist"],
    "predict": ["predict", "tutorial-mnist", "nothing.png"],
    "inspect": ["inspect", "tutorial-mnist", "--image", "nothing.png", "--num_images", "0"],
    "demo": ["demo", "tutorial-mnist"],
    "train": ["train", "quickstart", "--output", "run"],
    "experiment": ["experiment", "table1", "--folder", "runs"],
    "folds": ["experiment", "folds", "--recipe", "quickstart", "--folder", "runs", "--groups", "none.csv"],
}


def put_in(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    put_in(monkeypatch, 0)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    put_in(monkeypatch, 1)
    assert resolve_device("auto") == resolve_device("gpu") == torch.device("cuda", 0)
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(native.MISSING is not None, reason="the compiled core is missing")
def test_routing_that_only_the_cpu_has_stays_there(monkeypatch):
    """A run whose settings ask for the compiled core is tested by it, whatever the machine has."""
    put_in(monkeypatch, 1)
    assert resolve_device("auto", implementation="native") == torch.device("cpu")
    with pytest.raises(ValueError, match="implementation='native' computes in float32 or float64 on the CPU"):
        resolve_device("gpu", implementation="native")
    assert place(create_model("quickstart", implementation="native")) == torch.device("cpu")


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "SLURM_LOCALID"])
def test_each_process_of_several_has_its_own(monkeypatch, variable):
    put_in(monkeypatch, 4)
    assert resolve_device("gpu", 4) == torch.device("cuda", 0)
    monkeypatch.setenv(variable, "3")
    assert resolve_device("gpu", 4) == torch.device("cuda", 3)
    assert resolve_device("gpu") == torch.device("cuda", 0)  # the only one of its machine


@pytest.mark.parametrize("implementation", ["native", "cuda"])
def test_an_implementation_that_is_not_installed_is_refused_in_one_line(monkeypatch, implementation, tmp_path, capsys):
    """By every command, before anything is written: it is a user's mistake, and not one of ours."""
    monkeypatch.chdir(tmp_path)
    put_in(monkeypatch, 1)
    monkeypatch.setattr({"native": native, "cuda": cuda}[implementation], "MISSING", "something is not installed")
    network = create_model("quickstart", implementation=implementation)
    with pytest.raises(ValueError, match=f"implementation='{implementation}' is not available: something is not inst"):
        place(network)
    assert main(["train", "quickstart", "--output", "run", f"--model.implementation={implementation}"]) == 1
    complaint = capsys.readouterr().err
    assert f"implementation='{implementation}' is not available: something is not installed" in complaint
    assert not (tmp_path / "run").exists()


def test_refusals(monkeypatch):
    put_in(monkeypatch, 1)
    with pytest.raises(ValueError, match="accelerator must be auto, cpu or gpu; got 'tpu'"):
        resolve_device("tpu")
    with pytest.raises(
        ValueError, match=r"accelerator gpu must have 2 GPU.*can use 1 here: use --accelerator cpu, or fewer"
    ):
        resolve_device("gpu", 2)


@pytest.mark.parametrize("command", ["eval", "predict", "inspect", "train"])
def test_one_clear_error_without_a_gpu(monkeypatch, capsys, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    put_in(monkeypatch, 0)
    assert main([*COMMANDS[command], "--accelerator", "gpu"]) == 1
    said = capsys.readouterr().err
    assert "accelerator gpu must have 1 GPU; torch can use 0 here: use --accelerator cpu" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_command_knows_its_values(capsys, command):
    with pytest.raises(SystemExit) as ending:
        main([*COMMANDS[command], "--accelerator", "tpu"])
    assert ending.value.code == 2
    assert "accelerator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gpus", "arguments"), [(0, []), (1, ["--accelerator", "cpu"]), (2, ["--accelerator", "gpu", "--devices", "2"])]
)
def test_a_graph_is_for_one_gpu(monkeypatch, capsys, tmp_path, gpus, arguments):
    put_in(monkeypatch, gpus)
    run = tmp_path / "run"
    assert main(["train", "quickstart", "--cuda_graph", "true", "--output", str(run), *arguments]) == 1
    assert "cuda_graph is for a training on one GPU; got" in capsys.readouterr().err
    assert not run.exists()
