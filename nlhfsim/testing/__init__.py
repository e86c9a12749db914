"""For property tests of your own: Hypothesis strategies of games, and the contract of a method as one call."""

from nlhfsim.testing.strategies import betas, comparison_logs, policies, preference_games, preferences, references

__all__ = ["betas", "comparison_logs", "policies", "preference_games", "preferences", "references"]
