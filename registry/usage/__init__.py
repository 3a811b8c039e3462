"""An application of the registry: usage records, the questions asked of them, and the agents that ask."""
