"""The convex programs that define an equilibrium, by general solvers through cvxpy: the independent reference.

For β > 0 the exploitability itself is minimized, ``β log Σ ρ exp(Aπ/β) + β KL(π‖ρ)``, whose optimum is 0 at π*; at β = 0 the
largest ``(Aπ)_y``, a linear program.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from nlhfsim.games.payoffs import Context, dense
from nlhfsim.simplex import safe_log
from nlhfsim.solvers import Answer
from nlhfsim.solvers.interior_point import solve_by_interior_point


def solve_by_cvxpy(context: Context) -> Answer:
    """Solve the convex program of one context by a general solver, unpolished."""
    import cvxpy

    cp: Any = cvxpy

    matrix = dense(context.payoff)
    policy = cp.Variable(len(matrix), nonneg=True)
    if context.beta > 0:
        inside = context.log_reference + matrix @ policy / context.beta
        # rel_entr(π, 1) - π log ρ instead of rel_entr(π, ρ): a peaked ρ then enters linearly.
        objective = cp.log_sum_exp(inside) - cp.sum(cp.entr(policy)) - context.log_reference @ policy
        options: dict[str, Any] = {"solver": cp.CLARABEL, "max_iter": 500}
        options |= {name: 1e-13 for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas")}
        words = "clarabel"
    else:
        objective = cp.max(matrix @ policy)
        # HiGHS through scipy: through highspy it writes a banner to standard output.
        tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        options = {"solver": cp.SCIPY, "scipy_options": {"method": "highs-ds"} | tight}
        words = "highs"
    problem = cp.Problem(cp.Minimize(objective), [cp.sum(policy) == 1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Solution may be inaccurate": the certificate says how inaccurate
            problem.solve(**options)
    except cp.SolverError as error:
        return Answer(np.array(context.log_reference), "cvxpy", f"{words}: {error}", None)
    if policy.value is None:
        return Answer(np.array(context.log_reference), "cvxpy", f"{words}: {problem.status}", None)
    floor = np.finfo(float).tiny if context.beta > 0 else 0.0
    found = np.maximum(policy.value, floor)
    dimension = 0 if context.beta > 0 else solve_by_interior_point(context).face_dimension
    return Answer(safe_log(found / found.sum()), "cvxpy", f"{words}: {problem.status}", dimension)
