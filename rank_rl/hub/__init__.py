"""What travels with a checkpoint: its prompt contract."""
