"""For property tests of your own: strategies of games, the contract of a method and that of a claim."""

from nlhfsim.testing.claim import BrokenClaimError, CheckedClaim, check_claim
from nlhfsim.testing.contract import Broken, BrokenContractError, ContractReport, check_dynamics
from nlhfsim.testing.games import as_code, mixed_games
from nlhfsim.testing.strategies import betas, comparison_logs, policies, preference_games, preferences, references

__all__ = [
    "Broken",
    "BrokenClaimError",
    "BrokenContractError",
    "CheckedClaim",
    "ContractReport",
    "as_code",
    "betas",
    "check_claim",
    "check_dynamics",
    "comparison_logs",
    "mixed_games",
    "policies",
    "preference_games",
    "preferences",
    "references",
]
