import pytest
import torch

from utils import muon


def test_an_update_has_equal_singular_values_and_the_matrixs_own_directions():
    for shape in ((2, 8, 24), (2, 24, 8)):
        singular = torch.linalg.svdvals(muon.orthogonalise(torch.randn(shape)))
        assert singular.min() > 0.3 and singular.max() < 1.4
    x = torch.randn(1, 6, 9, dtype=torch.float64)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert ((u.mT @ muon.orthogonalise(x) @ v.mT).diagonal(dim1=1, dim2=2) > 0.3).all()  # the matrix's own directions


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_it_takes_the_steps_of_torchs_own_muon(shape):
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    a, b = muon.Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        a.step(), b.step()
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.0)  # theirs turns in bfloat16


def test_a_kernel_is_a_matrix_and_shapes_go_together():
    torch.manual_seed(0)
    kernel, others = torch.randn(4, 3, 1, 2, 2), [torch.randn(4, 12) for _ in range(2)]
    whole = [torch.nn.Parameter(p.clone()) for p in (kernel, *others)]
    alone = [torch.nn.Parameter(p.flatten(1).clone()) for p in (kernel, *others)]
    for p, q in zip(whole, alone):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.flatten(1)
        muon.Muon([q], lr=0.1).step()
    muon.Muon(whole, lr=0.1).step()
    for p, q in zip(whole, alone):
        torch.testing.assert_close(p.flatten(1), q)
