"""``swys study``: what its commands refuse before they begin."""

import pytest

from swys_studies.commands import COMMANDS
from swys_utils.config import SwysError


@pytest.mark.parametrize("name", ["amount", "cnn", "planted", "planted_cnn", "trials"])
@pytest.mark.parametrize("seeds", [0, -1])
def test_no_seed_is_refused(name, seeds):
    with pytest.raises(SwysError, match=f"seeds is {seeds}; give 1 or more"):
        COMMANDS[name](seeds=seeds)
