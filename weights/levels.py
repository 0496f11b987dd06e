"""Chooses how a model classifies, from its errors on labelled images: the weights of its noise levels, the order in
which they are visited, the temperature, and kappa.

The posterior is softmax(-weighted mean error / temperature). Weights and temperature together form a conditional logit
model. It is fitted by maximum likelihood and shrunk towards equal weights; cross-validation chooses how much. The order
is greedy: the next level is the one that improves the posterior most. kappa is the noise-to-signal scale of error gaps:
it tells the sequential strategy how soon it may trust a gap.
"""

import numpy as np
import torch
import torch.nn.functional as F


def fit(errors, labels, shrink):
    """Fits weights [levels] >= 0 of softmax(-errors @ weights). They are not normalised: their sum is 1 / temperature."""
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
    """Returns the accuracy and the mean negative log-likelihood."""
    logits = -((errors - errors.mean(1, keepdim=True)) @ weights)
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


def cross_validated(errors, labels, shrink, folds=5):
    """Returns the mean accuracy and negative log-likelihood over folds that the weights were not fitted on."""
    fold = torch.arange(len(labels)) % folds
    results = [score(errors[fold == f], labels[fold == f], fit(errors[fold != f], labels[fold != f], shrink)) for f in range(folds)]
    return tuple(np.mean(results, axis=0))


def greedy_order(errors, labels, weights):
    """Returns the indices of the levels in greedy order: each level minimises the loss of the prefix that it ends, at the
    best temperature for that prefix."""
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
    """Fits kappa of the sequential strategy by maximum likelihood. The model: if the summed weighted error (mean weight 1)
    of a rival exceeds that of the best class by S after some levels, the odds that the rival is below it after all
    levels are exp(-2 S / kappa). If the levels are independent, kappa is the variance / mean of a gap. It is larger if
    the errors of the levels are correlated."""
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
    """Returns the order of the levels of errors [n, classes, levels], their weights (mean 1), the temperature and kappa."""
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
