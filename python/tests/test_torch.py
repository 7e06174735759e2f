"""The layer over PyTorch: gradients against enumeration, operators, and what goes wrong."""

import copy

import numpy as np
import pytest
from common import SMALL, random_potentials

import gumbel_argmax as ga

torch = pytest.importorskip("torch")
gt = pytest.importorskip("gumbel_argmax.torch")

SUMS = pytest.mark.parametrize("structure", [s for s in SMALL if s.has_sums], ids=repr)
DRAWS = 20_000
SAMPLES = 4


def enumerated(structure, theta):
    """ln q of all states [..., |Z|], in the precision of theta, with a graph; statistics [|Z|, P]."""
    statistics = torch.from_numpy(structure.statistics(structure.enumerate())).to(theta)
    return torch.log_softmax(theta @ statistics.T, -1), statistics


def potentials_of(structure, shape, seed, scale=1.0):
    return torch.from_numpy(random_potentials(structure, shape, np.random.default_rng(seed), scale))


class Decoder(torch.nn.Module):
    """Loss of a code for an image: a network with interactions of the variables."""

    def __init__(self, structure, images):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = torch.nn.Parameter(torch.randn(structure.unary, 8, generator=generator))
        self.second = torch.nn.Parameter(torch.randn(8, 4, generator=generator) / 2)
        self.images = torch.rand(images, 4, generator=generator)

    def forward(self, codes, of):
        return ((torch.tanh(codes @ self.first) @ self.second - self.images[of]) ** 2).sum(-1)


@pytest.mark.parametrize("structure", [ga.Pairwise(4), ga.Chain(3, 3), ga.Subset(5, 2), ga.Binary(3)], ids=repr)
def test_exact_gives_the_gradients_of_enumeration_to_both_sides(structure):
    decoder, theta = Decoder(structure, 6), potentials_of(structure, (2, 3), 1).requires_grad_()
    found = gt.estimate(theta, decoder, structure, "exact", chunk=100)
    assert found.loss.shape == (2, 3) and found.codes is None
    weights = torch.rand(2, 3)
    (found.loss * weights).sum().backward()
    other, wide = copy.deepcopy(decoder), theta.detach().requires_grad_()
    ln_q, _ = enumerated(structure, wide)
    codes = torch.from_numpy(structure.encode(structure.enumerate()))
    values = torch.stack([other(codes, torch.full((len(codes),), b)) for b in range(6)]).reshape(2, 3, -1)
    expected = (ln_q.exp() * values).sum(-1)
    other.zero_grad()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(theta.grad, wide.grad, atol=1e-5, rtol=1e-4)
    for a, b in zip(decoder.parameters(), other.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


def z_test(structure, draw, reference, bias=0.0):
    """Holds the mean of many draws against the exact gradient."""
    gradients = draw().double()
    mean, error = gradients.mean(0), gradients.std(0) / len(gradients) ** 0.5 + 1e-6
    assert ((mean - reference).abs() < 5 * error + bias).all(), (mean, reference, error)


def exact_gradient(structure, theta, decoder):
    wide = theta.detach().double().requires_grad_()
    ln_q, _ = enumerated(structure, wide)
    codes = torch.from_numpy(structure.encode(structure.enumerate()))
    values = decoder(codes, torch.zeros(len(codes), dtype=torch.long)).double().detach()
    (ln_q.exp() * values).sum().backward()
    return wide.grad


@pytest.mark.parametrize(
    "structure, name, settings, bias",
    [
        (ga.Categorical(5), "direct", dict(epsilon=0.1, two_sided=True, joint="off", rao_blackwell=False), 0.02),
        (ga.Categorical(5), "direct", dict(epsilon=0.1), 0.2), # one-sided: of order epsilon
        (ga.Binary(3), "direct", dict(epsilon=0.2, two_sided=True, joint="exact", noise="full"), 0.03),
        (ga.Pairwise(3), "direct", dict(epsilon=0.2, two_sided=True, joint="exact", noise="full"), 0.03),
        (ga.Chain(3, 2), "rloo", {}, 0.0),
        (ga.Binary(3), "rebar", {}, 0.0),
        (ga.Product(2, 3), "local-expectation", {}, 0.0),
    ],
    ids=lambda it: it if isinstance(it, str) else None,
)
def test_gradients_with_a_decoder_average_to_the_exact_one(structure, name, settings, bias):
    decoder, theta = Decoder(structure, 1), potentials_of(structure, (), 2)

    def loss(codes, of):
        return decoder(codes, torch.zeros_like(of))

    def draw():
        many = theta.expand(DRAWS, -1).clone().requires_grad_()
        gt.estimate(many, loss, structure, name, seed=5, chunk=1 << 16, **settings).loss.sum().backward()
        return many.grad

    z_test(structure, draw, exact_gradient(structure, theta, decoder), bias)


def test_the_surrogate_is_for_losses_of_ones_own():
    structure = ga.Chain(3, 2)
    decoder, theta = Decoder(structure, 4), potentials_of(structure, (4,), 1).requires_grad_()
    found = gt.direct(theta, decoder, structure, seed=1, epsilon=1.0)
    mine = gt.direct(theta, decoder, structure, seed=1, epsilon=1.0, follow=False)
    assert (mine.loss == 0).all() and (mine.codes == found.codes).all()
    torch.testing.assert_close(decoder(mine.codes[0], torch.arange(4)) + mine.surrogate, found.loss)
    a = torch.autograd.grad(mine.surrogate.mean(), theta)[0]
    torch.testing.assert_close(a, torch.autograd.grad(found.loss.mean(), theta)[0])
    torch.testing.assert_close(a, found.gradient / 4)


def test_every_estimator_is_that_of_the_library_on_the_same_noise():
    """What torch is given is what the same questions, answered in NumPy, give."""
    tried = []
    for name in ga.estimators():
        for structure in [ga.Categorical(4), ga.Binary(3), ga.Subset(5, 2)]:
            a, theta = torch.randn(structure.unary, 3, generator=torch.Generator().manual_seed(1)), None
            theta = potentials_of(structure, (6,), 4)

            def losses(codes, of):
                return ((codes @ a.numpy()) ** 2).sum(-1)

            def slopes(codes, of):
                return losses(codes, of), 2 * (codes @ a.numpy()) @ a.numpy().T

            try:
                expected = ga.Estimator(structure, name).estimate(theta.numpy(), losses, slopes, seed=2)
            except ValueError:
                continue
            found = gt.estimate(theta, lambda c, of: ((c @ a) ** 2).sum(-1), structure, name, seed=2)
            if not name.startswith("adaptive"):
                np.testing.assert_allclose(found.gradient, expected.gradient, atol=2e-5, err_msg=name)
            tried.append(name)
    assert set(tried) == set(ga.estimators())


def test_noise_is_torchs_or_given():
    structure = ga.Binary(4)
    decoder, theta = Decoder(structure, 5), potentials_of(structure, (5,), 1)
    made = ga.Estimator(structure, "direct", epsilon=1.0)
    torch.manual_seed(7)
    first = gt.estimate(theta, decoder, structure, made)
    second = gt.estimate(theta, decoder, structure, made)
    torch.manual_seed(7)
    assert (gt.estimate(theta, decoder, structure, made).codes == first.codes).all()
    assert (second.codes != first.codes).any()
    generator = torch.Generator().manual_seed(1)
    noise = gt.noise(made, 1, 5, generator=generator)
    given = gt.estimate(theta, decoder, structure, made, noise=noise)
    generator.manual_seed(1)
    assert (gt.estimate(theta, decoder, structure, made, generator=generator).codes == given.codes).all()


@SUMS
def test_sums_have_the_gradients_of_enumeration(structure):
    theta = potentials_of(structure, (2, 3), 6).requires_grad_()
    wide = theta.detach().double().requires_grad_()
    ln_q, statistics = enumerated(structure, wide)
    q = ln_q.exp()
    sums = {
        gt.log_partition: torch.logsumexp(wide @ statistics.T, -1),
        gt.entropy: -(q * ln_q).sum(-1),
        gt.kl_to_uniform: structure.ln_states + (q * ln_q).sum(-1),
        gt.marginals: q @ statistics,
    }
    for call, expected in sums.items():
        found = call(theta, structure)
        torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=1e-5)
        weights = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1))
        a, b = torch.autograd.grad((found * weights).sum(), theta), torch.autograd.grad(
            (expected * weights).sum(), wide, retain_graph=True
        )
        torch.testing.assert_close(a[0].double(), b[0], atol=2e-4, rtol=1e-4)
    # Of the second order.
    first = torch.autograd.grad(gt.log_partition(theta, structure).sum(), theta, create_graph=True)[0]
    direction = torch.randn(first.shape, generator=torch.Generator().manual_seed(2))
    second = torch.autograd.grad((first * direction).sum(), theta)[0]
    torch.testing.assert_close(second, gt.covariance(theta, direction, structure), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("structure", [ga.Chain(3, 2), ga.Supermodular(3)], ids=repr)
def test_operators_are_what_torch_expects(structure):
    theta, key = potentials_of(structure, (4,), 7).requires_grad_(), structure.key
    for op in [gt._marginals, gt._kl, gt._potentials]:
        torch.library.opcheck(op, (theta, key))
        torch.library.opcheck(op, (theta.detach().reshape(2, 2, -1), key))
        torch.library.opcheck(op, (theta.detach().double().t().contiguous().t(), key))
    torch.library.opcheck(gt._covariance, (theta.detach(), torch.randn(theta.shape), key))
    torch.library.opcheck(gt._kl_gradient, (theta.detach(), torch.randn(theta.shape)))
    torch.library.opcheck(gt._raw_gradient, (theta.detach(), torch.randn(theta.shape), key))
    # Differences of float32 sums: a large step.
    call = lambda t: gt.log_partition(t, structure) + gt.kl_to_uniform(t, structure) # noqa: E731
    assert torch.autograd.gradcheck(call, theta.detach().double().requires_grad_(), eps=3e-2, atol=3e-3, nondet_tol=0)


def test_one_derivative_too_many_is_an_error():
    """Not zeros, which would be wrong in a sum with other terms."""
    chain = ga.Chain(3, 2)
    theta = potentials_of(chain, (2,), 7).requires_grad_()
    for call, most in [(gt.kl_to_uniform, 1), (gt.entropy, 1), (gt.marginals, 1), (gt.log_partition, 2)]:
        found = call(theta, chain).sum() if call is not gt.marginals else call(theta, chain)[..., 0].sum()
        for _ in range(most):
            (slope,) = torch.autograd.grad(found, theta, create_graph=True)
            found = (slope.square() + theta).sum()
        with pytest.raises(RuntimeError, match="expected one derivative of marginals"):
            torch.autograd.grad(found, theta)


def test_sums_are_in_graphs_of_the_compiler():
    structure = ga.Chain(4, 3)

    def objective(raw):
        theta = gt.potentials(2 * raw, structure)
        return (gt.log_partition(theta, structure) + gt.kl_to_uniform(theta, structure)).mean()

    raw = potentials_of(structure, (5,), 8).requires_grad_()
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    a, b = (torch.autograd.grad(f(raw), raw)[0] for f in (objective, compiled))
    torch.testing.assert_close(a, b)


def test_layers_and_estimators_end_a_graph_of_the_compiler():
    structure = ga.Binary(4)
    decoder, layer = Decoder(structure, 3), gt.Argmax(structure, "imle")
    raw = potentials_of(structure, (3,), 8).requires_grad_()

    def objective(raw):
        first = gt.direct(2 * raw, decoder, structure, seed=3).loss.sum()
        return first + (3 * layer(raw.tanh(), noise=torch.zeros(1, 3, 8))).square().sum()

    compiled = torch.compile(objective, backend="aot_eager")
    a, b = (torch.autograd.grad(f(raw), raw)[0] for f in (objective, compiled))
    torch.testing.assert_close(a, b)


def jacobian_row(structure, theta, g):
    """The gradient of <g, E code> at theta."""
    wide = theta.detach().double().requires_grad_()
    ln_q, statistics = enumerated(structure, wide)
    ((ln_q.exp() @ statistics)[: structure.unary] @ g.double()).backward()
    return wide.grad


@pytest.mark.parametrize(
    "structure, name, mean",
    [
        (ga.Categorical(5), "perturbed", True),
        (ga.Binary(3), "rloo", True),
        (ga.Subset(5, 2), "simple", False),
        (ga.Chain(3, 2), "simple", False),
        (ga.Binary(3), "reinmax", False),
        (ga.Binary(3), "arm", True),
    ],
)
def test_layers_average_to_the_jacobian(structure, name, mean):
    """Of the loss <g, code> these have no bias."""
    theta, layer = potentials_of(structure, (), 9), gt.Argmax(structure, name, mean=mean)
    g = torch.randn(structure.unary, generator=torch.Generator().manual_seed(4))

    def draw():
        torch.manual_seed(11)
        many = theta.expand(DRAWS, -1).clone().requires_grad_()
        codes = layer(many)
        assert codes.shape == (DRAWS, structure.unary)
        (codes @ g).sum().backward()
        return many.grad

    z_test(structure, draw, jacobian_row(structure, theta, g))


def test_layers_of_several_samples_have_a_slope_for_each():
    structure = ga.Subset(5, 2)
    layer, theta = gt.Argmax(structure, "imle", samples=SAMPLES), potentials_of(structure, (3,), 1).requires_grad_()
    noise = gt.noise(layer.estimator, SAMPLES, 3)
    g = torch.randn(SAMPLES, 3, 5)
    codes = layer(theta, noise=noise)
    assert codes.shape == (SAMPLES, 3, 5) and set(codes.unique().tolist()) == {0.0, 1.0}
    (codes * g).sum().backward()
    expected = sum(
        layer.estimator.estimate_linear(theta.detach().numpy(), g[s].numpy(), noise=noise[s : s + 1].numpy()).gradient
        for s in range(SAMPLES)
    )
    np.testing.assert_allclose(theta.grad, expected, atol=1e-5)
    one = gt.Argmax(structure, "imle")
    assert (one(theta, noise=noise[:1]) == codes[0]).all()


def test_every_estimator_is_a_layer_or_says_why_not():
    theta = torch.zeros(2, 6)
    for name in ga.estimators():
        try:
            layer = gt.Argmax(ga.Binary(3), name)
        except ValueError as error:
            assert "follows all states" in str(error) or "expected mean=True" in str(error)
            if "all states" in str(error):
                continue
            layer = gt.Argmax(ga.Binary(3), name, mean=True)
        raw = theta.clone().requires_grad_()
        codes = layer(raw)
        codes.square().sum().backward()
        assert raw.grad.shape == raw.shape and torch.isfinite(raw.grad).all(), name
        torch.testing.assert_close(codes.reshape(2, 3, 2).sum(-1), torch.ones(2, 3))


def test_layers_of_ones_own_solver_are_those_of_the_library():
    structure = ga.Subset(5, 2)

    def solver(theta):
        assert not torch.is_grad_enabled() and theta.dim() == 2
        return torch.from_numpy(structure.statistics(structure.solve(theta.numpy()).assignments))

    theta, g = potentials_of(structure, (3,), 1), torch.randn(SAMPLES, 3, 5)
    noise = torch.from_numpy(ga.gumbel((SAMPLES, 3, 5), 5))
    for settings, mine in [
        (dict(imle_lambda=0.5), dict(step=0.5)),
        (dict(imle_lambda=2.0, two_sided=True), dict(step=2.0, two_sided=True)),
    ]:
        pairs, library = [], gt.Argmax(structure, "imle", samples=SAMPLES, **settings)
        for call in [library, gt.layer(solver, samples=SAMPLES, **mine)]:
            raw = theta.clone().requires_grad_()
            codes = call(raw, noise=noise)
            (codes * g).sum().backward()
            pairs.append((codes, raw.grad))
        torch.testing.assert_close(*pairs)
    pairs = []
    perturbed = gt.layer(method="perturbed", samples=SAMPLES)(solver)
    for call in [gt.Argmax(structure, "perturbed", samples=SAMPLES, mean=True), perturbed]:
        raw = theta.clone().requires_grad_()
        codes = call(raw, noise=noise)
        (codes * g[0]).sum().backward()
        pairs.append((codes, raw.grad))
    torch.testing.assert_close(*pairs)
    # Without noise and samples.
    raw = theta.clone().requires_grad_()
    codes = gt.layer(solver, scale=0)(raw)
    with torch.no_grad():
        assert (codes == solver(theta)).all()
    codes.sum().backward()
    assert (raw.grad == 0).all()
    for bad, message in [
        (lambda: gt.layer(method="implicit"), "expected imle or perturbed"),
        (lambda: gt.layer(method="perturbed"), "at least 2 samples"),
        (lambda: gt.layer(step=0), "a step greater than 0"),
        (lambda: gt.layer(lambda t: t[:1])(theta), "the solver has given"),
        (lambda: gt.layer(solver)(theta, noise=noise), "noise has shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            bad()


def test_layers_learn_and_are_kept():
    structure = ga.Subset(6, 2)
    layer = gt.Argmax(structure, "adaptive-imle")
    theta, noise = potentials_of(structure, (20,), 1), torch.from_numpy(ga.gumbel((1, 20, 6)))

    def gradient(layer):
        raw = theta.clone().requires_grad_()
        layer(raw, noise=noise).square().sum().backward()
        return raw.grad

    begin = layer.estimator.state()
    layer.eval()
    gradient(layer)
    assert (layer.estimator.state() == begin).all() and layer.steps == 0
    layer.train()
    for _ in range(3):
        gradient(layer)
    assert (layer.estimator.state() != begin).any() and layer.steps == 3
    other = gt.Argmax(structure, "adaptive-imle")
    other.load_state_dict(layer.state_dict())
    copied = copy.deepcopy(layer)
    assert copied.steps == other.steps == 3
    expected = gradient(layer)
    assert (gradient(other) == expected).all() and (gradient(copied) == expected).all()


def test_temperatures_fall_with_the_passes():
    layer = gt.Argmax(ga.Binary(3), "gumbel-softmax", temperature_decay=1.0, temperature_every=1, temperature_min=0.01)
    theta, noise = torch.zeros(4, 6), torch.from_numpy(ga.gumbel((1, 4, 6)))
    largest = [layer(theta, noise=noise).max().item() for _ in range(4)]
    assert largest == sorted(largest) and largest[0] < largest[3]


def test_other_types_and_autocast():
    structure = ga.Binary(3)
    linear = torch.nn.Linear(structure.unary, 4)
    for kind in [torch.bfloat16, torch.float16, torch.float64]:
        theta = potentials_of(structure, (5,), 1).to(kind).requires_grad_()
        found = gt.direct(theta, lambda c, of: c.sum(-1) + c[:, 0], structure, seed=1, epsilon=1.0)
        (found.loss.sum() + gt.kl_to_uniform(theta, structure).sum()).backward()
        assert theta.grad.dtype == kind
    theta = potentials_of(structure, (5,), 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = gt.estimate(theta, lambda c, of: linear(c).square().sum(-1), structure, "imle", seed=1)
    found.loss.sum().backward()
    assert theta.grad.dtype == torch.float32 and linear.weight.grad is not None


@pytest.mark.skipif(not hasattr(torch.library, "register_autocast"), reason="torch before 2.5")
def test_sums_are_in_single_precision_under_autocast():
    """A log-partition of hundreds has no fraction left in half precision."""
    chain = ga.Chain(60, 4)
    encoder, x = torch.nn.Linear(5, chain.potentials), torch.randn(3, 5)

    def objective(x):
        with torch.autocast("cpu", torch.bfloat16):
            raw = encoder(x)
            theta = gt.potentials(raw, chain)
            return raw, gt.log_partition(theta, chain), gt.kl_to_uniform(theta, chain), gt.marginals(theta, chain)

    for call in [objective, torch.compile(objective, backend="aot_eager")]:
        raw, *sums = call(x)
        assert raw.dtype == torch.bfloat16 and all(s.dtype == torch.float32 for s in sums)
        np.testing.assert_allclose(sums[0].detach(), chain.log_partition(raw.detach().float().numpy()), rtol=1e-6)
        encoder.zero_grad()
        (sums[0] + sums[1]).sum().backward()
        assert torch.isfinite(encoder.weight.grad).all() and encoder.weight.grad.dtype == torch.float32


def test_mistakes_are_named():
    structure, theta = ga.Binary(3), torch.zeros(2, 6, requires_grad=True)

    def zero(codes, of):
        return codes.sum(-1) * 0

    def stop(codes, of):
        raise KeyError("stop")

    for call, kind, message in [
        (lambda: gt.direct(theta[:, :5], zero, structure), ValueError, r"shape \(2, 5\): expected \[..., 6\]"),
        (lambda: gt.direct(theta, lambda c, of: c, structure), ValueError, r"expected a tensor \[\d+\], one loss"),
        (lambda: gt.direct(theta, lambda c, of: 0.0, structure), ValueError, "the loss is float"),
        (lambda: gt.direct(theta, stop, structure), KeyError, "stop"),
        (lambda: gt.direct(theta * float("nan"), zero, structure), ValueError, "example 0 of the batch: .*NaN"),
        (lambda: gt.direct(theta, zero, structure, epsilom=1), ValueError, "did you mean epsilon"),
        (lambda: gt.estimate(theta, zero, structure, ga.Estimator(ga.Binary(2))), ValueError, "the estimator is for"),
        (lambda: gt.Argmax(structure, "exact"), ValueError, "exact follows all states"),
        (lambda: gt.Argmax(structure, "rloo"), ValueError, "rloo compares several rows"),
        (lambda: gt.Argmax(structure, "imle", samples=0), ValueError, "samples = 0"),
        (lambda: gt.Argmax(structure)(theta, noise=torch.zeros(3)), ValueError, "noise has shape"),
        (lambda: gt.log_partition(torch.zeros(9), ga.Permutation(3)), ValueError, "permanent"),
    ]:
        with pytest.raises(kind, match=message):
            call()
    # A constant has no slope, and no gradient.
    gt.estimate(theta, lambda c, of: torch.ones(len(of)), structure, "imle").loss.sum().backward()
    assert (theta.grad == 0).all()
    empty = gt.direct(theta[:0], zero, structure)
    assert empty.loss.shape == (0,)
    empty.loss.sum().backward()
