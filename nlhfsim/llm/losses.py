"""The one loss of all methods, over the pairs of a group of responses to the same prompt.

    mean over ordered pairs i ≠ j of  (β D_ref + τ D_tgt - t_ij)² / (4 (β + τ)),    D_a = (s_i - s_a,i) - (s_j - s_a,j)

s is the summed log-probability of a response under the policy, s_a under the reference or the target, never a mean over tokens;
t_ij = o_ij - ½ the centred label of the pair. Its gradient is -½ mean (t_ij - β D_ref - τ D_tgt) ∇(s_i - s_j), -1 times the
estimate of the self-play policy gradient that the simulator takes (`nlhfsim.pairs`), and β/4 times that of the Online IPO loss
(Calandriello et al., arXiv 2403.08635) at τ = 0. A step size means the same at every β and τ.

Tensors have shape ``(prompts, group)`` or, for pairs, ``(prompts, group, group)``. Sums, not means, are returned: a step divides
by the number of pairs in all of its micro-batches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def differences(values: Tensor) -> Tensor:
    """Return ``values[..., i] - values[..., j]``, shape ``(..., group, group)``."""
    return values.unsqueeze(-1) - values.unsqueeze(-2)


def pair_loss(
    log_probabilities: Tensor,
    reference: Tensor,
    target: Tensor | None,
    labels: Tensor,
    valid: Tensor,
    *,
    beta: float,
    pull: float,
) -> Tensor:
    """Return the sum of the loss over ordered pairs.

    Parameters
    ----------
    log_probabilities, reference, target : torch.Tensor
        Summed log-probabilities of the responses under the policy (with gradient), the reference and, unless `pull` is 0, the
        target, shape ``(prompts, group)``.
    labels : torch.Tensor
        t_ij, shape ``(prompts, group, group)``, skew-symmetric: the vote or the probability less ½, or the difference of two
        responses' gains against opponents of both.
    valid : torch.Tensor
        Which pairs count, the same shape, symmetric. The diagonal must be False.
    beta, pull : float
        β and τ ≥ 0. At β + τ = 0 the loss is ``-½ t_ij (s_i - s_j)``, whose gradient is the limit.

    Returns
    -------
    torch.Tensor
        One number.

    Examples
    --------
    >>> import torch
    >>> s = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    >>> vote = torch.tensor([[[0.0, 0.5], [-0.5, 0.0]]])
    >>> others = ~torch.eye(2, dtype=torch.bool)[None]
    >>> pair_loss(s, torch.tensor([[-1.5, -1.5]]), None, vote, others, beta=0.1, pull=0.0).backward()
    >>> s.grad / 2  # -½ (½ - 0.1 · 1) towards the preferred response, a mean over two ordered pairs
    tensor([[-0.2000,  0.2000]])
    """
    if beta + pull == 0:
        terms = -0.5 * labels * differences(log_probabilities)
    else:
        drawn = beta * differences(log_probabilities - reference)
        if target is not None:
            drawn = drawn + pull * differences(log_probabilities - target)
        terms = (drawn - labels) ** 2 / (4 * (beta + pull))
    return torch.where(valid, terms, torch.zeros_like(terms)).sum()


def token_kl_loss(log_probabilities: Tensor, divergence: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over responses of a loss whose gradient estimates that of KL(π ‖ anchor), from the KL at every token.

    The KL of a response is a sum over its tokens of the KL between next-token distributions. Its gradient has two parts: that of
    each term, and, as earlier tokens decide which later terms occur, the score of a token times the terms after it. A response's
    terms to come are compared with the mean of the others' in its group, which leaves the mean alone and lowers the variance.

    Parameters
    ----------
    log_probabilities, divergence : torch.Tensor
        Of every token, and KL between policy and anchor at it, weighted, both with gradient, shape ``(prompts, group, length)``.
    mask : torch.Tensor
        Which tokens there are.

    Returns
    -------
    torch.Tensor
        One number; divided by the number of responses it is the KL's estimate, up to parts without gradient.
    """
    kept = torch.where(mask, divergence, torch.zeros_like(divergence))
    fixed = kept.detach()
    later = fixed.flip(-1).cumsum(-1).flip(-1) - fixed
    group = later.shape[1]
    others = (later.sum(dim=1, keepdim=True) - later) / (group - 1)
    score = torch.where(mask, (later - others) * log_probabilities, torch.zeros_like(kept))
    return (kept + score).sum()


def gains_against(labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return what makes responses against opponents of their own into pairs of `pair_loss`.

    Parameters
    ----------
    labels : torch.Tensor
        o - ½ of every response against every opponent, shape ``(prompts, group, opponents)``.
    valid : torch.Tensor
        Which of them count.

    Returns
    -------
    labels, valid : torch.Tensor
        Shape ``(prompts, group, group)``: t_ij, how much more response i gains against the opponents than j does, and whether
        both met an opponent at all.
    """
    met = valid.sum(-1)
    gains = torch.where(valid, labels, torch.zeros_like(labels)).sum(-1) / met.clamp(min=1)
    some = met > 0
    both = some.unsqueeze(-1) & some.unsqueeze(-2)
    both = both & ~torch.eye(labels.shape[1], dtype=torch.bool, device=labels.device)
    return differences(gains), both


def exact_loss(log_probabilities: Tensor, drawn: Tensor, ascent: Tensor) -> Tensor:
    """Return the loss whose gradient is -J(π̂)u, the expectation of -1 times the estimates, from all responses to a prompt.

    Parameters
    ----------
    log_probabilities : torch.Tensor
        Of all responses under the policy, with gradient, shape ``(prompts, responses)``.
    drawn : torch.Tensor
        π̂, the probabilities of the distribution that responses are drawn from, the same shape.
    ascent : torch.Tensor
        u = Aμ - β(θ - log ρ) - τ(θ - θ̄) at the policy, the same shape.

    Returns
    -------
    torch.Tensor
        One number, the sum over prompts.
    """
    centred = ascent - (drawn * ascent).sum(-1, keepdim=True)
    return -(drawn * centred * log_probabilities).sum()
