"""The comparison of a study: scores of its runs, seconds of its engines, and the page that is rendered from both."""
