"""What any store must do (contract §1-3): run against the real scripts on a real Valkey."""

import pytest

# So that a failed assertion of theirs says what differs.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("comparison", "invariants", "machine"))
)
