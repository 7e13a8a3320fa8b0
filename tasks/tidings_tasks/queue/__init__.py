"""The queue's face: the built-in queues, the policy of retries, and our Dramatiq broker (``queue.broker``)."""
