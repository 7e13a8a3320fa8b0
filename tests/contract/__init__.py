"""What any store must do (contract §1-3): run against the real scripts on a real Valkey."""
