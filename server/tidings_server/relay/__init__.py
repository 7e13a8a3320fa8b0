"""From the store's logs to everybody who watches: exactly once, in order, or told to begin anew."""

from .entry import Entry, Page
from .follower import Batch, FeedBatch, FeedFollower, Follower
from .relay import Relay
from .topic import Topic

__all__ = ["Batch", "Entry", "FeedBatch", "FeedFollower", "Follower", "Page", "Relay", "Topic"]
