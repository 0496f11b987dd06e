# Makes sigmas.json: the weights of RDC's classifier by its formulas, in numpy.
#
#     python3 sigmas.py
#
import json
import os

import numpy as np

sd, mean, std = 0.5, -1.2, 1.2


def weights(points, exponent):
    s = points[:-1]
    p = 1 / (s * std * np.sqrt(2 * np.pi)) * np.exp(exponent(np.log(s)))
    return (s**2 + sd**2) / (s * sd) ** 2 * p * np.diff(points)


as_coded = lambda u: -((u - mean) ** 2) / 2 * std**2
normal = lambda u: -((u - mean) ** 2) / (2 * std**2)

grid = np.linspace(1e-4, 3, 126)
uneven = np.array([0.01, 0.05, 0.3, 1.0, 2.5])
out = {}
for name, points in [("grid", grid), ("uneven", uneven)]:
    out[name] = {
        "points": [float(points[0]), float(points[-1]), len(points)] if name == "grid" else uneven.tolist(),
        "rdc-code": weights(points, as_coded).tolist(),
        "lognormal": weights(points, normal).tolist(),
        "elbo": (np.diff(points) / points[:-1] ** 3).tolist(),
    }

# Integrals of w(s) E(s) over [1e-4, 3], where E is the error of the best denoiser of N(0, 0.2^2). Simpson's rule on 200,001
# points of ln s.
u = np.linspace(np.log(1e-4), np.log(3), 200_001)
s = np.exp(u)
E = s**2 * 0.2**2 / (s**2 + 0.2**2)
simpson = lambda y: float((y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum()) * (u[1] - u[0]) / 3)
edm = (s**2 + sd**2) / (s * sd) ** 2 / (s * std * np.sqrt(2 * np.pi))
out["integrals"] = {
    "rdc-code": simpson(edm * np.exp(as_coded(u)) * E * s),
    "lognormal": simpson(edm * np.exp(normal(u)) * E * s),
    "elbo": simpson(s**-3 * E * s),
}
with open(os.path.join(os.path.dirname(__file__), "sigmas.json"), "w") as file:
    json.dump(out, file)
