"""For property tests of your own: Hypothesis strategies of games, and the contract of a method as one call."""

from nlhfsim.testing.contract import Broken, BrokenContractError, ContractReport, check_dynamics
from nlhfsim.testing.games import as_code, mixed_games
from nlhfsim.testing.strategies import betas, comparison_logs, policies, preference_games, preferences, references

__all__ = [
    "Broken",
    "BrokenContractError",
    "ContractReport",
    "as_code",
    "betas",
    "check_dynamics",
    "comparison_logs",
    "mixed_games",
    "policies",
    "preference_games",
    "preferences",
    "references",
]
