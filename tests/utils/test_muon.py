"""Muon: momentum whose updates are made orthogonal, against an SVD and against PyTorch's own Muon."""
import pytest
import torch

from utils.muon import Muon, orthogonalise


def parameter_with_gradient(*shape):
    parameter = torch.nn.Parameter(torch.randn(shape))
    parameter.grad = torch.randn(shape)
    return parameter


def copy_of(parameter):
    copied = torch.nn.Parameter(parameter.detach().clone())
    copied.grad = parameter.grad.clone()
    return copied


@pytest.mark.parametrize("shape", [(2, 8, 24), (2, 24, 8)])
def test_all_singular_values_come_near_1(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("rows, columns", [(6, 9), (9, 6)])
def test_the_matrix_keeps_its_own_directions(rows, columns):
    torch.manual_seed(0)
    X = torch.randn(2, rows, columns, dtype=torch.float64)
    U, _, Vt = torch.linalg.svd(X, full_matrices=False)

    # In the directions of its SVD the result is diagonal.
    turned = U.mT @ orthogonalise(X) @ Vt.mT
    diagonal = turned.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(turned, torch.diag_embed(diagonal))
    assert (diagonal > 0).all()


def test_five_steps_apply_jordans_polynomial_to_the_singular_values():
    X = torch.diag_embed(torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64))
    expected = X.diagonal(dim1=1, dim2=2) / X.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = orthogonalise(X).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_size_of_a_gradient_does_not_matter(scale):
    torch.manual_seed(0)
    X = torch.randn(1, 4, 7)
    torch.testing.assert_close(orthogonalise(scale * X), orthogonalise(X), atol=1e-3, rtol=0)


def test_each_matrix_of_a_stack_is_turned_on_its_own():
    torch.manual_seed(0)
    X = torch.randn(3, 4, 7)
    X[1] *= 1000
    together = orthogonalise(X)
    for k in range(3):
        torch.testing.assert_close(together[k], orthogonalise(X[k : k + 1])[0])


def test_a_vanishing_gradient_keeps_its_sign():
    X = 1e-9 * torch.ones(1, 2, 3)
    assert (orthogonalise(X) > 0).all()


def test_no_gradient_is_no_update():
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_it_takes_the_steps_of_torchs_own_muon(shape):
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    our_muon = Muon([ours], lr=0.1)
    their_muon = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        our_muon.step()
        their_muon.step()
    # Theirs computes in bfloat16.
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)


def test_the_update_is_nesterovs_look_ahead():
    torch.manual_seed(0)
    parameter = parameter_with_gradient(2, 3)
    optimizer = Muon([parameter], lr=0.1)
    average = torch.zeros(2, 3)
    for _ in range(3):
        parameter.grad = torch.randn(2, 3)
        average = 0.95 * average + 0.05 * parameter.grad
        update = optimizer.momentum_update(parameter, momentum=0.95)
        torch.testing.assert_close(update, 0.05 * parameter.grad + 0.95 * average)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_uses_the_optimizers_momentum(momentum):
    torch.manual_seed(0)
    parameter = parameter_with_gradient(3, 5)
    before = parameter.detach().clone()
    optimizer = Muon([parameter], lr=0.1, momentum=momentum)
    optimizer.step()
    first = parameter.grad
    parameter.grad = torch.randn(3, 5)
    optimizer.step()

    # By hand: the average of the gradients from 0, and the look ahead.
    average = (1 - momentum) * first
    update = (1 - momentum) * first + momentum * average
    expected = before - 0.1 * orthogonalise(update[None])[0]
    average = momentum * average + (1 - momentum) * parameter.grad
    update = (1 - momentum) * parameter.grad + momentum * average
    expected -= 0.1 * orthogonalise(update[None])[0]
    torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("shape, factor", [((3, 12), 1.0), ((12, 3), 2.0)])
def test_a_tall_matrix_moves_by_the_root_of_how_tall_it_is(shape, factor):
    torch.manual_seed(0)
    parameter = parameter_with_gradient(*shape)
    before = parameter.detach().clone()
    Muon([parameter], lr=0.1).step()
    expected = before - 0.1 * factor * orthogonalise(parameter.grad[None])[0]
    torch.testing.assert_close(parameter.detach(), expected, atol=1e-5, rtol=0)


def test_a_kernel_is_trained_as_the_matrix_of_its_outputs():
    torch.manual_seed(0)
    kernel = parameter_with_gradient(4, 3, 1, 2, 2)
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    matrix.grad = kernel.grad.flatten(1)
    Muon([kernel], lr=0.1).step()
    Muon([matrix], lr=0.1).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_matrices_trained_together_move_as_alone():
    torch.manual_seed(0)
    shapes = [(4, 12), (4, 12), (12, 4), (2, 7)]
    together = [parameter_with_gradient(*shape) for shape in shapes]
    alone = [copy_of(parameter) for parameter in together]
    Muon(together, lr=0.1).step()
    for parameter in alone:
        Muon([parameter], lr=0.1).step()
    for parameter, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(parameter, expected)


def test_two_groups_move_at_their_own_rates():
    torch.manual_seed(0)
    slow = parameter_with_gradient(3, 5)
    fast = copy_of(slow)
    before = slow.detach().clone()
    Muon([{"params": [slow], "lr": 0.01}, {"params": [fast]}], lr=0.03).step()
    torch.testing.assert_close(fast - before, 3 * (slow - before))


def test_the_parts_of_a_parameter_are_trained_as_parameters_of_their_own():
    torch.manual_seed(0)
    whole = parameter_with_gradient(12, 5)
    thirds = []
    for weights, gradient in zip(whole.detach().chunk(3), whole.grad.chunk(3), strict=True):
        third = torch.nn.Parameter(weights.clone())
        third.grad = gradient.clone()
        thirds.append(third)
    Muon([{"params": [whole], "parts": 3}], lr=0.1).step()
    Muon(thirds, lr=0.1).step()
    torch.testing.assert_close(whole.detach(), torch.cat(thirds).detach())
