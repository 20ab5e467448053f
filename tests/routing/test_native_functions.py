"""The core's own exp and log, in units in the last place, and its choice of instruction sets."""

import pytest
import torch

from matcaps.routing import RoutingInputs, RoutingSpec, native
from matcaps.routing.native_library import load

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason="the compiled core is missing")

TARGETS = ("baseline", "avx2", "avx512", "neon")


@pytest.fixture(params=TARGETS)
def target(request):
    best = native.LIBRARY.target
    if not native.LIBRARY.set_target(request.param):
        pytest.skip(f"{request.param} code is not in this build, or does not run here")
    yield request.param
    assert native.LIBRARY.set_target(best)


def ulps(found, exact):
    """Largest error in units in the last place of the float that is nearest to the exact value."""
    rounded = exact.to(found.dtype)
    unit = (torch.nextafter(rounded.abs(), torch.full_like(rounded, torch.inf)) - rounded.abs()).double()
    return ((found.double() - exact).abs() / unit).max().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exp(target, dtype):
    lowest = -87.3 if dtype == torch.float32 else -708.0
    x = torch.cat([torch.linspace(lowest, 0, 200_001), torch.linspace(-1, 1, 100_001)]).to(dtype)
    assert ulps(native.LIBRARY.elementwise("exp", x), x.double().exp()) <= (1.1 if dtype == torch.float32 else 2.5)
    special = torch.tensor([0.0, -torch.inf, -1e30, torch.nan], dtype=dtype)
    found = native.LIBRARY.elementwise("exp", special)
    assert found[:3].tolist() == [1, 0, 0]
    assert found[3].isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log(target, dtype):
    x = torch.cat([torch.logspace(-37, 37, 200_001, dtype=torch.float64), torch.linspace(0.5, 2, 100_001)]).to(dtype)
    assert ulps(native.LIBRARY.elementwise("log", x), x.double().log()) <= (1.1 if dtype == torch.float32 else 2.5)
    special = torch.tensor([1.0, torch.inf, 0.0, torch.nan], dtype=dtype)
    found = native.LIBRARY.elementwise("log", special)
    assert found[:3].tolist() == [0, torch.inf, -torch.inf]
    assert found[3].isnan()


def test_the_environment_chooses_the_instruction_set(monkeypatch):
    monkeypatch.setenv("MATCAPS_NATIVE_TARGET", "baseline")
    best = native.LIBRARY.target
    try:
        assert load().target == "baseline"  # the library keeps one choice a process
        monkeypatch.setenv("MATCAPS_NATIVE_TARGET", "8086")
        assert "asks for '8086', which this build or processor lacks" in load()
    finally:
        assert native.LIBRARY.set_target(best)


def test_instruction_sets_agree(target):
    torch.manual_seed(0)
    inputs = torch.randn(2, 6, 5, 3, 4, 4), torch.rand(2, 6, 5, 3), torch.randn(3, 3, 3, 11, 4, 4)
    inputs = [x.requires_grad_() for x in (*inputs, torch.randn(11), torch.randn(11))]
    spec = RoutingSpec(stride=2, annealing=1 / 16)
    best = next(name for name in ("avx512", "avx2", "baseline", "neon") if native.LIBRARY.set_target(name))
    results = {}
    for name in (best, target):
        assert native.LIBRARY.set_target(name)
        parents, _ = native.route(RoutingInputs(*inputs, torch.tensor([0.01, 0.02])), spec, False)
        total = parents[0].sum() + parents[1].sum()
        results[name] = [*parents, *torch.autograd.grad(total, inputs)]
    for found, expected in zip(results[target], results[best], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())
