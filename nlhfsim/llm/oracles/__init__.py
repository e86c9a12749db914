"""Preference oracles: who compares two responses to a prompt, and says with which probability the first is preferred."""

from nlhfsim.llm.oracles._spec import PreferenceOracle, Prompt, Response, Verdicts

__all__ = ["PreferenceOracle", "Prompt", "Response", "Verdicts"]
