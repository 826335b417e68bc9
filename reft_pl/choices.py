"""The letters that an answer may choose from; imports nothing, since the sandboxes' processes have it too."""

CHOICES = "abcde"
"""As in the datasets (MathQA, AQuA): with more, a letter that a program returns by mistake would count as an answer."""
