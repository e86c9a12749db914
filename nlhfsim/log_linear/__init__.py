"""Log-linear policies: features on a game, the payoffs through which steps move θ, and the best values that θ can reach."""
