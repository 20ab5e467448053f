"""The command: what it says and returns on good and on bad input."""

import gzip
import itertools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import matcaps
from matcaps import cli
from matcaps.cli import train as cli_train
from matcaps.cli.train import flatten
from matcaps.data import DataSettings, load_data
from matcaps.data.idx import write_idx
from matcaps.inference import saved
from matcaps.training import Evaluation, LossSettings, OptimizerSettings, TrainSettings, recipe_settings, train
from matcaps.training.record import read_settings, write_settings
from tests.support.runs import Stop, StoppedError, tiny_settings, weights

pytestmark = pytest.mark.usefixtures("elsewhere")
TINY = [
    "--model.stem_channels=4",
    "--model.stem_stride=4",
    "--model.primary_capsules=2",
    "--model.conv_capsules1=2",
    "--model.conv_capsules2=2",
    "--data.max_train_images=20",
    "--data.max_test_images=20",
    "--epochs=1",
    "--accelerator=cpu",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tiny_settings(epochs=1), tmp_path_factory.mktemp("run")).folder


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.raises(StoppedError):
        train(tiny_settings(), folder, callbacks=[Stop("on_train_batch_start", 1)])
    return folder


def make_mnist(root: Path, *, size: int = 28, num_train: int = 30) -> Path:
    folder = root / "mnist"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0)
    for prefix, count in (("train", num_train), ("t10k", 20)):
        images = pixels.integers(0, 256, (count, size, size), dtype=np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    return root


# What needs no torch


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["train", "mnist", "--help"], ["--version"], ["models"], ["eval", "-h"]],
)
def test_quick_commands_load_no_torch(arguments):
    code = f"""
import sys
from matcaps import cli
try:
    cli.main({arguments!r})
except SystemExit:
    pass
heavy = {{"torch", "lightning", "torchmetrics", "tensorboard", "PIL"}}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    assert python(code).splitlines()[-1] == "loaded: []"


def test_import_loads_no_torch():
    assert python("import sys, matcaps; print('torch' in sys.modules, matcaps.__version__)") == (
        f"False {matcaps.__version__}\n"
    )


def test_help_names_every_command(call):
    for arguments in ([], ["--help"], ["-h"]):
        status, printed, complaint = call(*arguments)
        assert (status, complaint) == (0, "")
        for name in ("train", "eval", "predict", "summary", "models", "data", "doctor"):
            assert f"\n  {name} " in printed


def test_help_of_train_explains_settings(call):
    status, printed, _ = call("train", "smallnorb", "--help")
    assert status == 0
    text = " ".join(printed.split())
    for setting in (
        "--model.implementation",
        "--model.annealing",
        "--optimizer.ema_decay",
        "--data.split.rule",
        "--checkpoint_minutes",
    ):
        assert setting in text
    assert "0.0625 learns far faster" in text
    assert "smallnorb" in text


def test_console_script():
    script = Path(sys.executable).with_name("matcaps")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"matcaps {matcaps.__version__}"


def test_models(call):
    assert call("models") == (0, "\n".join(matcaps.list_models()) + "\n", "")


def test_unknown_command(refuse):
    assert "train, eval, predict" in refuse("there is no command 'trian'", "trian")


@pytest.mark.parametrize("command", ["train", "eval", "predict", "summary", "models", "data", "doctor"])
def test_unknown_option(refuse, command):
    needed = {"train": ["quickstart"], "eval": ["x"], "predict": ["x", "y"], "summary": ["paper"], "data": ["list"]}
    refuse("--nonsense", command, *needed.get(command, []), "--nonsense=3")


@pytest.mark.parametrize("command", ["eval", "predict", "summary", "data"])
def test_missing_argument(refuse, command):
    refuse("required", command)


# summary


def test_summary_of_the_tutorial(call):
    status, printed, _ = call("summary", "tutorial")
    assert status == 0
    for text in ("14×14×32×4×4", "6×6×32×4×4", "4×4×32×4×4", "10×4×4", "318,964"):
        assert text in printed


def test_summary_of_others(call):
    assert "4,253,349" in call("summary", "baseline-cnn")[1]
    status, printed, _ = call("summary", "paper-small", "--in_channels=3", "--num_classes=7", "--image_size=48")
    assert status == 0
    assert "3×48×48" in printed
    assert "7×4×4" in printed


def test_bad_summaries(refuse):
    refuse("preset must be one of", "summary", "papper")
    refuse("images must have at least 13 rows and columns", "summary", "tutorial", "--image_size=8")
    refuse("image_size must be int; got 'big'", "summary", "tutorial", "--image_size=big")
    refuse("num_classes must be a whole number of at least 2; got 0", "summary", "tutorial", "--num_classes=0")
    refuse("in_channels must be a whole number of at least 1; got 0", "summary", "tutorial", "--in_channels=0")
    refuse("image_size must be", "summary", "tutorial", "--image_size=-3")


# data and doctor


def test_data_list(call, tmp_path):
    status, printed, _ = call("data", "list")
    assert status == 0
    assert "embedded: there" in printed
    assert "mnist: missing train-images-idx3-ubyte.gz" in printed
    root = make_mnist(tmp_path / "root")
    assert "  mnist: there" in call("data", "list", "mnist", "--root", root)[1]


def test_data_verify(call, tmp_path):
    status, printed, _ = call("data", "verify", "mnist")
    assert status == 1
    assert printed.count("missing") == 4
    status, printed, _ = call("data", "verify", "mnist", "--root", make_mnist(tmp_path / "root"))
    assert status == 1
    assert "t10k-images" in printed


def test_bad_data_commands(refuse):
    refuse("the action must be list, fetch or verify; got 'lst'", "data", "lst")
    refuse("the data set must be one of mnist, fashion-mnist, smallnorb; got 'norb'", "data", "fetch", "norb")
    refuse("name what to fetch", "data", "fetch")


def test_fetch_into_what_is_no_folder(refuse, tmp_path):
    (tmp_path / "file").write_text("")
    refuse("file", "data", "fetch", "mnist", "--root", tmp_path / "file")


def test_doctor(call, tmp_path):
    status, printed, complaint = call("doctor", "--root", make_mnist(tmp_path / "root"))
    assert (status, complaint) == (0, "")
    for text in (matcaps.__version__, "routing on cpu", "torch", "smallnorb", "data root"):
        assert text in printed


@pytest.mark.parametrize("broken", [False, True])
def test_doctor_says_why_cuda_kernels_cannot_be_compiled(call, broken, monkeypatch):
    from matcaps.routing import cuda

    if broken:  # the package without its library
        cuda_program = pytest.importorskip(
            "matcaps.routing.cuda_program", reason="no cuda-bindings", exc_type=ImportError
        )

        def fail():
            raise RuntimeError("Failure finding libnvrtc.so\nmore lines")

        monkeypatch.setattr(cuda_program, "nvrtc_version", fail)
        monkeypatch.setattr(cuda, "why_no_compiler", cuda.why_no_compiler.__wrapped__)
    else:
        monkeypatch.setattr(cuda, "MISSING", "cuda-bindings is not installed: pip install 'matcaps[cuda]'")
    status, printed, _ = call("doctor")
    said = " ".join(printed.split())
    assert status == 0
    assert "CUDA kernels cannot be compiled: " in said
    assert "pip install 'matcaps[cuda]'" in said
    assert ("libnvrtc.so)" in said) == broken


# train


def test_train_with_another_implementation_keeps_it_with_the_run(call, refuse):
    assert (
        call("train", "quickstart", *TINY, "--output=run", "--model.implementation=reference", "--report=false")[0] == 0
    )
    assert read_settings(Path("run/settings.yaml"))["model"]["implementation"] == "reference"
    assert matcaps.from_pretrained("run").config.implementation == "reference"
    refuse("implementation", "train", "quickstart", "--output=other", "--model.implementation=cuda")


@pytest.mark.filterwarnings("ignore:.*one grey level all over")
def test_train_eval_predict(call, tmp_path):
    status, printed, _ = call("train", "quickstart", *TINY, "--output=run", "--optimizer.ema_decay=null", "--seed=3")
    assert status == 0
    assert "epoch 1/1" in printed
    assert "test accuracy" in printed
    assert "run folder: run" in printed
    settings = TrainSettings.from_dict(read_settings(Path("run/settings.yaml")))
    assert (settings.recipe, settings.seed, settings.optimizer.ema_decay) == ("quickstart", 3, None)
    assert (settings.model.stem_stride, settings.data.max_train_images) == (4, 20)

    status, printed, _ = call("eval", "run")
    assert status == 0
    assert "confusion" in printed
    assert "ankle boot" in printed
    assert "on 1000 images" in printed

    images = []
    for name, mode, size in (
        ("grey.png", "L", (28, 28)),
        ("colour.jpg", "RGB", (40, 31)),
        ("clear.png", "RGBA", (9, 9)),
    ):
        Image.new(mode, size, 100).save(tmp_path / name)
        images.append(tmp_path / name)
    status, printed, _ = call("predict", "run", *images)
    assert status == 0
    assert [line.split(": ")[0] for line in printed.splitlines()] == [str(path) for path in images]
    scores = json.loads(call("predict", "run", images[0], "--json")[1])[str(images[0])]
    assert len(scores) == 10
    assert all(0 <= score <= 1 for score in scores.values())


def test_eval_says_what_routing_does_for_the_true_class(call, run, refuse):
    status, printed, _ = call("eval", run, "--part=validation", "--agreement")
    assert status == 0
    assert "its share of the data, % (chance 10)" in printed
    assert "conv_capsules2" in printed
    measured = json.loads(call("eval", run, "--part=validation", "--agreement", "--json")[1])["agreement"]
    assert len(measured["share_true"]) == len(measured["log_deviation_gap"]) == 3
    assert measured["num_images"] == 500
    assert "agreement" not in json.loads(call("eval", run, "--part=validation", "--json")[1])
    matcaps.create_model("baseline-cnn", num_classes=10, in_channels=1).save_pretrained(
        "cnn", classes=list("abcdefghij")
    )
    refuse("agreement is measured on capsule networks", "eval", "cnn", "--agreement")


def test_eval_as_json_and_on_other_parts(call, run):
    status, printed, _ = call("eval", run, "--json", "--part=validation", "--batch_size=7")
    assert status == 0
    found = json.loads(printed)
    assert 0 <= found["accuracy"] <= 1
    assert found["num_images"] == 500
    assert len(found["confusion"]) == 10


def test_eval_by_an_attribute(call, monkeypatch):
    asked = []
    found = Evaluation(
        accuracy=0.75,
        num_images=4,
        classes=("cat", "dog"),
        class_accuracy=(0.5, 1.0),
        confusion=((1, 1), (0, 2)),
        seconds=1.0,
        worst=(),
        class_accuracy_by={"instance": {3: (0.0, None), 5: (1.0, 1.0)}},
    )
    monkeypatch.setattr(saved, "evaluate_saved", lambda *run, **options: (asked.append(options["by"]), found)[1])
    status, printed, _ = call("eval", "run", "--by=instance")
    assert status == 0
    assert asked == ["instance"]
    rows = [re.findall(r"[\w.–]+", line) for line in printed.partition("errors, %")[2].splitlines()]
    assert ["instance", "cat", "dog"] in rows
    assert ["3", "100.0", "–"] in rows
    assert ["5", "0.0", "0.0"] in rows
    status, printed, _ = call("eval", "run", "--by=instance", "--json")
    assert json.loads(printed)["class_accuracy_by"] == {"instance": {"3": [0.0, None], "5": [1.0, 1.0]}}


def test_eval_on_other_data(call, run, tmp_path):
    root = make_mnist(tmp_path / "root")
    digits = Path(shutil.copytree(run, tmp_path / "digits"))
    config = json.loads((digits / "config.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as a user has it, for whom a warning is no error
        status, _, complaints = call("eval", run, "--data=mnist", "--root", root)
        assert status == 1
        assert "the data must have the network's classes" in complaints
        (digits / "config.json").write_text(json.dumps(config | {"classes": list("0123456789")}))
        status, printed, complaints = call("eval", digits, "--data=mnist", "--root", root, "--json")
    assert status == 0
    assert json.loads(printed)["num_images"] == 20
    assert complaints.startswith("matcaps eval: warning: ")
    assert "checksum differs" in complaints


def test_a_runs_settings_file_reproduces_it(call, run):
    status, _, _ = call("train", "--config", run / "settings.yaml", "--output=again")
    assert status == 0
    assert weights(Path("again")) == weights(run)
    assert read_settings(Path("again/settings.yaml")) == read_settings(run / "settings.yaml")


def test_the_file_of_an_earlier_versions_run_gives_that_run(run, tmp_path, monkeypatch):
    """What it does not name did not exist: not what today's recipe makes of it."""
    values = TrainSettings(recipe="smallnorb").to_dict() | {"epochs": 77}
    del values["optimizer"]["matrix_learning_rate"], values["views_every"]
    for name in ("crop_jitter", "max_elastic"):
        del values["data"]["transform"][name]
    write_settings(tmp_path / "settings.yaml", values)
    (tmp_path / "mine.yaml").write_text("recipe: smallnorb\nepochs: 77\n")
    trained: list[TrainSettings] = []
    monkeypatch.setattr(cli_train, "_fit", lambda settings, *rest, **more: trained.append(settings) or 0)
    for arguments in (
        ["--config", "settings.yaml"],
        ["smallnorb", "--config", "settings.yaml"],
        ["--config", "mine.yaml"],
    ):
        arguments[-1] = str(tmp_path / arguments[-1])
        assert cli_train.train_command(arguments) == 0
    assert trained[0] == trained[1] == TrainSettings(recipe="smallnorb", epochs=77)
    assert trained[2] == replace(recipe_settings("smallnorb"), epochs=77)  # a file of one's own changes the recipe


def test_a_setting_after_the_file_wins(call, run):
    status, _, _ = call("train", f"--config={run / 'settings.yaml'}", "--output=again", "--seed=9", "--loss.margin=0.3")
    assert status == 0
    before = TrainSettings.from_dict(read_settings(run / "settings.yaml"))
    after = TrainSettings.from_dict(read_settings(Path("again/settings.yaml")))
    assert after == replace(before, seed=9, loss=replace(before.loss, margin=0.3))


def test_settings_of_pythons_own_runs(call):
    settings = tiny_settings(recipe="custom", epochs=1, loss=LossSettings("margin"), optimizer=OptimizerSettings())
    write_settings(Path("mine.yaml"), settings.to_dict())
    assert call("train", "--config=mine.yaml", "--output=run")[0] == 0
    assert TrainSettings.from_dict(read_settings(Path("run/settings.yaml"))) == settings


def test_resume_takes_no_recipe(call, run):
    status, _, complaint = call("train", "quickstart", "--resume", run)
    assert status == 1
    assert "--resume goes on with a run as it was set up: give no recipe with it; got quickstart" in complaint


def test_resume(call, unfinished):
    status, printed, _ = call("train", "--resume", unfinished)
    assert status == 0
    assert "epoch 3/3" in printed
    assert "test accuracy" in printed


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("recipe must be one of quickstart, mnist", ["quikstart"]),
        ("name a recipe first: quickstart", []),
        ("epochs must be int; got 'ten'", ["quickstart", "--epochs=ten"]),
        ("epochs must be a whole number of at least 1; got 0", ["quickstart", "--epochs=0"]),
        ("preset must be one of", ["quickstart", "--model.preset=nope"]),
        ("preset 'quickstart' has no setting 'dropout'", ["quickstart", "--model.dropout=0.3"]),
        ("model.competition must be one of 'child', 'window'; got 'war'", ["quickstart", "--model.competition=war"]),
        ("data.name must be one of", ["quickstart", "--data.name=norb"]),
        ("--model.nonsense", ["quickstart", "--model.nonsense=3"]),
        ("learning_rate must be positive; got 0.0", ["quickstart", "--optimizer.learning_rate=0"]),
        ("1000 GPU must be there", ["quickstart", "--accelerator=gpu", "--devices=1000"]),
        ("mnist is not complete in", ["mnist"]),
        ("smallnorb is not complete in", ["smallnorb"]),
        ("folder must be given when name is 'folder'", ["quickstart", "--data.name=folder"]),
        ("no settings file none.yaml", ["--config=none.yaml"]),
        ("no settings file none.yaml", ["--config", "none.yaml"]),
        ("no settings.yaml in nowhere: is it the folder of a run?", ["--resume", "nowhere"]),
        ("no settings.yaml in nowhere: is it the folder of a run?", ["--resume=nowhere"]),
        ("no settings.yaml in nowhere: is it the folder of a run?", ["--resume", "nowhere", "--epochs=4"]),
    ],
)
def test_bad_training(refuse, text, arguments):
    refuse(text, "train", *arguments)


def test_output_that_is_not_empty(refuse):
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    refuse("full is there already and not empty", "train", "quickstart", *TINY, "--output=full")
    Path("file").write_text("mine")
    refuse("file is there already and not empty", "train", "quickstart", *TINY, "--output=file")


def test_output_that_cannot_be_written(refuse):
    Path("file").write_text("mine")
    refuse("file/run", "train", "quickstart", *TINY, "--output=file/run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(refuse):
    Path("locked").mkdir(mode=0o500)
    refuse("locked/run: Permission denied", "train", "quickstart", *TINY, "--output=locked/run")


def test_malformed_config(refuse):
    Path("a.yaml").write_text("- 1\n")
    refuse("a.yaml must hold a mapping of settings; got list", "train", "--config=a.yaml")
    Path("a.yaml").write_text("epochs: [1\n")
    refuse("a.yaml is not YAML", "train", "--config=a.yaml")
    Path("a.yaml").write_text("epoch: 1\n")
    refuse("epoch", "train", "--config=a.yaml")
    Path("a.yaml").write_text("recipe: nope\n")
    refuse("recipe must be one of", "train", "--config=a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {class_path: stranger.Thing}", "model in a.yaml must be a mapping of settings to plain values"),
        ("model: stranger.Thing", "model in a.yaml must be a mapping"),
        ("data: {split: stranger.Thing}", "data.split in a.yaml must be a mapping"),
        ("data: {transform: {class_path: stranger.Thing}}", "data.transform in a.yaml must be a mapping"),
        ("class_path: stranger.Thing", "class_path"),
        ("epochs: stranger.Thing", "epochs must be int"),
    ],
)
def test_a_config_cannot_have_a_module_imported(refuse, monkeypatch, text, message):
    Path("stranger.py").write_text("open('imported', 'w')")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("a.yaml").write_text(f"recipe: quickstart\n{text}\n")
    refuse(message, "train", "--config=a.yaml")
    assert not Path("imported").exists()


def test_two_configs_are_refused(refuse):
    Path("a.yaml").write_text("recipe: quickstart\n")
    refuse("--config takes one file of settings; got several", "train", "--config=a.yaml", "--config", "a.yaml")


def test_damaged_data(refuse, tmp_path):
    root = make_mnist(tmp_path / "root")
    images = root / "mnist" / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    options = ["mnist", *TINY, "--data.root", root, "--output=run"]
    images.write_bytes(whole[: len(whole) // 2])
    refuse("train-images-idx3-ubyte.gz is malformed", "train", *options)
    content = gzip.decompress(whole)
    images.write_bytes(gzip.compress(content[:-100]))
    refuse("train-images-idx3-ubyte.gz is malformed: expected", "train", *options)
    images.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 30, 20, 28) + content[16 : 16 + 30 * 20 * 28]))
    refuse("train-images-idx3-ubyte.gz", "train", *options)
    images.write_bytes(b"no idx file")
    refuse("train-images-idx3-ubyte.gz", "train", *options)


def test_divergence_is_one_line(refuse, call, monkeypatch, run):
    """The run's folder stays, with its last good checkpoint: that is no mistake of the arguments."""
    from matcaps.training.module import Training

    monkeypatch.setattr(Training, "_loss", lambda self, output, scores, *_: scores.sum() * float("nan"))
    status, _, complaint = call("train", "quickstart", *TINY, "--output=run")
    assert status == 1
    assert complaint.splitlines()[-1].startswith("matcaps train: the loss is nan at step 0")


# eval and predict


@pytest.mark.parametrize("command", [["eval"], ["predict"]])
def test_no_network(refuse, command, tmp_path):
    image = tmp_path / "image.png"
    Image.new("L", (28, 28)).save(image)
    more = [image] if command == ["predict"] else []
    refuse("no saved model at nowhere", *command, "nowhere", *more)
    refuse("has no model.safetensors and no config.json", *command, ".", *more)


def test_unfinished_run(refuse, tmp_path):
    with pytest.raises(StoppedError):
        train(tiny_settings(), tmp_path / "half", callbacks=[Stop("on_train_batch_start", 1)])
    for command in (["eval", tmp_path / "half"], ["predict", tmp_path / "half", "image.png"]):
        assert "matcaps train --resume" in refuse("has no final weights yet", *command)


def test_bad_evaluation(refuse, run, tmp_path):
    refuse("part must be one of train, validation, test", "eval", run, "--part=tset")
    refuse("must have the attribute 'instance'; they have none", "eval", run, "--by=instance")
    refuse("num_test_crops must be one of 1, 5, 9, 13; got 7", "eval", run, "--crops=7")
    refuse("mnist is not complete in", "eval", run, "--data=mnist")
    refuse("name must be one of", "eval", run, "--data=norb")
    refuse("it makes no 'familiar_test'", "eval", run, "--part=familiar_test")
    refuse("batch_size must be", "eval", run, "--batch_size=0")
    (tmp_path / "empty").mkdir()
    refuse("must hold a folder for each class", "eval", run, "--data=folder", "--folder", tmp_path / "empty")


def test_data_that_do_not_fit_the_network(refuse, run, tmp_path):
    for level, (split, name) in enumerate(itertools.product(("train", "test"), ("cats", "dogs"))):
        (tmp_path / "pets" / split / name).mkdir(parents=True)
        Image.new("L", (30, 30), level).save(tmp_path / "pets" / split / name / "1.png")
    text = "the data must have the network's classes, T-shirt/top, "
    refuse(text, "eval", run, "--data=folder", "--folder", tmp_path / "pets")
    refuse("; got cats, dogs in folder", "eval", run, "--data=folder", "--folder", tmp_path / "pets")


def test_images_of_another_size_are_not_tested_on(refuse, run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config["preprocessing"]["image_size"] = 32
    (copy / "config.json").write_text(json.dumps(config))
    refuse("the data must have images of 32 pixels a side, as the network takes; got 28 in embedded", "eval", copy)


@pytest.mark.filterwarnings("ignore:.*has no test part")
def test_a_copied_colour_network_is_tested_on_a_folder(call, tmp_path):
    for number in range(20):
        for place, name in enumerate(("bee", "cow")):
            path = tmp_path / "farm" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (40 + 90 * place, 10 * number, 90)).save(path)
    settings = tiny_settings(
        data=DataSettings("folder", folder=str(tmp_path / "farm"), channels=3, image_size=28, batch_size=4), epochs=1
    )
    network = train(settings, tmp_path / "run").folder
    (tmp_path / "copy").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(network / name, tmp_path / "copy" / name)
    status, printed, complaint = call("eval", tmp_path / "copy", "--data=folder", "--folder", tmp_path / "farm")
    assert (status, complaint) == (0, "")
    assert f"on {len(load_data(settings.data).test)} images" in printed


def test_one_class_alone_is_no_data(refuse, tmp_path):
    (tmp_path / "one" / "cats").mkdir(parents=True)
    for number in range(20):
        Image.new("L", (30, 30)).save(tmp_path / "one" / "cats" / f"{number}.png")
    text = "the data must have two classes or more; got cats alone"
    refuse(
        text,
        "train",
        "quickstart",
        "--data.name=folder",
        f"--data.folder={tmp_path / 'one'}",
        "--output",
        tmp_path / "run",
    )
    assert not (tmp_path / "run").exists()


def test_truncated_weights(refuse, run, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes((run / "config.json").read_bytes())
    (copy / "model.safetensors").write_bytes(weights(run)[:-10])
    refuse("is not a safetensors file, or not whole", "eval", copy)


def test_bad_images(refuse, run, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    refuse("text.png cannot be read as an image", "predict", run, tmp_path / "text.png")
    refuse("none.png: No such file or directory", "predict", run, tmp_path / "none.png")
    refuse(str(tmp_path), "predict", run, tmp_path)
    Image.effect_noise((28, 28), 50).save(tmp_path / "half.png")
    whole = (tmp_path / "half.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    refuse("half.png", "predict", run, tmp_path / "half.png")


def test_weights_without_a_description(refuse, tmp_path):
    network = matcaps.create_model(
        "quickstart", stem_channels=2, primary_capsules=1, conv_capsules1=1, conv_capsules2=1
    )
    network.save_pretrained(tmp_path / "bare")
    refuse("does not say what it was trained on", "eval", tmp_path / "bare")
    Image.new("L", (28, 28)).save(tmp_path / "image.png")
    refuse("does not say how its images were prepared", "predict", tmp_path / "bare", tmp_path / "image.png")


def test_interrupted(call, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "train", interrupt)
    status, _, complaint = call("train")
    assert status == 130
    assert "goes on with: matcaps train --resume" in complaint


def test_our_own_mistakes_are_not_hidden(monkeypatch):
    def stumble(*_):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setitem(cli.COMMANDS, "train", stumble)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        cli.main(["train"])


def test_settings_are_those_of_python():
    """Every setting of the dataclasses has its option, under the same name."""
    options = TrainSettings(data=DataSettings()).to_dict()
    del options["recipe"]
    from contextlib import redirect_stdout
    from io import StringIO

    printed = StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = printed.getvalue()
    for name in flatten(options):
        assert f"--{name} " in text, name


def test_another_preset_leaves_the_recipes_network_settings_behind(call):
    status, _, complaints = call(
        "train", "smallnorb", "--model.preset=baseline-cnn", "--data.root=nowhere", "--output=run"
    )
    assert status == 1
    assert "smallnorb is not complete" in complaints  # and not that a CNN has no annealing


# Experiments


def test_experiment_lists_its_trials_and_does_nothing(call):
    status, printed, _ = call("experiment", "table1", "--rows", "iterations-1,cnn", "--seeds", "0,1", "--list")
    assert status == 0
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        "runs/experiments/table1/iterations-1-55epochs-seed0",
        "runs/experiments/table1/cnn-15epochs-seed0",
        "runs/experiments/table1/iterations-1-55epochs-seed1",
        "runs/experiments/table1/cnn-15epochs-seed1",
    ]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("the experiment must be one of table1, viewpoints, attacks, mnist; got 'x'", ["x"]),
        ("rows of the experiment 'mnist' must be of capsules, tutorial, cnn; got 'x'", ["mnist", "--rows", "x"]),
        ("seeds must be whole numbers with commas between; got 'a'", ["mnist", "--seeds", "a"]),
        ("shard must be k/n with k from 1 to n; got 3/2", ["mnist", "--shard", "3/2"]),
        ("epochs must be a whole number of at least 1; got 0", ["mnist", "--epochs", "0"]),
    ],
)
def test_bad_experiments(refuse, text, arguments):
    refuse(text, "experiment", *arguments)


def test_bad_tables(refuse):
    refuse("the experiment must be one of", "table", "x")
    refuse("no folder runs/experiments: run matcaps experiment mnist", "table", "mnist")


@pytest.mark.filterwarnings("ignore:.*checksum differs")
def test_an_experiment_and_its_table(call, tmp_path):
    root = make_mnist(tmp_path / "data", num_train=400)
    command = ["experiment", "mnist", "--rows", "cnn", "--epochs", "1", "--root", root]
    status, printed, _ = call(*command)
    assert status == 0
    assert printed.splitlines()[0] == "trial 1 of 1: mnist/cnn-1epochs-seed0: the CNN"
    assert "1 done" in printed
    folder = Path("runs/experiments/mnist")
    assert (folder / "cnn-1epochs-seed0" / "distortions.json").is_file()
    status, printed, written = call("table", "mnist")
    assert status == 0
    assert "| the CNN | – |" in printed
    assert printed.count("not run yet") == 2
    assert (folder / "mnist.md").read_text(encoding="utf-8").strip() == printed.strip()
    for name in ("mnist.md", "mnist.png", "mnist.svg"):
        assert f"written: {folder / name}" in written
        assert (folder / name).stat().st_size > 100


def test_an_experiment_without_data_says_how_to_get_them(call):
    status, _, complaint = call("experiment", "table1", "--rows", "cnn")
    assert status == 1
    assert "smallnorb is not complete" in complaint
    assert "matcaps data fetch smallnorb" in complaint
