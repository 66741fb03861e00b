"""The average of the weights against one computed by hand."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from pix2seq_d.engine.ema import build_ema, build_power_ema, ema_distance


class Leaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("level", torch.zeros(2))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.level.fill_(2 * value)


def averaged(ema: nn.Module) -> Tensor:
    return ema.ema_model.weight


def by_hand(values: list[float], decay: float) -> float:
    """The first update copies; update k (from 1) after it averages with min(decay, 1 - (k + 1)^(-2/3))."""
    average = values[0]
    for k, value in enumerate(values[1:], 1):
        share = min(decay, 1 - (k + 1) ** (-2 / 3))
        average = share * average + (1 - share) * value
    return average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_average_by_hand(decay: float, count: int) -> None:
    values = [1.0, 5.0, -3.0, 8.0, 2.0, 4.0][:count]
    model = Leaf()
    ema = build_ema(model, decay=decay)
    for value in values:
        model.set(value)
        ema.update()
    assert torch.allclose(averaged(ema), torch.full((3,), by_hand(values, decay)), atol=1e-6)
    assert torch.allclose(ema.ema_model.level, torch.full((2,), 2 * by_hand(values, decay)), atol=1e-6)


def test_decay_warms_up_to_its_limit() -> None:
    model = Leaf()
    ema = build_ema(model, decay=0.9)
    decays = []
    for _ in range(60):
        ema.update()
        decays.append(ema.get_current_decay())
    assert decays[1] < decays[5] < decays[20] < 0.9
    assert decays[-1] == pytest.approx(0.9)


def test_average_is_a_copy_that_is_not_trained() -> None:
    model = Leaf()
    model.train()
    ema = build_ema(model, decay=0.9)
    assert ema.ema_model is not model
    assert not ema.ema_model.training
    assert model.training
    assert not any(p.requires_grad for p in ema.ema_model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    model.set(7.0)
    assert averaged(ema).tolist() == [0.0, 0.0, 0.0]
    ema.update()
    assert averaged(ema).tolist() == [7.0, 7.0, 7.0]


def test_only_the_average_is_in_its_state() -> None:
    model = Leaf()
    state = build_ema(model, decay=0.9).state_dict()
    assert sum("weight" in key for key in state) == 1


def test_saved_and_loaded_average_goes_on_as_if_nothing_was() -> None:
    model, other = Leaf(), Leaf()
    straight, resumed = build_ema(model, decay=0.9), build_ema(other, decay=0.9)
    for value in (1.0, 4.0, 2.0):
        model.set(value)
        straight.update()
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for value in (9.0, -1.0):
        for m, ema in ((model, straight), (other, resumed)):
            m.set(value)
            ema.update()
    assert torch.equal(averaged(straight), averaged(resumed))


@pytest.mark.parametrize("decay", [1.0, -0.1, 2.0])
def test_refuses_what_is_no_decay(decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema_decay: expected a number in \[0, 1\)"):
        build_ema(Leaf(), decay=decay)


@pytest.mark.parametrize(("gamma", "expected"), [(0, [9, 4.5, 6]), (1, [9, 9 / 4, 6])])
def test_power_average_by_hand(gamma: float, expected: list[float]) -> None:
    """Weights 9, 0, 9: plain means for gamma 0; for gamma 1, step k of t counts (k^2 - (k-1)^2) / t^2: 1/4 and 3/4
    after two steps, 1/9, 3/9 and 5/9 after three.
    """
    model = Leaf()
    ema = build_power_ema(model, gamma=gamma)
    for value, average in zip((9.0, 0.0, 9.0), expected):
        model.set(value)
        ema.update()
        assert averaged(ema).tolist() == pytest.approx([average] * 3)
        assert ema.ema_model.level.tolist() == pytest.approx([2 * average] * 2)


def test_another_average_follows() -> None:
    model = Leaf()
    other = build_power_ema(model, gamma=1)
    ema = build_ema(model, decay=0.5, also=other.update)
    for value in (2.0, 6.0):
        model.set(value)
        ema.update()
    assert averaged(other).tolist() == [5.0, 5.0, 5.0]
    assert not [key for key in ema.state_dict() if "also" in key]


def test_distance_by_hand() -> None:
    """Average (3, 3, 3), weights (6, 3, 3): apart by 3, and the average's norm is sqrt(27)."""
    model = Leaf()
    ema = build_ema(model, decay=0.9)
    model.set(3.0)
    ema.update()
    assert ema_distance(ema) == 0
    with torch.no_grad():
        model.weight[0] = 6.0
    assert ema_distance(ema) == pytest.approx(3 / 27**0.5)
