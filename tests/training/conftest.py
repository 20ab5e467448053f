"""Most of a tiny training is the calibration of its network: the same network on the same images is calibrated once."""

import hashlib

import pytest
import torch

from matcaps.models import EMCapsNet


@pytest.fixture(scope="session", autouse=True)
def _calibrated_once():
    """What a calibration makes of a network is kept by its weights, its images and what it is told.

    What calibration does is for ``tests/layers/test_calibration.py`` and ``tests/models``.
    """
    known: dict[str, tuple[tuple[str, ...], dict[str, torch.Tensor], torch.Tensor]] = {}
    calibrate = EMCapsNet.calibrate

    def calibrate_once(network, images, *arguments, **options):
        learns = [parameter.requires_grad for parameter in network.parameters()]
        digest = hashlib.sha256(repr((network.config, arguments, options, network.training, learns)).encode())
        for tensor in (images, torch.get_rng_state(), *network.state_dict().values()):
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        name = digest.hexdigest()
        if name in known:
            chosen, state, random = known[name]
            network.load_state_dict(state)
            torch.set_rng_state(random)
            return chosen
        chosen = calibrate(network, images, *arguments, **options)
        if chosen:  # else it warns
            state = {entry: tensor.clone() for entry, tensor in network.state_dict().items()}
            known[name] = chosen, state, torch.get_rng_state()
        return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EMCapsNet, "calibrate", calibrate_once)
        yield
