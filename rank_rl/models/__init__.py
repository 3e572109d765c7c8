"""Models on floor 3: loading and saving, tokenising chat prompts, packed label slots."""
