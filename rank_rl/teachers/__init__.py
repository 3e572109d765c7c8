"""Teachers: models that are asked for rankings and reasoning, and what is made of the answers."""
