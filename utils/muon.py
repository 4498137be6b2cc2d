"""Muon: momentum whose every update is turned into the nearest orthogonal matrix, so that all directions of a layer learn at one pace.

torch.optim.Muon takes matrices only and one after the other; here a convolution's kernel is a matrix, too, and all of one shape are turned at once.

Jordan et al. 2024, kellerjordan.github.io/posts/muon.
"""
import torch


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalise. A kernel (out, in, ...) counts as a matrix (out, in ...); matrices of one shape go together."""

    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                buffer = self.state[p]["momentum"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                shapes.setdefault(p.shape, []).append((p, p.grad.lerp(buffer, group["momentum"]).flatten(1)))  # Nesterov's look ahead
            for pairs in shapes.values():
                update = orthogonalise(torch.stack([u for _, u in pairs]))
                rows, columns = update.shape[1:]
                for (p, _), u in zip(pairs, update):
                    p.add_(u.view_as(p), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)  # so that outputs move alike in tall and wide layers


def orthogonalise(X):
    """(matrices, rows, columns) → about U V^T of each one's U S V^T, by five Newton-Schulz steps: singular values go to 0.7 ... 1.2."""
    tall = X.shape[-2] > X.shape[-1]
    X = X.mT if tall else X
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        A = X @ X.mT
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.mT if tall else X


if __name__ == "__main__":
    X = torch.randn(1, 64, 256) * torch.linspace(0.01, 1, 64)[:, None]
    for name, matrix in (("an update", X), ("the same, orthogonalised", orthogonalise(X))):
        values = torch.linalg.svdvals(matrix)[0]
        print(f"{name}: singular values from {values.min():.2f} to {values.max():.2f}")
