"""Samplers against closed forms, without a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from denoisers import MU, Recorder, S, every_sampler, gaussian_denoiser, generator, noise, two_point_denoiser
from torch import Tensor

from pix2seq_d.diffusion.samplers import sample_ddim, sample_ddpm, sample_dpmpp_2m, sample_renoise
from pix2seq_d.diffusion.schedule import SCHEDULES, CosineSchedule, LinearSchedule

# closed forms


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_ddim_limit_on_gaussian_data(name: str) -> None:
    """The deterministic flow keeps quantiles: x_T of N(0, 1) becomes mu + s x_T; half the steps, twice the error."""
    x_T, schedule = noise(1, 1, 8, 8), SCHEDULES[name]()
    errors = []
    for num_steps in (100, 200, 400):
        x0 = sample_ddim(gaussian_denoiser, x_T, schedule, num_steps)
        errors.append((x0 - (MU + S * x_T)).abs().max().item())
    assert errors[-1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.15)


def even_log_snr(t: Tensor) -> Tensor:
    """gamma(t) with lambda, half the log-SNR, falling evenly from 3 to -3."""
    return torch.sigmoid(2 * (3 - 6 * t))


@pytest.mark.parametrize(("sample", "order"), [(sample_ddim, 1), (sample_dpmpp_2m, 2)])
def test_order_on_gaussian_data(sample: Callable[..., Tensor], order: int) -> None:
    """The flow keeps z in x_t = sqrt(g) mu + sqrt(g s^2 + 1 - g) z; half the step, error at t = 1/2 / 2^order."""

    def exact(t: float) -> Tensor:
        g = even_log_snr(torch.tensor(t, dtype=torch.float64))
        return g.sqrt() * MU + (g * S**2 + 1 - g).sqrt() * noise(1, 1, 8, 8)

    errors = []
    for num_steps in (40, 80, 160):
        seen: dict[int, Tensor] = {}
        callback = partial(lambda seen, step, x_t, x0: seen.update({step: x_t}), seen)
        sample(gaussian_denoiser, exact(1), even_log_snr, num_steps, callback=callback)
        errors.append((seen[num_steps // 2] - exact(0.5)).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.1)


def test_dpmpp_2m_limit_on_gaussian_data() -> None:
    """As DDIM's, far sooner: near both ends a step doubles the log-SNR, which leaves log(n) / n^2 of the order."""
    x_T = noise(1, 1, 8, 8)
    ddim, ours = (
        (sample(gaussian_denoiser, x_T, CosineSchedule(), 200) - (MU + S * x_T)).abs().max().item()
        for sample in (sample_ddim, sample_dpmpp_2m)
    )
    assert ours < 0.001 < ddim / 10


def test_ddpm_on_gaussian_data_has_its_mean_and_deviation() -> None:
    x0 = sample_ddpm(gaussian_denoiser, noise(1, 1, 150, 150), CosineSchedule(), 200, generator=generator())
    assert x0.mean().item() == pytest.approx(MU, abs=5 * S / 150)
    assert x0.std().item() == pytest.approx(S, rel=0.05)


@pytest.mark.parametrize("sample", [sample_ddim, sample_ddpm, sample_dpmpp_2m])
@pytest.mark.parametrize("b", [1.0, 0.1])
def test_two_point_data_come_back_with_their_frequency(sample: Callable[..., Tensor], b: float) -> None:
    """P(+) = 0.7; 20,000 draws have a standard deviation of 0.0032, of which four are allowed."""
    x_T = noise(1, 1, 100, 200)
    x0 = sample(two_point_denoiser(b, 0.7), x_T, CosineSchedule(), 200, clip=b, generator=generator())
    assert (x0 > 0).double().mean().item() == pytest.approx(0.7, abs=4 * 0.0032)
    assert (x0.abs() > 0.9 * b).double().mean().item() > 0.97  # decided, not in between


def test_renoise_on_two_point_data_decides_and_favours_the_likelier_point() -> None:
    """A fair coin stays fair by symmetry (20,000 draws, standard deviation 0.0035, four allowed); 0.7 becomes more."""
    x_T, shares = noise(1, 1, 100, 200), []
    for p in (0.5, 0.7):
        x0 = sample_renoise(two_point_denoiser(1.0, p), x_T, CosineSchedule(), 200, clip=1.0, generator=generator())
        assert (x0.abs() > 0.9).double().mean().item() > 0.97  # decided, not in between
        shares.append((x0 > 0).double().mean().item())
    assert shares[0] == pytest.approx(0.5, abs=4 * 0.0035)
    assert shares[1] > 0.74


@pytest.mark.parametrize(("sample", "num_steps"), [(sample_ddim, 400), (sample_dpmpp_2m, 100)])
def test_the_flow_on_two_point_data_cuts_the_noise_at_its_quantile(
    sample: Callable[..., Tensor], num_steps: int
) -> None:
    """It is monotone: exactly the noise above the 30 % quantile, -0.5244, becomes +b."""
    x_T = torch.linspace(-2, 2, 401, dtype=torch.float64).view(1, 1, 1, -1)
    x0 = sample(two_point_denoiser(1.0, 0.7), x_T, CosineSchedule(), num_steps)
    assert bool((x0.flatten().diff() >= -1e-9).all())
    assert x_T[x0 > 0].min().item() == pytest.approx(-0.5244, abs=0.03)


# one step by hand


def test_ddim_step_by_hand() -> None:
    """Linear schedule, two steps: gamma = 0 then 1/2; a denoiser that answers 1 then 2; x_T = 0.6.

    First step: eps = 0.6, x = sqrt(1/2) * 1 + sqrt(1/2) * 0.6. The result is the second estimate.
    """
    recorder = Recorder(1.0)
    x0 = sample_ddim(recorder, torch.full((1, 1, 1, 1), 0.6), LinearSchedule(), 2)
    assert recorder.x_t[1].item() == pytest.approx(0.5**0.5 * 1.6, abs=1e-4)
    assert x0.item() == 2.0


@pytest.mark.parametrize("td_steps", [0.0, 0.5])
def test_dpmpp_2m_step_by_hand(td_steps: float) -> None:
    """Algorithm 2's step from t = 3/4, literally, with lambda = log(sqrt(gamma / (1 - gamma))); estimates 0.4, 0.8.

    lambda_s is where the step ends, which td moves; the estimates stand where the denoiser was told that they are.
    """
    recorder, schedule = Recorder(0.4), LinearSchedule()
    sample_dpmpp_2m(recorder, noise(1, 1, 4, 4), schedule, 4, td_steps=td_steps)
    before, now, g_s = recorder.gamma[0].item(), recorder.gamma[1].item(), (2 + td_steps) / 4
    lambda_before, lambda_now, lambda_s = (0.5 * math.log(g / (1 - g)) for g in (before, now, g_s))
    h = lambda_s - lambda_now
    r = (lambda_now - lambda_before) / h
    d = (1 + 1 / (2 * r)) * 0.8 - 1 / (2 * r) * 0.4
    expected = math.sqrt((1 - g_s) / (1 - now)) * recorder.x_t[1] - math.sqrt(g_s) * math.expm1(-h) * d
    assert torch.allclose(recorder.x_t[2], expected, atol=1e-10)


def test_dpmpp_2m_clips_what_it_extrapolates() -> None:
    """Estimates 0.4 and 0.5 lie within the clip, the line through them does not: the state is that of an estimate 0.5.

    Two steps before the end the extrapolation is finite and not 0.
    """
    answers = iter([0.4, 0.5, 0.5])
    seen: list[Tensor] = []

    def denoise(x_t: Tensor, gamma: Tensor, self_cond: Tensor | None) -> Tensor:
        seen.append(x_t)
        return torch.full_like(x_t, next(answers))

    sample_dpmpp_2m(denoise, noise(1, 1, 4, 4), LinearSchedule(), 3, clip=0.5)
    eps = (seen[1] - math.sqrt(1 / 3) * 0.5) / math.sqrt(2 / 3)
    assert torch.allclose(seen[2], math.sqrt(2 / 3) * 0.5 + math.sqrt(1 / 3) * eps, atol=1e-10)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_dpmpp_2m_ends_as_ddim_where_td_reaches_the_end_early(name: str) -> None:
    """Every step but the first goes to t = 0, where the log-SNR is infinite: nothing is extrapolated."""
    x_T, schedule = noise(1, 1, 4, 4).float(), SCHEDULES[name]()
    ours, ddim = (s(gaussian_denoiser, x_T, schedule, 3, td_steps=1.0) for s in (sample_dpmpp_2m, sample_ddim))
    assert torch.equal(ours, ddim)


def test_ddpm_step_is_the_gaussian_posterior() -> None:
    """x_s given x_t and x0 is the product of N(sqrt(g_s) x0, 1 - g_s) and the likelihood N(x_t; sqrt(a) x_s, 1 - a)."""
    x_T, recorder = noise(1, 1, 4, 4), Recorder(0.4)
    sample_ddpm(recorder, x_T, CosineSchedule(), 4, generator=generator(5))
    g_t, g_s, x_t, x0 = recorder.gamma[1].item(), recorder.gamma[2].item(), recorder.x_t[1], 0.8
    a = g_t / g_s
    precision = 1 / (1 - g_s) + a / (1 - a)
    mean = (math.sqrt(g_s) * x0 / (1 - g_s) + math.sqrt(a) * x_t / (1 - a)) / precision
    stream = generator(5)
    z = [torch.randn(x_T.shape, generator=stream, dtype=x_T.dtype) for _ in range(2)][1]
    assert torch.allclose(recorder.x_t[2], mean + precision**-0.5 * z, atol=1e-10)


def test_renoise_step_keeps_the_estimate_only() -> None:
    """x_s = sqrt(g_s) x0 + sqrt(1 - g_s) z with fresh z; x_t counts through the estimate alone."""
    x_T, recorder = noise(1, 1, 4, 4), Recorder(0.4)
    sample_renoise(recorder, x_T, CosineSchedule(), 4, generator=generator(5))
    stream, g_s = generator(5), recorder.gamma[2].item()
    z = [torch.randn(x_T.shape, generator=stream, dtype=x_T.dtype) for _ in range(2)][1]
    assert torch.allclose(recorder.x_t[2], math.sqrt(g_s) * 0.8 + math.sqrt(1 - g_s) * z, atol=1e-10)


# asymmetric time


@every_sampler
@pytest.mark.parametrize("td_steps", [0.0, 1.0, 2.5])
def test_times_told_to_the_denoiser_do_not_depend_on_td(sample: Callable[..., Tensor], td_steps: float) -> None:
    recorder = Recorder(0.0)
    sample(recorder, noise(2, 1, 2, 2), CosineSchedule(), 4, td_steps=td_steps, generator=generator())
    told = torch.stack(recorder.gamma)
    assert told.shape == (4, 2)
    expected = CosineSchedule()(torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64))
    assert torch.allclose(told, expected[:, None].expand(4, 2))


@pytest.mark.parametrize("td_steps", [0.0, 1.0, 2.0])
def test_td_removes_more_noise_than_it_says(td_steps: float) -> None:
    """Where the estimate is 0, x_t is noise of variance 1 - gamma(t_next); linear, t_next = 1 - (1 + td) / 4."""
    recorder, x_T = Recorder(0.0), noise(1, 1, 4, 4)
    sample_ddim(recorder, x_T, LinearSchedule(), 4, td_steps=td_steps)
    left = math.sqrt(1 - (1 + td_steps) / 4)
    assert torch.allclose(recorder.x_t[1], left * x_T, atol=1e-6)


@every_sampler
def test_td_changes_the_result(sample: Callable[..., Tensor]) -> None:
    x_T = noise(1, 1, 8, 8)
    results = [
        sample(gaussian_denoiser, x_T, CosineSchedule(), 5, td_steps=td, generator=generator())
        for td in (0.0, 1.0, 2.0)
    ]
    assert not torch.allclose(results[0], results[1], atol=1e-3)
    assert not torch.allclose(results[1], results[2], atol=1e-3)


# arguments


@every_sampler
def test_callback_sees_every_step_in_order(sample: Callable[..., Tensor]) -> None:
    seen: list[tuple[int, Tensor, Tensor]] = []
    recorder, x_T = Recorder(0.3), noise(1, 2, 3, 3)
    x0 = sample(
        recorder,
        x_T,
        CosineSchedule(),
        3,
        clip=0.5,
        generator=generator(),
        callback=lambda step, x_t, estimate: seen.append((step, x_t, estimate)),
    )
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[0][1], x_T)
    assert all(torch.equal(a, b) for (_, a, _), b in zip(seen, recorder.x_t))
    assert [e.unique().tolist() for _, _, e in seen] == [[pytest.approx(0.3)], [0.5], [0.5]]  # 0.3, 0.6, 0.9 clipped
    assert torch.equal(x0, seen[-1][2])


@every_sampler
def test_the_estimate_is_handed_on(sample: Callable[..., Tensor]) -> None:
    recorder = Recorder(0.3)
    sample(recorder, noise(1, 1, 2, 2), CosineSchedule(), 3, clip=0.5, generator=generator())
    first, second, third = recorder.self_cond
    assert first is None
    assert second is not None
    assert third is not None
    assert second.unique().tolist() == [pytest.approx(0.3)]
    assert third.unique().tolist() == [0.5]


@every_sampler
def test_clip(sample: Callable[..., Tensor]) -> None:
    x_T = noise(1, 1, 2, 2)
    assert sample(Recorder(2.0), x_T, CosineSchedule(), 2, clip=0.1, generator=generator()).unique().tolist() == [0.1]
    assert sample(Recorder(2.0), x_T, CosineSchedule(), 2, generator=generator()).unique().tolist() == [4.0]


@every_sampler
def test_schedule_and_number_of_steps_have_an_effect(sample: Callable[..., Tensor]) -> None:
    x_T = noise(1, 1, 4, 4)

    def run(name: str, num_steps: int) -> Tensor:
        return sample(gaussian_denoiser, x_T, SCHEDULES[name](), num_steps, generator=generator())

    assert not torch.allclose(run("cosine", 5), run("linear", 5), atol=1e-3)
    assert not torch.allclose(run("cosine", 5), run("cosine", 6), atol=1e-3)


def test_ddim_and_dpmpp_2m_are_decided_by_x_T_alone() -> None:
    x_T = noise(1, 1, 4, 4)

    def run(sample: Callable[..., Tensor], seed: int) -> Tensor:
        return sample(gaussian_denoiser, x_T, CosineSchedule(), 5, generator=generator(seed))

    for sample in (sample_ddpm, sample_renoise):
        assert torch.equal(run(sample, 3), run(sample, 3))
        assert not torch.allclose(run(sample, 3), run(sample, 4), atol=1e-2)
    for sample in (sample_ddim, sample_dpmpp_2m):
        assert torch.equal(run(sample, 3), run(sample, 4))


@every_sampler
def test_samples_of_a_batch_do_not_meet(sample: Callable[..., Tensor]) -> None:
    """Values of the deterministic ones only: with one generator, DDPM's noise depends on the batch size."""
    x_T = noise(3, 1, 4, 4)
    x0 = sample(gaussian_denoiser, x_T, CosineSchedule(), 5, generator=generator())
    assert x0.shape == x_T.shape
    if sample in (sample_ddim, sample_dpmpp_2m):
        assert torch.allclose(x0[1:2], sample(gaussian_denoiser, x_T[1:2], CosineSchedule(), 5))


@every_sampler
@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 0.0), "num_steps"), ((-1, 0.0), "num_steps"), ((3, -1.0), "td_steps")]
)
def test_wrong_numbers_raise(sample: Callable[..., Tensor], arguments: tuple[int, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least"):
        sample(gaussian_denoiser, noise(1, 1, 2, 2), CosineSchedule(), arguments[0], td_steps=arguments[1])


@every_sampler
def test_float32_is_kept_and_finite(sample: Callable[..., Tensor]) -> None:
    x0 = sample(
        two_point_denoiser(0.1, 0.5), noise(1, 1, 4, 4).float(), CosineSchedule(), 20, clip=0.1, generator=generator()
    )
    assert x0.dtype == torch.float32
    assert bool(x0.isfinite().all())


@every_sampler
def test_a_generator_per_sample_makes_samples_independent(sample: Callable[..., Tensor]) -> None:
    """Three samples in one batch, and one by one."""
    x_T = noise(3, 2, 4, 4)
    whole = sample(gaussian_denoiser, x_T, CosineSchedule(), 5, generator=[generator(seed) for seed in range(3)])
    alone = [
        sample(gaussian_denoiser, x_T[[k]], CosineSchedule(), 5, generator=[generator(seed)])
        for k, seed in enumerate(range(3))
    ]
    assert torch.equal(whole, torch.cat(alone))
