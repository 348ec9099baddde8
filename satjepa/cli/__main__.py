"""`python -m satjepa.cli`."""

from satjepa.cli import app

if __name__ == "__main__":
    app()
