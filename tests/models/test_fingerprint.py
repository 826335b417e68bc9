import copy

import torch

from reft_pl.models.fingerprint import weights_id


def test_a_fingerprint_is_the_same_in_every_file_format(llama):
    rounded = copy.deepcopy(llama).bfloat16()
    assert weights_id(rounded) == weights_id(copy.deepcopy(rounded).float())
    assert weights_id(rounded) != weights_id(llama), "rounding makes other weights"
    with torch.no_grad():
        changed = copy.deepcopy(llama)
        next(changed.parameters()).view(-1)[0] += 1e-3
    assert weights_id(changed) != weights_id(llama)
