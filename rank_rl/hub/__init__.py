"""What travels with a checkpoint: its prompt contract, its card, its way to the Hub."""
