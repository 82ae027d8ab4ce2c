"""What a study asks: the configuration, its draws, states and networks."""
