"""Muon: momentum whose every update is turned into a nearly orthogonal matrix.

A gradient matrix has a few large singular values and many small ones: plain momentum would move a layer in
few directions. With all singular values near 1, all directions learn at one pace.

Papers
    Muon, Jordan et al. 2024, https://kellerjordan.github.io/posts/muon
    Queries, keys and values apart: CMuon, 2026, https://arxiv.org/abs/2608.02502

Where we differ: torch.optim.Muon takes matrices only, one after the other, and computes in bfloat16. Here a
convolution's kernel counts as a matrix too, all matrices of one shape are turned at once, in float32, and
there is no weight decay.

Letters
    X         a stack of matrices
    A         X X^T
"""
import torch

from utils.distributed import part_like, whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients of X, A X and A A X


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalise. A kernel (out, in, ...) counts as a matrix (out, in * ...).

    parts: how many matrices of one size a parameter holds, one below the other. The queries, keys and values
    of attention are one parameter, so that one product makes all three, but each learns as a matrix of its
    own (CMuon). A group of parameters may have its own: {"params": [...], "parts": 3}."""

    def __init__(self, params, lr, momentum=0.95, parts=1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "parts": parts})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            # One call for all matrices of a shape takes a fraction of the time of one call each.
            same_shape = {}
            for p in group["params"]:
                update = self.momentum_update(p, group["momentum"])
                update = update.unflatten(0, (group["parts"], -1))          # (parts, rows, columns)
                same_shape.setdefault(p.shape, []).append((p, update))
            for pairs in same_shape.values():
                params = [p for p, _ in pairs]
                updates = [update for _, update in pairs]
                self.apply(params, torch.stack(updates), group["lr"])

    def momentum_update(self, p, momentum):
        """The gradient, averaged over the steps, with Nesterov's look ahead → a matrix, all parts of it."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        ahead = p.grad.lerp(state["momentum"], momentum)

        # Only a whole matrix has singular values. Where this process has a part of it, it is put together.
        return whole(ahead).flatten(1)

    def apply(self, params, updates, lr):
        """Moves parameters of one shape by their updates (params, parts, rows, columns), made orthogonal."""
        updates = orthogonalise(updates)

        # The factor lets the outputs of tall and of wide layers move alike.
        rows, columns = updates.shape[-2:]
        factor = max(1, rows / columns) ** 0.5
        for p, update in zip(params, updates, strict=True):
            p.add_(part_like(update.reshape(p.shape), p), alpha=-lr * factor)


def orthogonalise(X):
    """(..., rows, columns) → about U V^T of each one's U S V^T, by five Newton-Schulz steps.

    The singular values do not become exactly 1: those above some 0.003 of the norm go to 0.7 ... 1.2,
    smaller ones grow several hundred times. That does for an update."""
    # The products below are smallest if rows are the short side.
    is_tall = X.shape[-2] > X.shape[-1]
    if is_tall:
        X = X.mT

    # No singular value may be above 1 at the start, and none is above the Frobenius norm.
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)

    # Every step applies one polynomial a s + b s^3 + c s^5 to all singular values s.
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X

    if is_tall:
        X = X.mT
    return X


if __name__ == "__main__":
    X = torch.randn(1, 64, 256) * torch.linspace(0.01, 1, 64)[:, None]
    for name, matrix in (("an update", X), ("the same, orthogonalised", orthogonalise(X))):
        values = torch.linalg.svdvals(matrix)[0]
        print(f"{name}: singular values from {values.min():.2f} to {values.max():.2f}")
