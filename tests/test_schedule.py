"""What a step of training asks its place in the schedule for."""

from dataclasses import replace

import pytest
from small import RECIPE, vit

from swys_utils import training


@pytest.mark.parametrize("steps_per_epoch", [10, 19, 25, 39, 73])
def test_an_epoch_has_ten_tenths(steps_per_epoch):
    ends = []
    for step in range(1, steps_per_epoch + 1):
        if training._is_tenth(step, steps_per_epoch):
            ends.append(step)
    assert len(ends) == 10
    assert ends[-1] == steps_per_epoch


@pytest.mark.parametrize("full_tokens, expected", [(0.2, 0.0), (0.0, 0.5)])
def test_the_last_epoch_of_a_short_schedule_has_all_tokens(full_tokens, expected):
    recipe = replace(RECIPE, epochs=3, full_tokens=full_tokens)
    model = vit(patch_drop_rate=recipe.patch_drop)
    training._set_patch_drop(model, recipe, epoch=2, seconds=0)
    assert model.patch_drop.prob == expected
