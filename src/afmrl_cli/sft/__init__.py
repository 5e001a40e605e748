"""Teaching the generator by examples (SFT)."""
