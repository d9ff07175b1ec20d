"""How the networks learn, and how what they learned is scored, compared and exported."""
