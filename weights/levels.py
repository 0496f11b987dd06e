"""How a model classifies best, chosen on the errors of labelled images: weights of its levels, their order, temperature.

The posterior is softmax(-weighted mean error / temperature). Weights and temperature together are a conditional logit,
fitted by maximum likelihood, shrunk towards equal weights as cross-validation likes best. The order is greedy: next
comes the level that makes the posterior after it best. kappa says how soon the sequential strategy may trust a gap.
"""

import numpy as np
import torch
import torch.nn.functional as F


def fit(errors, labels, shrink):
    """Weights [levels] >= 0 (not normalised: their sum is 1 / temperature) of softmax(-errors @ weights)."""
    e = errors - errors.mean(1, keepdim=True)
    u = torch.full((e.shape[2],), 7.0, requires_grad=True)
    optimizer = torch.optim.LBFGS([u], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(-(e @ u.exp()), labels) + shrink * (u - u.mean()).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return u.detach().exp()


def score(errors, labels, weights):
    """Accuracy and mean negative log-likelihood."""
    logits = -((errors - errors.mean(1, keepdim=True)) @ weights)
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


def cross_validated(errors, labels, shrink, folds=5):
    """Mean accuracy and likelihood over folds that the weights were not fitted on."""
    fold = torch.arange(len(labels)) % folds
    results = [score(errors[fold == f], labels[fold == f], fit(errors[fold != f], labels[fold != f], shrink)) for f in range(folds)]
    return tuple(np.mean(results, axis=0))


def greedy_order(errors, labels, weights):
    """Indices of levels; each prefix (at its own best temperature) has as small a loss as one more level can make it."""
    e = (errors - errors.mean(1, keepdim=True)) * weights
    order, total = [], torch.zeros(e.shape[:2])
    while len(order) < e.shape[2]:

        def loss(k):
            z = -(total + e[:, :, k])
            return min(F.cross_entropy(z * s, labels).item() for s in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0))

        best = min((k for k in range(e.shape[2]) if k not in order), key=loss)
        order.append(best)
        total += e[:, :, best]
    return order


def noise_of_gaps(errors, weights, order):
    """kappa of the sequential strategy, by maximum likelihood of what it says: that a rival whose weighted errors (mean
    weight 1) are S above the best one's after some levels is below them after all levels with odds exp(-2 S / kappa).
    With independent levels that is the variance / mean of a gap; levels that err together make it larger."""
    totals = (errors * (weights / weights.mean()))[:, :, order].cumsum(2)
    best = totals.argmin(1, keepdim=True)
    gaps = (totals - totals.gather(1, best))[:, :, :-1]
    overtakes = totals[:, :, -1:] < totals[:, :, -1].gather(1, best[:, 0])[:, None]
    rivals = torch.arange(errors.shape[1])[:, None] != best[:, :, :-1]
    gaps, overtakes = gaps[rivals], overtakes[:, :, :-1][rivals].float()
    mean = gaps.mean()
    return min(
        (mean * share for share in np.geomspace(1e-4, 10, 200)),
        key=lambda kappa: F.binary_cross_entropy_with_logits(-2 * gaps / kappa, overtakes),
    ).item()


def choose(errors, labels):
    """The order of the levels of errors [n, classes, levels], their weights (mean 1), temperature and kappa."""
    print(f"equal weights: accuracy {(errors.mean(2).argmin(1) == labels).float().mean():.4f}")
    print("each level:", [round(hits, 3) for hits in (errors.argmin(1) == labels[:, None]).float().mean(0).tolist()])
    tried = {s: cross_validated(errors, labels, s) for s in (1.0, 0.1, 0.03, 0.01, 0.003, 0.001)}
    for s, (accuracy, nll) in tried.items():
        print(f"shrink {s}: cross-validated accuracy {accuracy:.4f} negative log-likelihood {nll:.4f}")
    weights = fit(errors, labels, min(tried, key=lambda s: tried[s][1]))
    order = greedy_order(errors, labels, weights)
    for n in (1, 2, 4, 8, 16):
        first = (errors[:, :, order[:n]] @ weights[order[:n]]).argmin(1)
        print(f"first {n} levels: {(first == labels).float().mean():.4f}")
    return order, weights / weights.mean(), 1 / weights.sum().item(), noise_of_gaps(errors, weights, order)
