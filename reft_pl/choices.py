"""Letters of multiple-choice answers. Imports nothing, because sandbox processes import it too."""

CHOICES = "abcde"
"""As in MathQA and AQuA. With more letters, a letter that a program returns by mistake would count as an answer."""
