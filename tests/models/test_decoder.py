import pytest
import torch

from matcaps.models import PoseDecoder


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 5, 9)])
def test_shapes(image_shape):
    decoder = PoseDecoder(7, image_shape, hidden_units=(6, 8))
    assert decoder(torch.randn(2, 7, 4, 4), torch.tensor([0, 6])).shape == (2, *image_shape)


def test_size_of_sabours():
    counts = [parameter.numel() for parameter in PoseDecoder(10, (1, 28, 28)).parameters()]
    assert counts == [160 * 512, 512, 512 * 1024, 1024, 1024 * 784, 784]


def test_only_the_chosen_pose_is_seen():
    decoder, poses = PoseDecoder(3, (1, 5, 5), hidden_units=(6, 8)), torch.randn(2, 3, 4, 4, requires_grad=True)
    classes = torch.tensor([2, 0])
    made = decoder(poses, classes)
    made.sum().backward()
    for index, label in enumerate(classes):
        others = torch.arange(3) != label
        assert poses.grad[index, label].any()
        assert not poses.grad[index, others].any()
    assert not torch.equal(decoder(poses, torch.tensor([1, 0]))[0], made[0])


@pytest.mark.parametrize(("poses", "classes"), [((2, 3, 16), (2,)), ((2, 4, 4, 4), (2,)), ((2, 3, 4, 4), (3,))])
def test_wrong_shapes(poses, classes):
    with pytest.raises(ValueError, match=r"poses must have shape \[B, 3, 4, 4\] and classes \[B\]; got "):
        PoseDecoder(3, (1, 5, 5), (6, 8))(torch.randn(poses), torch.zeros(classes, dtype=torch.int64))
