import pytest
import torch
from torch import nn

from matcaps.models import create_model, list_models, summarise


def test_the_tutorials_table():
    rows = {row.name: row for row in summarise(create_model("tutorial"), (28, 28))}
    assert {name: row.shapes for name, row in rows.items()} == {
        "image": ((1, 28, 28),),
        "stem": ((32, 14, 14),),
        "primary_capsules": ((14, 14, 32, 4, 4), (14, 14, 32)),
        "conv_capsules1": ((6, 6, 32, 4, 4), (6, 6, 32)),
        "conv_capsules2": ((4, 4, 32, 4, 4), (4, 4, 32)),
        "class_capsules": ((10, 4, 4), (10,)),
    }
    assert rows["conv_capsules1"].num_parameters == 9 * 32 * 32 * 16 + 2 * 32


@pytest.mark.parametrize("preset", list_models())
def test_counts_add_up_and_the_model_is_as_before(preset):
    model = create_model(preset)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = summarise(model, (32, 32))
    assert sum(row.num_parameters for row in rows) == sum(parameter.numel() for parameter in model.parameters())
    assert rows[-1].shapes[-1] == (model.config.num_classes,)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_each_part_stays_in_its_mode():
    model = create_model("quickstart")
    model.stem.eval()
    summarise(model, (28, 28))
    assert model.training
    assert not model.stem.training


def test_not_square():
    rows = summarise(create_model("quickstart"), (17, 40))
    assert rows[2].shapes[0][:2] == (9, 20)


def test_bad_input():
    with pytest.raises(TypeError, match="model must be an EMCapsNet or a BaselineCNN; got Linear"):
        summarise(nn.Linear(1, 1), (28, 28))
    with pytest.raises(ValueError, match=r"images must have at least 13 rows and columns.*got 8×8"):
        summarise(create_model("tutorial"), (8, 8))
    with pytest.raises(ValueError, match="images must have shape"):
        summarise(create_model("baseline-cnn"), (28, 28))
