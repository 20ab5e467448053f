"""The commands that write and read files, each so small that it takes about a second."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from matcaps.data import DataSettings, SplitSettings
from matcaps.models import create_model
from matcaps.training import OptimizerSettings
from matcaps.training.record import write_settings
from tests.support.faults.server import Server
from tests.support.folders import make_folder, write_table
from tests.support.runs import AT_EVERY_STEP, tiny_settings

TINY = tiny_settings(
    epochs=2,
    checkpoint_minutes=AT_EVERY_STEP,
    agreement_every=0,
    views_every=0,
    data=DataSettings(
        max_train_images=16, max_test_images=10, batch_size=8, split=SplitSettings(validation_fraction=0.1)
    ),
    optimizer=OptimizerSettings(ema_decay=0.9, gradient_clip=2.0),
)
TRAIN = ["train", "--config=config.yaml", "--output=run", "--report=false"]
RESUME = ["train", "--resume=run", "--report=false"]


@dataclass(frozen=True)
class Scenario:
    """A command and what it needs.

    Attributes:
        arguments: of the command, which writes into the folder ``run`` of the place where it runs.
        prepare: makes what it needs, in that place.
        again: the arguments that continue it after a fault, by the place; None: the same once more.
        reads_alone: it writes nothing.
        goes_without: it ends well without what it could not write.
        in_one: either all its files are the new ones or none is, unless the fault lasts.
    """

    arguments: list[str]
    prepare: Callable[[Server, Path], None]
    again: Callable[[Path], list[str]] | None = None
    reads_alone: bool = False
    goes_without: bool = False
    in_one: bool = False

    def after(self, place: Path) -> list[str]:
        """The arguments that continue it."""
        return self.arguments if self.again is None else self.again(place)


def _config(_: Server, place: Path) -> None:
    write_settings(place / "config.yaml", TINY.to_dict())


def _resume_or_train(place: Path) -> list[str]:
    return RESUME if (place / "run" / "settings.yaml").is_file() else TRAIN


def _trained(server: Server, place: Path) -> None:
    _config(server, place)
    ended = server.run(TRAIN, place)
    assert ended.status == 0, ended.errors


def _interrupted(server: Server, place: Path) -> None:
    """A run that a full disk ended at the second epoch's first checkpoint."""
    _config(server, place)
    ended = server.run(TRAIN, place, "ENOSPC from then on")
    renames = [line for line in ended.calls if "within-epoch.ckpt" in line and " rename " in line]
    shutil.rmtree(place / "run")
    ended = server.run(TRAIN, place, "ENOSPC from then on", int(renames[-1].split()[0]) + 1)
    assert ended.status == 1, ended.errors


def _with_pictures(server: Server, place: Path) -> None:
    _trained(server, place)
    make_folder(place / "run" / "pictures", {"bee": 2, "cow": 2})


def _folds(_: Server, place: Path) -> None:
    (place / "run").mkdir()
    names = make_folder(place / "pictures", {"bee": 9, "cow": 9})
    write_table(place / "groups.csv", [(name, f"g{number % 3}") for number, name in enumerate(names)])
    (place / "space.yaml").write_text("optimizer.learning_rate: {low: 0.001, high: 0.1}\n")


_SMALL = [
    "--recipe=quickstart",
    "--epochs=1",
    "--groups=groups.csv",
    "--folds=2",
    "--folder=run",
    "--name=small",
    *(
        f"--set={one}"
        for one in (
            "data.name=folder",
            "data.folder=pictures",
            "data.image_size=28",
            "data.batch_size=4",
            "model.preset=baseline-cnn",
            "model.channels1=2",
            "model.channels2=2",
            "model.hidden_units=8",
            "views_every=0",
            "agreement_every=0",
        )
    ),
]


def _folds_done(server: Server, place: Path) -> None:
    _folds(server, place)
    ended = server.run(["experiment", "folds", *_SMALL], place)
    assert ended.status == 0, ended.errors


def _saved(_: Server, place: Path) -> None:
    """A model that the program saves another over."""
    torch.manual_seed(0)
    create_model("baseline-cnn", channels1=2, channels2=2, hidden_units=8, num_classes=2).save_pretrained(
        place / "run", classes=["old", "older"]
    )


def _downloads(_: Server, place: Path) -> None:
    (place / "run").mkdir()


SCENARIOS = {
    "train": Scenario(TRAIN, _config, _resume_or_train),
    "resume": Scenario(RESUME, _interrupted),
    "report": Scenario(["report", "run"], _trained),
    "inspect": Scenario(["inspect", "run", "--num_images=10", "--output=run/inspect"], _trained),
    "export": Scenario(["export", "run", "--output=run/network.onnx", "--overwrite"], _trained),
    "eval": Scenario(["eval", "run"], _trained, reads_alone=True),
    "predict": Scenario(["predict", "run", "run/pictures"], _with_pictures, reads_alone=True),
    "folds": Scenario(["experiment", "folds", *_SMALL], _folds),
    "table": Scenario(["table", "folds", "run"], _folds_done),
    "sweep": Scenario(["experiment", "sweep", "--space=space.yaml", "--trials=1", *_SMALL], _folds),
    "save": Scenario(["python", "save"], _saved, in_one=True),
    "fetch": Scenario(["python", "fetch"], _downloads),
    "cache": Scenario(["python", "cache"], _downloads, goes_without=True),
}
PLANTED = {"careless": Scenario(["python", "careless"], _downloads)}
"""What the sweep must find fault with."""
