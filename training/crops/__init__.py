"""From labelled volumes to the crops that training learns from."""
