"""``python -m rank_rl``: the form that ``accelerate launch -m rank_rl`` starts."""

from rank_rl.cli.app import main

if __name__ == "__main__":
    main()
