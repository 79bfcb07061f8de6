"""What the journals say: outcomes, effects, verdicts, claims, and what a design can see."""
