"""A scoreboard: models with their passes, scored on the same sections by the same rule, and the page of it."""
