"""Any JSON value, any bytes, and what has to follow when they are loaded: for fuzz tests."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from swys_utils.config import SwysError

FUZZ = settings(
    max_examples=int(os.environ.get("SWYS_FUZZ", 400)),  # of each test
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def worked_or_one_line(function, *args, **kwargs) -> bool:
    """Whether ``function`` worked; any error but a SwysError of one short line fails the test."""
    try:
        function(*args, **kwargs)
    except SwysError as error:
        message = str(error)
        assert message.strip()
        assert "\n" not in message
        assert len(message) < 700
        return False
    return True


# any JSON value, and any bytes

TELLING = [
    "../x",
    "/etc/passwd",
    "a/b",
    "model.safetensors",
    "pneumoniamnist",
    "0" * 64,
    10**9,
]
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(TELLING),
)


def lists_or_objects(inner):
    """What holds other JSON values."""
    return st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )


JSON = st.recursive(LEAF, lists_or_objects, max_leaves=6)
ODD_JSON = [
    b"[" * 10**5,
    b"{" * 999,
    b'{"runs": 3}',
    b'{"runs": [[]]}',
    b'{"a": 1}',
    b"null",
]
BYTES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(ODD_JSON),
)
